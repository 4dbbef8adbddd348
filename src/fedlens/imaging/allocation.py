"""Dealing clusters of images into parts, so that every kind of image keeps its proportions.

Splits, hospital shares and subsets are all dealt in the same way: whole clusters, the larger first
and equals in a seeded random order, each into the part that lags most behind its share of what has
been dealt so far. Measuring against the final target instead would send all large clusters to the
largest part: patients with many images would train, and only those with few would test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from fedlens.imaging.manifest import ImageRecord

Floats = npt.NDArray[np.float64]

# Rounding in many small strata adds up; the sum of all images is held near its target as well.
_SUM_WEIGHT = 0.1


def cluster_of(record: ImageRecord) -> str:
    """What must stay together: the cluster, or before an audit the patient."""
    return record.cluster or record.group


def stratum_of(record: ImageRecord) -> tuple[str, str]:
    """What must keep its proportions: source and label."""
    return record.source, record.label


def deal(
    records: Sequence[ImageRecord],
    shares: npt.ArrayLike | Callable[[tuple[str, str]], Floats],
    rng: np.random.Generator,
    cluster: Callable[[ImageRecord], str] = cluster_of,
) -> list[int]:
    """Deal images into parts by whole clusters.

    Args:
        records: N images, in any order: the outcome does not depend on it.
        shares: Relative sizes (P,) of the parts, for all strata alike or by stratum.
        rng: Breaks ties between clusters of one size.
        cluster: What must stay together.

    Returns:
        The part, 0..P-1, of each image. A part with a share of 0 stays empty.
    """
    if not records:
        return []
    strata = sorted({stratum_of(record) for record in records})
    counts = _count(records, strata, cluster)
    rows = [shares(stratum) if callable(shares) else shares for stratum in strata]
    fractions = np.array(rows, np.float64)
    fractions /= fractions.sum(axis=1, keepdims=True)
    table = np.array([counts[name] for name in sorted(counts)], np.float64)
    targets = table.sum(axis=0)[:, None] * fractions
    targets = np.vstack([targets, targets.sum(axis=0)])
    table = np.column_stack([table, table.sum(axis=1)])
    order = rng.permutation(len(table))
    order = order[np.argsort(-table[order, -1], kind="stable")]
    parts = dict(zip(np.array(sorted(counts), object)[order], _greedy(table[order], targets), strict=True))
    return [parts[cluster(record)] for record in records]


def _count(
    records: Sequence[ImageRecord],
    strata: Sequence[Hashable],
    cluster: Callable[[ImageRecord], str],
) -> dict[str, list[int]]:
    """Images of each stratum in each cluster."""
    places = {stratum: place for place, stratum in enumerate(strata)}
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * len(strata))
    for record in records:
        counts[cluster(record)][places[stratum_of(record)]] += 1
    return counts


def _greedy(table: Floats, targets: Floats) -> list[int]:
    """Part of each cluster: where the squared distance from the parts' shares of what was dealt so far,
    relative to the size of each stratum, grows least.

    Args:
        table: (clusters, strata + 1), in the order of dealing; the last column is the sum.
        targets: (strata + 1, parts).
    """
    weights = 1 / targets.sum(axis=1)
    weights[-1] *= _SUM_WEIGHT
    fractions = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1)
    missing = np.zeros_like(targets)
    closed = targets[-1] <= 0
    parts = []
    for row in table:
        missing += fractions * row[:, None]
        inside = np.flatnonzero(row)
        # (missing - row)^2 - missing^2, for every part.
        growth = (row[inside, None] * (row[inside, None] - 2 * missing[inside])) * weights[inside, None]
        part = int(np.argmin(np.where(closed, np.inf, growth.sum(axis=0))))
        missing[:, part] -= row
        parts.append(part)
    return parts
