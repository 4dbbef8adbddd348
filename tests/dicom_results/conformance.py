"""dciodvfy of dicom3tools: the standard's modules, attribute by attribute."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def errors_of(file: Path) -> list[str]:
    """What dciodvfy calls an error in a file; skips the test where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (package dicom3tools)")
    told = subprocess.run([program, "-new", str(file)], capture_output=True, text=True, check=False)
    lines = [line for line in (told.stdout + told.stderr).splitlines() if line.strip()]
    assert lines, f"dciodvfy says nothing about {file}"
    return [line for line in lines if line.startswith("Error")]
