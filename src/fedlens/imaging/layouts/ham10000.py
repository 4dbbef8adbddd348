"""HAM10000 dermoscopy: images in one folder or the two archive parts, and a metadata table.

Tschandl et al. 2018, Scientific Data 5:180161. Several images show one lesion, so ``lesion_id`` is
the group. ``localization`` is a place on the body, not a hospital, and is left out.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from fedlens.imaging.import_report import ImportProblem
from fedlens.imaging.layouts.listing import FoundImage, Layout, Listing
from fedlens.imaging.layouts.tables import header_of, read_table, sex, years
from fedlens.imaging.layouts.tree import Tree, kind, looks_like_image, unused_masks

_COLUMNS = {"lesion_id", "image_id", "dx"}
_METADATA = "HAM10000_metadata"
_OUTLINE = re.compile(r"(.+)_segmentation")


def find(tree: Tree) -> Listing | None:
    """A table with ``lesion_id``, ``image_id`` and ``dx``, and images named for ``image_id``."""
    # The archive's own table has no extension.
    tables = [*tree.tables, *(file for file in tree.files if PurePosixPath(file).name == _METADATA)]
    table = next((table for table in tables if set(header_of(tree.root / table)) >= _COLUMNS), None)
    if table is None:
        return None
    masks, images, others = _sorted_files(tree, table)
    return _listing(tree, tree.root / table, masks, images, others)


def _sorted_files(tree: Tree, table: str) -> tuple[dict[str, str], list[str], list[str]]:
    """Outlines by image id, images, and files that are neither."""
    masks: dict[str, str] = {}
    images, others = [], []
    for file in tree.files:
        outline = _OUTLINE.fullmatch(PurePosixPath(file).stem)
        if file == table:
            continue
        if outline and outline[1] not in masks:
            masks[outline[1]] = file
        elif outline or not looks_like_image(file):
            others.append(file)
        else:
            images.append(file)
    return masks, images, others


def _listing(
    tree: Tree, table: Path, masks: dict[str, str], files: list[str], others: list[str]
) -> Listing | None:
    rows = {row["image_id"]: row for row in read_table(table).rows}
    found: dict[str, FoundImage] = {}
    problems = []
    for file in files:
        name = PurePosixPath(file).stem
        if name not in rows:
            problems.append(ImportProblem(str(tree.root / file), f"has no row in {table.name}"))
        elif name in found:
            problems.append(ImportProblem(str(tree.root / file), "second file of an image already listed"))
        elif not rows[name]["dx"]:
            problems.append(ImportProblem(str(tree.root / file), f"has no dx in {table.name}"))
        else:
            mask = tree.root / masks[name] if name in masks else None
            found[name] = _found(tree.root / file, file, rows[name], mask)
    if not found:
        return None
    problems += [
        ImportProblem(str(table.parent / f"{name}.jpg"), f"is in {table.name}, but there is no such image")
        for name in rows.keys() - {PurePosixPath(file).stem for file in files}
    ]
    problems.sort(key=lambda problem: problem.file)
    ignored = tree.ignored.copy()
    ignored.update(kind(file) for file in others)
    return Listing(
        layout=LAYOUT.name,
        images=list(found.values()),
        total=len(found),
        source="ham10000",
        modality="dermoscopy",
        problems=(*problems, *unused_masks(tree, masks.values(), (image.mask for image in found.values()))),
        ignored=ignored,
    )


def _found(path: Path, name: str, row: dict[str, str], mask: Path | None) -> FoundImage:
    return FoundImage(
        path=path,
        name=name,
        label=row["dx"],
        patient=row["lesion_id"],
        mask=mask,
        age=years(row.get("age", "")),
        sex=sex(row.get("sex", "")),
    )


LAYOUT = Layout(
    "HAM10000",
    "a table with lesion_id, image_id and dx beside folders of images; *_segmentation.png optional",
    find,
)
