"""A folder of DICOM files, however deep: classes from its folders, the rest from the headers."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fedlens.imaging import dicom
from fedlens.imaging.formats import IMAGE_SUFFIXES
from fedlens.imaging.layouts import class_folders
from fedlens.imaging.layouts.listing import FoundImage, Layout, Listing
from fedlens.imaging.layouts.tree import Tree

UNLABELLED = "unlabelled"
_HEAD = 132


def find(tree: Tree) -> Listing | None:
    """At least as many DICOM files as ordinary images."""
    ordinary = sum(PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES for file in tree.files)
    scans = sum(
        _starts_like_dicom(tree.root / file)
        for file in tree.files
        if PurePosixPath(file).suffix.lower() not in IMAGE_SUFFIXES
    )
    if scans == 0 or scans < ordinary:
        return None
    while (inner := tree.inner()) is not None:
        tree = inner
    classed = class_folders.find(tree)
    if classed is not None:
        return Listing(
            layout=LAYOUT.name,
            images=classed.images,
            total=classed.total,
            problems=classed.problems,
            ignored=classed.ignored,
            notes=classed.notes,
        )
    images = [FoundImage(tree.root / file, file, UNLABELLED) for file in tree.files]
    note = f"no class folders and no CSV with path and label: every image is {UNLABELLED}"
    return Listing(LAYOUT.name, images, len(images), ignored=tree.ignored, notes=(note,))


def _starts_like_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return dicom.is_dicom(stream.read(_HEAD))
    except OSError:
        return False


LAYOUT = Layout("DICOM folder", "files with a DICOM header, in class folders or not", find)
