"""Recognising how a source is laid out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedlens.errors import DataError, LayoutError
from fedlens.imaging.layouts import (
    class_folders,
    csv_manifest,
    dicom_folder,
    ham10000,
    kermany,
    medmnist,
    nickparvar,
)
from fedlens.imaging.layouts.listing import FileLayout, FoundImage, Layout, Listing
from fedlens.imaging.layouts.tree import Tree, looks_like_image, walk

__all__ = ["FILE_LAYOUTS", "FOLDER_LAYOUTS", "FoundImage", "Listing", "recognise"]

# The particular ones first: each of the first three is also a set of class folders.
FOLDER_LAYOUTS: tuple[Layout, ...] = (
    kermany.LAYOUT,
    nickparvar.LAYOUT,
    ham10000.LAYOUT,
    csv_manifest.LAYOUT,
    dicom_folder.LAYOUT,
    class_folders.LAYOUT,
)
FILE_LAYOUTS: tuple[FileLayout, ...] = (csv_manifest.FILE_LAYOUT, medmnist.FILE_LAYOUT)


def recognise(source: Path) -> Listing:
    """Find out how a folder or file is laid out, and list its images.

    Args:
        source: A folder, a CSV manifest or a MedMNIST file; absolute.

    Returns:
        The listing; its ``source`` is never empty.

    Raises:
        LayoutError: No layout fits; says what was looked for.
        DataError: Nothing there, or unreadable.
    """
    if source.is_dir():
        listing = _recognise_folder(source)
    elif source.is_file():
        listing = _recognise_file(source)
    else:
        raise DataError(f"There is no folder or file {source}.", fix="Check the path.")
    own_name = source.stem if source.is_file() else source.name
    return replace(listing, source=listing.source or own_name)


def _recognise_folder(source: Path) -> Listing:
    outer = walk(source)
    trees, inner = [], outer
    level: Tree | None = outer
    while level is not None:
        trees.append(level)
        inner, level = level, level.inner()
    for layout in FOLDER_LAYOUTS:
        for tree in reversed(trees):
            listing = layout.find(tree)
            if listing is not None:
                return listing
    images = sum(looks_like_image(file) for file in outer.files)
    flat = sum(looks_like_image(file) and "/" not in file for file in inner.files)
    found = f"{images} files called images, {flat} of them without a class folder" if images else "no images"
    raise LayoutError(
        f"{source} is laid out in no way that FedLens knows: it holds {found}.",
        why=f"Looked for:\n{_known(FOLDER_LAYOUTS)}",
        fix="Sort the images into one folder per class, or list them in a CSV with path and label.",
    )


def _recognise_file(source: Path) -> Listing:
    for layout in FILE_LAYOUTS:
        if source.suffix.lower() in layout.suffixes:
            return layout.find(source)
    packed = source.suffix.lower() in (".zip", ".gz", ".tar", ".7z", ".rar")
    raise LayoutError(
        f"{source} is no file that FedLens can import.",
        why=f"Looked for:\n{_known(FILE_LAYOUTS)}",
        fix="Unpack it and give the folder." if packed else "Give the folder that holds the images.",
    )


def _known(layouts: tuple[Layout, ...] | tuple[FileLayout, ...]) -> str:
    return "\n".join(f"  {layout.name}: {layout.looks_like}" for layout in layouts)
