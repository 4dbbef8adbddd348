"""A hospital's disk fills up in the middle of a study: a file system of its own, really full."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deployment.running import RunningFederation, tiny_study


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size on a folder."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"cannot mount a file system here: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path, leave: int) -> None:
    """Write a file until only so many bytes are left on its disk."""
    with path.open("wb") as stream, contextlib.suppress(OSError):
        while (free := os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize) > leave:
            stream.write(bytes(min(1 << 20, free - leave)))
            stream.flush()


@pytest.mark.parametrize("leave", [4 << 20, 0], ids=["for no state", "for nothing"])
def test_a_hospital_with_a_full_disk_says_so_and_takes_part_again_once_there_is_room(
    running: RunningFederation, images: Path, leave: int
) -> None:
    study = tiny_study(images, "full", sealing={"mode": "on"}, federation={"rounds": 4})
    home = running.hospital("east") / "studies"
    with small_disk(home, "64m"):
        running.start()
        running.submit(study)
        with running.held_in_training(study, 2, "east"):
            fill(home / "ballast", leave)
        lost = running.wait_for_round(study, 2)
        with running.held("north"):
            assert not list(home.rglob("*.part"))
            (home / "ballast").unlink()
        ended = running.follow(study)
        said = running.notices(running.hospital("east"))
        running.close()

    assert ended["state"] == "finished"
    assert "disk is full" in lost["missing"]["east"]
    assert "service ended" not in said
    assert set(running.rounds(study)[4]["hospitals"]) == set(running.names)
