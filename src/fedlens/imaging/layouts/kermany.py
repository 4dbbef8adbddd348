"""Kermany chest X-rays: {train,val,test}/{NORMAL,PNEUMONIA}, patients in the file names.

Kermany et al. 2018, Cell 172; the common download holds a second copy of itself
(``chest_xray/chest_xray``) and macOS clutter.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from fedlens.imaging.import_report import ImportProblem
from fedlens.imaging.layouts.class_folders import SPLIT_NOTE
from fedlens.imaging.layouts.listing import FoundImage, Layout, Listing
from fedlens.imaging.layouts.tree import Tree

_NESTED = "chest_xray/"
_PLACE = re.compile(r"(train|val|test)/(NORMAL|PNEUMONIA)/.+")
_OTHER_CLASS = re.compile(r"(train|val|test)/(?!NORMAL/|PNEUMONIA/)[^/]+/")
_PATIENT = re.compile(r"person\d+(?=_)|(?:NORMAL2-)?IM-\d+(?=-)|(?:NORMAL|BACTERIA|VIRUS)-\d+(?=-)")
_GERM = re.compile(r"bacteria|virus", re.IGNORECASE)


def patient_key(file_name: str) -> str:
    """The patient that a file name stands for, or empty.

    ``person12_virus_3.jpeg`` is ``person12``, ``IM-0115-0001.jpeg`` is ``IM-0115`` and
    ``NORMAL2-IM-0536-0001-0002.jpeg`` is ``NORMAL2-IM-0536``.
    """
    match = _PATIENT.match(file_name)
    return match[0] if match else ""


def find(tree: Tree) -> Listing | None:
    """The split and class folders of this data set and no other classes."""
    inner = [file.removeprefix(_NESTED) for file in tree.files]
    if any(_OTHER_CLASS.match(file) for file in inner) or not any(_PLACE.match(file) for file in inner):
        return None
    outer = {file for file in tree.files if _PLACE.fullmatch(file)}
    images, copies, strays = [], [], []
    for file, place in zip(tree.files, inner, strict=True):
        if not _PLACE.fullmatch(place):
            strays.append(file)
        elif file != place and place in outer and _same_size(tree, file, place):
            copies.append(file)
        else:
            images.append(_found(tree, file, place))
    problems, others = tree.out_of_place(strays)
    splits = sorted({PurePosixPath(file).parts[0] for file in inner if _PLACE.fullmatch(file)})
    return Listing(
        layout=LAYOUT.name,
        images=images,
        total=len(images),
        source="chest_xray",
        modality="xray",
        problems=problems + _copy_problem(tree, copies) + _nameless(images),
        ignored=tree.ignored + others,
        notes=(SPLIT_NOTE.format(", ".join(splits)),),
    )


def _found(tree: Tree, file: str, place: str) -> FoundImage:
    path = PurePosixPath(place)
    germ = _GERM.search(path.name)
    label = path.parts[1]
    return FoundImage(
        path=tree.root / file,
        name=file,
        label=label,
        patient=patient_key(path.name),
        subtype=germ[0].lower() if germ and label == "PNEUMONIA" else "",
    )


def _same_size(tree: Tree, one: str, other: str) -> bool:
    return (tree.root / one).stat().st_size == (tree.root / other).stat().st_size


def _copy_problem(tree: Tree, copies: list[str]) -> tuple[ImportProblem, ...]:
    if not copies:
        return ()
    reason = f"the download's second copy of itself: {len(copies)} files that are also outside it"
    return (ImportProblem(str(tree.root / _NESTED), reason),)


def _nameless(images: list[FoundImage]) -> tuple[ImportProblem, ...]:
    reason = "its name gives no patient; it stands for itself"
    return tuple(ImportProblem(str(image.path), reason, "handled") for image in images if not image.patient)


LAYOUT = Layout("Kermany chest X-ray", "{train,val,test}/{NORMAL,PNEUMONIA}/", find)
