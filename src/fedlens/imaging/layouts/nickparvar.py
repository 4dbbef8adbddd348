"""Nickparvar brain MRI: {Training,Testing}/{glioma,meningioma,notumor,pituitary}.

The data set names no patients, so every image stands for itself until the audit joins copies.
"""

from __future__ import annotations

import re

from fedlens.imaging.layouts.class_folders import class_listing
from fedlens.imaging.layouts.listing import Layout, Listing
from fedlens.imaging.layouts.tree import Tree

_SPLITS = ("Training", "Testing")
_PLACE = re.compile(r"(Training|Testing)/(glioma|meningioma|notumor|pituitary)/.+")
_OTHER_CLASS = re.compile(r"(Training|Testing)/(?!(glioma|meningioma|notumor|pituitary)/)[^/]+/")


def find(tree: Tree) -> Listing | None:
    """The split and class folders of this data set and no other classes."""
    found = [file for file in tree.files if _PLACE.fullmatch(file)]
    if not found or any(_OTHER_CLASS.match(file) for file in tree.files):
        return None
    splits = [split for split in _SPLITS if any(file.startswith(split) for file in found)]
    return class_listing(
        tree, found, 1, layout=LAYOUT.name, splits=splits, source="brain_mri", modality="mri"
    )


LAYOUT = Layout(
    "Nickparvar brain MRI", "{Training,Testing}/{glioma,meningioma,notumor,pituitary}/, masks/ optional", find
)
