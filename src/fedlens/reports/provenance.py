"""Where a report comes from: settings, versions, the time. What names this machine's folders is left out."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from typing import Any

from fedlens.study import Study

_LIBRARIES = ("fedlens", "torch", "monai", "numpy", "opencv-python-headless", "pydicom")


def shareable(study: Study) -> dict[str, Any]:
    """The settings without the paths of this machine."""
    settings = study.model_dump(mode="json", exclude={"output"})
    settings["data"]["folder"] = study.data.folder.name
    settings["model"]["start"] = study.model.start.name if study.model.start else None
    return settings


def versions() -> dict[str, str]:
    """Version of each library that figures depend on, of Python, and the kind of machine."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def now() -> str:
    """The time to the minute, UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
