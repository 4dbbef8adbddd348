"""What the audit holds against a study folder: one check each, from the manifest and its copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedlens.imaging.copies import KINDS, Copies
from fedlens.imaging.manifest import SPLITS, ImageRecord, Manifest
from fedlens.imaging.official_splits import OfficialSplit
from fedlens.imaging.source_cues import TOGETHER, CueScore
from fedlens.imaging.structure import Indices

Severity = Literal["error", "warning", "note"]
_EXAMPLES = 6
_RARE = 0.05
_LARGE_CLUSTER = 0.05


@dataclass(frozen=True)
class Finding:
    """One thing to know about the images.

    Attributes:
        severity: ``error`` spoils results, ``warning`` may, ``note`` is for information.
        title: A short phrase, the same for the same kind of finding.
        detail: What was found, with numbers, and what to do.
        images: Ids of up to six images concerned.
    """

    severity: Severity
    title: str
    detail: str
    images: tuple[str, ...] = ()


def copy_findings(manifest: Manifest, copies: Copies) -> Iterator[Finding]:
    """How many copies there are, of which kinds, and whether their labels agree."""
    kinds = Counter(copies.pairs["kind"].tolist())
    members = _members(copies.group)
    several = [indices for indices in members if len(indices) > 1]
    extra = sum(len(indices) - 1 for indices in several)
    if several:
        listed = ", ".join(f"{kinds[place]} {name}" for place, name in enumerate(KINDS))
        biggest = max(several, key=len)
        yield Finding(
            "warning",
            "copies",
            f"{extra} of {len(manifest)} images are copies of others, in {len(several)} groups of up to "
            f"{len(biggest)} (links: {listed}; {int(copies.pairs['mirrored'].sum())} of them mirrored). "
            "Splits keep each group together.",
            _ids(manifest, biggest),
        )
    else:
        yield Finding("note", "copies", f"No image of {len(manifest)} is a copy of another.")
    if len(copies.flat):
        yield Finding(
            "note",
            "images without structure",
            f"{len(copies.flat)} images are nearly uniform: only their exact copies can be found.",
            _ids(manifest, copies.flat.tolist()),
        )
    torn = _torn(manifest, several, lambda record: record.label)
    if torn:
        yield Finding(
            "error",
            "copies with different labels",
            f"{len(torn)} groups of copies carry more than one label, {sum(map(len, torn))} images; "
            "splitting leaves them out. Correct their labels where they can be known.",
            _examples(manifest, torn, lambda record: record.label),
        )


def leak_findings(manifest: Manifest, copies: Copies, clusters: Indices) -> Iterator[Finding]:
    """Copies and patients on both sides of a boundary, for splits and for hospitals."""
    groups = np.unique([record.group for record in manifest], return_inverse=True)[1]
    boundaries: tuple[tuple[str, str, Severity, Callable[[ImageRecord], str]], ...] = (
        ("splits", "split", "error", lambda record: record.split),
        ("hospitals", "hospital", "warning", lambda record: record.hospital),
    )
    for plural, column, severity, value in boundaries:
        if not any(value(record) for record in manifest):
            yield Finding(
                "note",
                f"{plural} not checked",
                f"No image has a {column} yet: whether copies or patients cross {plural} could not be "
                "checked. Splits and shares that FedLens makes keep them together.",
            )
            continue
        clean = True
        for what, numbers in (("copies", copies.group), ("patients", groups)):
            torn = _torn(manifest, _members(numbers), value)
            clean = clean and not torn
            if torn:
                yield Finding(
                    severity,
                    f"{what} across {plural}",
                    f"{len(torn)} groups of {what}, {sum(map(len, torn))} images, lie in more than one "
                    f"{column}. Make the {plural} with FedLens, which keeps each group together.",
                    _examples(manifest, torn, value),
                )
        if clean:
            yield Finding("note", f"{plural} checked", f"No copy and no patient crosses {plural}.")
    biggest = max(_members(clusters), key=len, default=[])
    if len(biggest) > 1 and len(biggest) > _LARGE_CLUSTER * len(manifest):
        yield Finding(
            "warning",
            "large cluster",
            f"{len(biggest)} of {len(manifest)} images hang together by patient and copies, so they all go "
            "to one split and one hospital. Look at a few: are they the same pictures?",
            _ids(manifest, biggest),
        )


def official_findings(official: Sequence[OfficialSplit]) -> Iterator[Finding]:
    """Whether the splits that the data sets came with can be trusted."""
    for part in official:
        copies = f"{part.copied} of {part.images} {part.name} images have a copy in {part.training}"
        patients = f"{part.shared} share their patient with {part.training}"
        if part.copied or part.shared:
            told = "; ".join(
                text for text, count in ((copies, part.copied), (patients, part.shared)) if count
            )
            exact = f" ({part.identical} unchanged or just mirrored)" if part.copied else ""
            yield Finding(
                "warning",
                "official split leaks",
                f"The official split of {part.source} leaks: {told}{exact}. "
                "Figures measured on it are too good; FedLens makes its own split.",
                part.examples,
            )
        else:
            yield Finding(
                "note",
                "official split clean",
                f"No {part.name} image of {part.source} has a copy or a known patient in {part.training}.",
            )


def balance_findings(manifest: Manifest) -> Iterator[Finding]:
    """Rare classes, classes missing from a split or hospital, and classes that one source alone brings."""
    counts = Counter(record.label for record in manifest)
    for label, count in sorted(counts.items()):
        if count < _RARE * max(counts.values()):
            yield Finding(
                "warning",
                "rare class",
                f"{label} has {count} images, the most common class {max(counts.values())}: "
                "judge by balanced accuracy, and consider training.class_weights = 'balanced'.",
            )
    for column, names in (("split", SPLITS), ("hospital", None)):
        table = Counter((getattr(record, column), record.label) for record in manifest)
        present = {value for value, _ in table if value}
        for value in sorted(present & set(names) if names else present):
            missing = [label for label in sorted(counts) if not table[value, label]]
            if missing:
                yield Finding(
                    "warning", "class missing", f"{column} {value} has no image of {', '.join(missing)}."
                )
    yield from _lone_sources(manifest)
    without = Counter(record.source for record in manifest if record.group == record.image_id)
    for source, images in sorted(without.items()):
        yield Finding(
            "note",
            "patients unknown",
            f"{images} images of {source} name no patient: only copies keep them together. "
            "If you know the patients, import with --groups FILE.csv:PATHCOLUMN:GROUPCOLUMN.",
        )


def cue_findings(scores: Sequence[CueScore]) -> Iterator[Finding]:
    """One warning for each class that source cues tell from the rest, with its best single cue."""
    by_class: dict[tuple[str, str], list[CueScore]] = defaultdict(list)
    for score in scores:
        if score.telling:
            by_class[score.modality, score.label].append(score)
    for telling in by_class.values():
        alone = [score for score in telling if score.cue != TOGETHER]
        shown = [*alone[:1], *(score for score in telling if score.cue == TOGETHER)]
        yield Finding(
            "warning",
            "source cue",
            "; ".join(score.sentence() for score in shown)
            + ". A network may learn where images come from: check its saliency maps.",
        )


def unreadable_findings(manifest: Manifest, unreadable: dict[int, str]) -> Iterator[Finding]:
    """Images that the import could read and that now cannot be."""
    if unreadable:
        first = next(iter(unreadable))
        yield Finding(
            "error",
            "unreadable images",
            f"{len(unreadable)} images cannot be read, the first: {manifest.records[first].file}: "
            f"{unreadable[first]}. Restore them or import again.",
            _ids(manifest, list(unreadable)),
        )


def _lone_sources(manifest: Manifest) -> Iterator[Finding]:
    """Within one modality with several sources, classes that only one of them has."""
    sources: dict[str, set[str]] = defaultdict(set)
    origins: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in manifest:
        sources[record.modality].add(record.source)
        origins[record.modality, record.label].add(record.source)
    for (modality, label), found in sorted(origins.items()):
        if len(sources[modality]) > 1 and len(found) == 1:
            yield Finding(
                "warning",
                "class from one source",
                f"All {modality} images of {label} come from {next(iter(found))}, other classes from other "
                "sources too: the class and the source cannot be told apart.",
            )


def _members(numbers: Indices) -> list[list[int]]:
    """Indices of each group, in the order of their first images."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(numbers.tolist()):
        groups[number].append(index)
    return list(groups.values())


def _torn(
    manifest: Manifest, groups: Sequence[list[int]], value: Callable[[ImageRecord], str]
) -> list[list[int]]:
    """Groups with two different values; images without one do not count."""
    records = manifest.records
    return [group for group in groups if len({value(records[index]) for index in group} - {""}) > 1]


def _examples(
    manifest: Manifest, torn: Sequence[list[int]], value: Callable[[ImageRecord], str]
) -> tuple[str, ...]:
    """One image of each value, from the first torn groups."""
    examples: list[int] = []
    for group in torn:
        by_value = {value(manifest.records[index]): index for index in reversed(group)}
        by_value.pop("", None)
        examples += sorted(by_value.values())
    return _ids(manifest, examples)


def _ids(manifest: Manifest, indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(manifest.records[index].image_id for index in indices[:_EXAMPLES])
