"""What the coordinator sees of one update does not depend on the update, given the sum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from fedlens.protocol.codec import decode
from fedlens.protocol.messages import SealedUpload

from .federation import Federation

_RUNS = 40
_VALUES = 4096
# Chance alone brings a value below this once in ten thousand tests.
_LEAST_P = 1e-4

Octets = npt.NDArray[np.uint8]


def uploads_of_a(shift: float, *, masked: bool = True) -> Octets:
    """Bytes of A's masked values and totals over several sums; B takes off the shift that A adds."""
    seen = []
    for _ in range(_RUNS):
        federation = Federation("ABC", size=_VALUES)
        for name, sign in (("A", 1.0), ("B", -1.0)):
            federation.updates[name] = {
                key: np.full_like(array, sign * shift) for key, array in federation.updates[name].items()
            }
        current = federation.keyed()
        seal = federation.planned(current)
        hospital = federation.hospitals["A"]
        if not masked:
            verify = hospital.verify
            ready = verify(seal, current.material("A"), task="7" * 64)
            ready.seeds.clear()
            hospital.verify = lambda *_, ready=ready, **__: ready  # type: ignore[method-assign]
        upload = decode(federation.upload(current, seal, "A"), SealedUpload)
        seen.append(np.frombuffer(bytes(upload.values) + bytes(upload.totals), np.uint8))
    return np.concatenate(seen)


def uniform_p(content: Octets) -> float:
    """How likely so uneven byte counts are if every byte is uniform."""
    return float(stats.chisquare(np.bincount(content, minlength=256)).pvalue)


def same_p(one: Octets, two: Octets) -> float:
    """How likely so different byte counts are if both come from one distribution."""
    table = np.stack([np.bincount(content, minlength=256) for content in (one, two)])
    table = table[:, table.any(axis=0)]
    return float(stats.chi2_contingency(table).pvalue)


def test_two_updates_with_one_sum_look_alike() -> None:
    zero, large = uploads_of_a(0.0), uploads_of_a(3.5)
    assert min(uniform_p(zero), uniform_p(large), same_p(zero, large)) > _LEAST_P
    # Nor byte by byte: the same place says nothing about the same value.
    assert abs(np.corrcoef(zero.astype(float), large.astype(float))[0, 1]) < 5 / np.sqrt(len(zero))


def test_repeated_seals_of_one_update_have_nothing_in_common() -> None:
    seen = uploads_of_a(1.0).reshape(_RUNS, -1).astype(float)
    correlations = np.corrcoef(seen)[np.triu_indices(_RUNS, 1)]
    assert np.abs(correlations).max() < 6 / np.sqrt(seen.shape[1])


def test_without_masks_the_same_tests_tell_updates_apart() -> None:
    zero, large = uploads_of_a(0.0, masked=False), uploads_of_a(3.5, masked=False)
    assert uniform_p(zero) < 1e-100 and same_p(zero, large) < 1e-100
