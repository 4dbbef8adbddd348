"""Training, validation and test images; no patient and no copy is in two of them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict

import numpy as np

from fedlens.errors import SplitError
from fedlens.imaging.allocation import cluster_of, deal
from fedlens.imaging.copies import load_copy_groups
from fedlens.imaging.manifest import SPLITS, Manifest

CONFLICT = "copies with conflicting labels"


def split(manifest: Manifest, *, validation: float, test: float, seed: int) -> Manifest:
    """Split by whole clusters, each source and label in the same proportions.

    Clusters are the audit's; without an audit the patients' groups. Images whose copies carry another
    label are excluded, as are those the manifest already excludes. The outcome does not depend on the
    order of the images.

    Args:
        manifest: The images; their present splits play no part.
        validation: Fraction of the images, 0..1.
        test: Fraction of the images, 0..1.
        seed: Another seed, another split.

    Raises:
        SplitError: The fractions leave no training images, or a class would have no training or no
            test image; names the class, its images and clusters.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise SplitError(
            f"data.validation = {validation} and data.test = {test} leave no training images.",
            fix="Choose fractions that add up to less than 1.",
        )
    manifest = _exclude_conflicts(manifest)
    used = [record for record in manifest if not record.excluded]
    shares = np.array([1 - validation - test, validation, test])
    parts = deal(used, shares, np.random.default_rng(seed))
    names = dict(zip((record.image_id for record in used), (SPLITS[part] for part in parts), strict=True))
    done = manifest.with_column("split", [names.get(record.image_id, "") for record in manifest])
    _check_classes(done, test)
    return done


def _exclude_conflicts(manifest: Manifest) -> Manifest:
    """Mark images whose copies carry another label; earlier marks of this kind are judged anew."""
    groups = load_copy_groups(manifest.folder)
    labels: dict[int, set[str]] = defaultdict(set)
    for record in manifest:
        if record.image_id in groups:
            labels[groups[record.image_id]].add(record.label)
    torn = {group for group, names in labels.items() if len(names) > 1}
    return manifest.with_records(
        dataclasses.replace(record, excluded=CONFLICT)
        if record.excluded in ("", CONFLICT) and groups.get(record.image_id) in torn
        else dataclasses.replace(record, excluded="" if record.excluded == CONFLICT else record.excluded)
        for record in manifest
    )


def _check_classes(manifest: Manifest, test: float) -> None:
    counts = Counter((record.label, record.split) for record in manifest)
    needed = ("train", "test") if test > 0 else ("train",)
    for label in manifest.labels():
        for name in needed:
            if not counts[label, name]:
                raise SplitError(
                    f"Class {label} would have no {name} image.",
                    why=_shortage(manifest, label),
                    fix=_mend(manifest, label, name),
                )


def _shortage(manifest: Manifest, label: str) -> str:
    mine = [record for record in manifest if record.label == label]
    excluded = sum(1 for record in mine if record.excluded)
    clusters = len({cluster_of(record) for record in mine if not record.excluded})
    text = f"It has {len(mine)} images in {clusters} clusters that cannot be cut"
    return text + (f"; {excluded} images are excluded." if excluded else ".")


def _mend(manifest: Manifest, label: str, name: str) -> str:
    clusters = len(
        {cluster_of(record) for record in manifest if record.label == label and not record.excluded}
    )
    if name == "test" and clusters > 2:
        # One cluster goes to the test once its target is nearer to one than to none.
        enough = math.ceil(100 / clusters) / 100
        return f"Set data.test = {enough} or more, bring more images, or merge the class with data.relabel."
    return (
        "Bring more images of it from other patients, raise data.limit if it is set, "
        "or merge it into another class with data.relabel."
    )
