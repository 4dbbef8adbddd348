"""The splits that data sets come with, read off their folder names, and what they leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedlens.imaging.copies import Copies
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.structure import Indices

_TRAINING = {"train", "training"}
_OTHERS = {"val", "valid", "validation", "test", "testing"}
_EXAMPLES = 6


@dataclass(frozen=True)
class OfficialSplit:
    """One held-out part of a source, against its training part.

    Attributes:
        source: The data set.
        name: The folder's own name, e.g. ``Testing``.
        training: The training folder's name.
        images: Images in the held-out part.
        copied: Those with a copy of any kind in the training part.
        identical: Those with an unchanged, re-saved or mirrored copy there.
        shared: Those of a patient who is in the training part, too.
        examples: Up to six image ids, each held-out one followed by its copy or patient's in training.
    """

    source: str
    name: str
    training: str
    images: int
    copied: int
    identical: int
    shared: int
    examples: tuple[str, ...]


def official_splits(manifest: Manifest, copies: Copies) -> tuple[OfficialSplit, ...]:
    """Every held-out part that the image ids name, in sources that also have a training part."""
    parts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, record in enumerate(manifest):
        folder = _split_folder(record)
        if folder:
            parts[record.source][folder].append(index)
    patients = np.unique([record.group for record in manifest], return_inverse=True)[1]
    unchanged = copies.groups("bytes", "pixels", "near")
    return tuple(
        _judge(manifest, source, name, folders, (copies.group, unchanged, patients))
        for source, folders in sorted(parts.items())
        for name in sorted(folders)
        if name.lower() in _OTHERS and any(folder.lower() in _TRAINING for folder in folders)
    )


def _split_folder(record: ImageRecord) -> str:
    """The folder of the image's id that names a split, or empty."""
    folders: Iterator[str] = (
        part for part in record.image_id.split("/")[1:-1] if part.lower() in _TRAINING | _OTHERS
    )
    return next(folders, "")


def _judge(
    manifest: Manifest,
    source: str,
    name: str,
    folders: dict[str, list[int]],
    links: tuple[Indices, Indices, Indices],
) -> OfficialSplit:
    training = next(folder for folder in sorted(folders) if folder.lower() in _TRAINING)
    held, seen = np.array(folders[name]), np.array(folders[training])
    leaks = [np.isin(numbers[held], numbers[seen]) for numbers in links]
    examples: list[str] = []
    for numbers, leaking in ((links[0], leaks[0]), (links[2], leaks[2])):
        for index in held[leaking][: _EXAMPLES // 2]:
            twin = seen[numbers[seen] == numbers[index]][0]
            examples += [manifest.records[index].image_id, manifest.records[twin].image_id]
    copied, identical, shared = (int(leaking.sum()) for leaking in leaks)
    return OfficialSplit(
        source=source,
        name=name,
        training=training,
        images=len(held),
        copied=copied,
        identical=identical,
        shared=shared,
        examples=tuple(examples[:_EXAMPLES]),
    )
