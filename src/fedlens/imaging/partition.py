"""Sharing images out over hospitals; no patient and no copy is at two of them."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fedlens.errors import SettingsError, SplitError
from fedlens.imaging.allocation import Floats, cluster_of, deal
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.study import HospitalSettings

ELSEWHERE = "patient or copy at another hospital"
_DIRICHLET_DRAWS = 100
_FEWEST_TRAINING = 2

Placement = dict[str, str]
"""Hospital by image id."""


def share_out(manifest: Manifest, settings: HospitalSettings) -> Manifest:
    """Give every image in use a hospital.

    Each split is dealt on its own, by whole clusters, so that every hospital has its own training,
    validation and test images. The outcome does not depend on the order of the images. Where hospitals
    come from the data (``site``, ``manifest``) they stay as they are, and images whose patient or copy
    is mostly at another hospital are excluded: they would be known there.

    Args:
        manifest: Split images; before splitting, all count as one split. Excluded ones get no hospital.
        settings: How; see ``HospitalSettings``.

    Raises:
        SettingsError: Names or shares that do not fit each other.
        SplitError: The data do not hold what the settings ask for, or a hospital would be left with
            fewer than two training images (or, where there are splits, without test images).
    """
    used = [record for record in manifest if not record.excluded]
    if not used:
        raise SplitError("There are no images to share out.", fix="Import images, or exclude fewer.")
    if settings.by in ("site", "manifest"):
        done = _as_in_data(manifest, settings.by)
    else:
        _check_names(settings)
        placement = _MODES[settings.by](used, settings)
        done = manifest.with_column("hospital", [placement.get(record.image_id, "") for record in manifest])
    _check_hospitals(done, settings)
    return done


def limit(manifest: Manifest, n: int, *, seed: int) -> Manifest:
    """Draw at most ``n`` images by whole clusters, each source and label in proportion.

    Excluded images are left out. The rest keep their order.

    Raises:
        SettingsError: ``n`` is less than 1.
    """
    if n < 1:
        raise SettingsError(f"data.limit = {n} leaves no images.", fix="Use 0 for all images.")
    used = [record for record in manifest if not record.excluded]
    if len(used) <= n:
        return manifest.with_records(used)
    parts = deal(used, [n, len(used) - n], np.random.default_rng(seed))
    kept = [record for record, part in zip(used, parts, strict=True) if part == 0]
    sizes = Counter(cluster_of(record) for record in kept)
    # Whole clusters rarely fill n exactly; what is over goes, smallest cluster that is enough first.
    for over in iter(lambda: sizes.total() - n, 0):
        if over < 0:
            break
        enough = [name for name in sizes if sizes[name] >= over]
        del sizes[
            min(enough, key=lambda name: (sizes[name], name)) if enough else max(sizes, key=sizes.__getitem__)
        ]
    return manifest.with_records(record for record in kept if cluster_of(record) in sizes)


def _paper(used: list[ImageRecord], settings: HospitalSettings) -> Placement:
    if len(settings.shares) != len(settings.names):
        raise SettingsError(
            f"hospitals.shares has {len(settings.shares)} values for {len(settings.names)} hospitals.",
            fix="Give one share for each of hospitals.names, or set hospitals.by = 'equal'.",
        )
    if min(settings.shares) <= 0:
        raise SettingsError(f"hospitals.shares = {list(settings.shares)} has a share that is not above 0.")
    return _deal(used, settings, lambda stratum: np.array(settings.shares))


def _equal(used: list[ImageRecord], settings: HospitalSettings) -> Placement:
    return _deal(used, settings, lambda stratum: np.ones(len(settings.names)))


def _by_modality(used: list[ImageRecord], settings: HospitalSettings) -> Placement:
    """Each hospital one modality; the largest get several hospitals, or the smallest share one."""
    main = _modality_of_clusters(used)
    counts = Counter(main[cluster_of(record)] for record in used)
    bundles = [
        ([name], count) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    while len(bundles) > len(settings.names):
        (small, few), (other, more) = bundles.pop(), bundles.pop()
        bundles.append((other + small, more + few))
        bundles.sort(key=lambda bundle: (-bundle[1], bundle[0]))
    hospitals = [1] * len(bundles)
    while sum(hospitals) < len(settings.names):
        hospitals[max(range(len(bundles)), key=lambda place: bundles[place][1] / hospitals[place])] += 1
    placement: Placement = {}
    names = iter(settings.names)
    for (modalities, _), number in zip(bundles, hospitals, strict=True):
        part = [record for record in used if main[cluster_of(record)] in modalities]
        mine = settings.model_copy(update={"names": tuple(next(names) for _ in range(number))})
        placement |= _equal(part, mine)
    return placement


def _modality_of_clusters(used: Iterable[ImageRecord]) -> dict[str, str]:
    """The most frequent modality of each cluster, in case copies bridge two."""
    return _majority((cluster_of(record), record.modality) for record in used)


def _dirichlet(used: list[ImageRecord], settings: HospitalSettings) -> Placement:
    """Each label in its own random proportions over hospitals, the same in every split."""
    rng = np.random.default_rng(settings.seed)
    labels = sorted({record.label for record in used})
    for _ in range(_DIRICHLET_DRAWS):
        drawn = rng.dirichlet([settings.alpha] * len(settings.names), len(labels))
        # A proportion that underflows to nothing would close the hospital to the label altogether.
        shares = dict(zip(labels, np.maximum(drawn, 1e-9), strict=True))
        placement = _deal(used, settings, _shares_by_label(shares))
        if not _too_small(used, placement, settings.names):
            return placement
    raise SplitError(
        f"{_DIRICHLET_DRAWS} draws with hospitals.alpha = {settings.alpha} left a hospital without images.",
        why=f"{len(used)} images over {len(settings.names)} hospitals, each needs training and test images.",
        fix="Raise hospitals.alpha, name fewer hospitals, or use more images.",
    )


def _shares_by_label(shares: Mapping[str, Floats]) -> Callable[[tuple[str, str]], Floats]:
    return lambda stratum: shares[stratum[1]]


_MODES: dict[str, Callable[[list[ImageRecord], HospitalSettings], Placement]] = {
    "paper": _paper,
    "equal": _equal,
    "modality": _by_modality,
    "dirichlet": _dirichlet,
}


def _deal(
    used: Iterable[ImageRecord],
    settings: HospitalSettings,
    shares: Callable[[tuple[str, str]], Floats],
) -> Placement:
    """Deal each split's images over the hospitals."""
    by_split: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in used:
        by_split[record.split].append(record)
    placement: Placement = {}
    for name in sorted(by_split):
        parts = deal(by_split[name], shares, np.random.default_rng(settings.seed))
        for record, part in zip(by_split[name], parts, strict=True):
            placement[record.image_id] = settings.names[part]
    return placement


def _as_in_data(manifest: Manifest, by: str) -> Manifest:
    """Hospitals from the site or hospital column."""
    column = "site" if by == "site" else "hospital"
    used = [record for record in manifest if not record.excluded]
    without = [record for record in used if not getattr(record, column)]
    names = sorted({getattr(record, column) for record in used} - {""})
    if without:
        raise SplitError(
            f"{len(without)} of {len(used)} images have no {column}, e.g. {without[0].image_id}.",
            why=f"hospitals.by = '{by}' takes hospitals from the manifest's {column} column.",
            fix=f"Import with a {column} column, or use by = 'equal'.",
        )
    if len(names) < 2:
        raise SplitError(
            f"The {column} column has one value, {names[0]!r}.",
            why=f"hospitals.by = '{by}' needs two hospitals or more.",
            fix="Use by = 'equal' to share the images out.",
        )
    home = _majority((cluster_of(record), getattr(record, column)) for record in used)
    return manifest.with_records(
        dataclasses.replace(record, hospital="")
        if record.excluded
        else dataclasses.replace(record, hospital=getattr(record, column))
        if getattr(record, column) == home[cluster_of(record)]
        else dataclasses.replace(record, hospital="", split="", excluded=ELSEWHERE)
        for record in manifest
    )


def _majority(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most frequent value of each key; of equals the first by name."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, value in pairs:
        counts[key][value] += 1
    return {key: min(found, key=lambda value: (-found[value], value)) for key, found in counts.items()}


def _check_names(settings: HospitalSettings) -> None:
    names = settings.names
    if not names or "" in names or len(set(names)) != len(names):
        raise SettingsError(
            f"hospitals.names = {list(names)} is empty, or has an empty or repeated name.",
            fix="Name every hospital once.",
        )


def _check_hospitals(manifest: Manifest, settings: HospitalSettings) -> None:
    used = [record for record in manifest if record.hospital]
    names = sorted({record.hospital for record in used})
    if settings.by not in ("site", "manifest"):
        names = list(settings.names)
    small = _too_small(used, {record.image_id: record.hospital for record in used}, names)
    if small:
        raise SplitError(
            f"Hospital {small} would have fewer than {_FEWEST_TRAINING} training images, or no test image.",
            why=f"{len(used)} images in {len({cluster_of(record) for record in used})} clusters "
            f"over {len(names)} hospitals.",
            fix="Name fewer hospitals, use more images, or share out with by = 'equal'."
            if len(names) > 1
            else "Use more images.",
        )


def _too_small(used: Iterable[ImageRecord], placement: Placement, names: Iterable[str]) -> str:
    """The first hospital that cannot train or be tested, or empty."""
    counts = Counter((placement[record.image_id], record.split) for record in used)
    splits = {name for _, name in counts}
    training = "train" if "train" in splits else ""
    for name in names:
        if counts[name, training] < _FEWEST_TRAINING or ("test" in splits and not counts[name, "test"]):
            return name
    return ""
