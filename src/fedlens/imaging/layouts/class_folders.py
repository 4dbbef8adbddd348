"""A folder per class, also under train/val/test folders; outlines in ``masks/``, if any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath

from fedlens.imaging.layouts.listing import FoundImage, Layout, Listing
from fedlens.imaging.layouts.tree import SPLIT_FOLDERS, Tree, unused_masks

MASKS = "masks/"
SPLIT_NOTE = "the source's own split folders ({}) are not used; splits are made anew over patients"


def find(tree: Tree) -> Listing | None:
    """Two or more class folders with images."""
    plain = [file for file in tree.files if not file.startswith(MASKS)]
    tops = {PurePosixPath(file).parts[0] for file in plain if "/" in file}
    splits = sorted(tops) if tops and all(top.lower() in SPLIT_FOLDERS for top in tops) else []
    depth = 1 if splits else 0
    classes = {_part(file, depth) for file in plain} - {""}
    if len(classes) < 2:
        return None
    found = [file for file in plain if _part(file, depth)]
    return class_listing(tree, found, depth, layout=LAYOUT.name, splits=splits)


def class_listing(
    tree: Tree,
    found: Collection[str],
    depth: int,
    *,
    layout: str,
    splits: Collection[str] = (),
    source: str = "",
    modality: str = "other",
) -> Listing:
    """The listing of a tree whose folders at ``depth`` are classes; ``found`` are the images in them."""
    masks = [file for file in tree.files if file.startswith(MASKS)]
    known = set(masks)
    images = []
    for file in found:
        outline = MASKS + PurePosixPath(file).with_suffix(".png").as_posix()
        images.append(
            FoundImage(
                path=tree.root / file,
                name=file,
                label=_part(file, depth),
                mask=tree.root / outline if outline in known else None,
            )
        )
    outside = set(tree.files) - set(found) - known
    problems, others = tree.out_of_place(sorted(outside))
    return Listing(
        layout=layout,
        images=images,
        total=len(images),
        source=source,
        modality=modality,
        problems=problems + unused_masks(tree, masks, (image.mask for image in images)),
        ignored=Counter(tree.ignored) + others,
        notes=(SPLIT_NOTE.format(", ".join(splits)),) if splits else (),
    )


def _part(file: str, depth: int) -> str:
    """The folder at ``depth`` that a file lies in, or empty."""
    parts = PurePosixPath(file).parts
    return parts[depth] if len(parts) > depth + 1 else ""


LAYOUT = Layout("class folders", "two or more folders named for their class, with images inside", find)
