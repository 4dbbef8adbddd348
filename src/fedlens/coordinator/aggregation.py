"""Federated averaging (EFDL 3.1, step 5), one update at a time, and what an update must pass first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlens.errors import BadUpdateError
from fedlens.protocol.messages import Array, Evaluation, Parameters, RoundPlan, Tally, Update

_STRETCH = 1 << 16
"""Elements added at a time: half a MiB of scratch, which stays in the processor's cache."""

MOST_IMAGES = 1 << 29
"""Image counts stay below this, so that their product with a float32 is exact in float64."""


class RunningMean:
    """Mean of updates weighted by image count, in the memory of one sum, however many are added.

    Floating arrays are summed in float64: the product of a float32 and an image count is
    exact there, so only the additions round. Integer arrays end as the mean rounded to the nearest integer,
    ties to even, as a sealed sum gives it too.

    Args:
        template: Arrays by name with the shapes and dtypes that updates have; not kept.
    """

    def __init__(self, template: Parameters) -> None:
        self.images = 0
        self._sums: Parameters = {
            name: np.zeros(array.shape, np.float64 if np.issubdtype(array.dtype, np.floating) else np.int64)
            for name, array in template.items()
        }

    def add(self, delta: Parameters, images: int) -> None:
        """Add one hospital's checked update."""
        for name, total in self._sums.items():
            if np.issubdtype(total.dtype, np.floating):
                _add_scaled(total.reshape(-1), delta[name].reshape(-1), images)
            else:
                total += delta[name] * images
        self.images += images

    def finish(self) -> Parameters:
        """The mean, in float64 and for counters in int64; ends this object's use.

        Nothing may have been added: then there is no mean, and it is for the caller to check.
        """
        for name, total in self._sums.items():
            if np.issubdtype(total.dtype, np.floating):
                total /= self.images
            else:
                self._sums[name] = mean_counter(total, self.images)
        return self._sums


def mean_counter(total: Array, images: int) -> Array:
    """A counter's mean by image count, int64, rounded to the nearest integer, ties to even."""
    return np.asarray(np.rint(total / images).astype(np.int64))


def _add_scaled(total: npt.NDArray[np.float64], values: Array, scale: int) -> None:
    for start in range(0, total.size, _STRETCH):
        stretch = slice(start, start + _STRETCH)
        total[stretch] += np.multiply(values[stretch], scale, dtype=np.float64)


def check_update(update: Update, hospital: str, plan: RoundPlan, template: Parameters) -> None:
    """Refuse an update that does not fit the round, before any of it is summed.

    Args:
        update: As decoded.
        hospital: Who was asked.
        plan: What was asked.
        template: Arrays by name with the expected shapes and dtypes.

    Raises:
        BadUpdateError: Names the hospital, the field or array, and what was expected.
    """
    check_sender(update, hospital, study=plan.study, round=plan.round, fingerprint=plan.fingerprint)
    for name, value in (("images", update.images), ("seen", update.seen)):
        if not 1 <= value < MOST_IMAGES:
            raise _bad(hospital, name, f"1 to {MOST_IMAGES - 1}", str(value))
    if not 0 <= update.correct <= update.seen:
        raise _bad(hospital, "correct", f"0 to {update.seen}", str(update.correct))
    if update.loss_sum < 0 or update.seconds < 0:
        raise _bad(hospital, "loss_sum and seconds", "at least 0", f"{update.loss_sum}, {update.seconds}")
    unlike = sorted(update.delta.keys() ^ template.keys())
    if unlike:
        got = "missing" if unlike[0] in template else "present"
        expected = "an array" if unlike[0] in template else "no such array"
        raise _bad(hospital, f"array {unlike[0]}", expected, f"{got} ({len(unlike)} names differ)")
    for name, array in update.delta.items():
        check_array(array, hospital, name, template[name].shape, template[name].dtype)
        if not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            raise _bad(hospital, f"array {name}", "finite values", f"{count} that are not")


def check_sender(
    message: Update | Evaluation | Tally, hospital: str, *, study: str, round: int, fingerprint: str
) -> None:
    """Refuse a message from another hospital, study, round or network.

    Raises:
        BadUpdateError: Names the hospital, the field, and what was expected.
    """
    for name, got, expected in (
        ("hospital", message.hospital, hospital),
        ("study", message.study, study),
        ("round", message.round, round),
        ("fingerprint", message.fingerprint, fingerprint),
    ):
        if got != expected:
            raise _bad(hospital, name, str(expected), str(got))


def check_array(array: Array, hospital: str, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Refuse an array of another shape or dtype.

    Raises:
        BadUpdateError: Names the hospital, the array, and what was expected.
    """
    if array.shape != shape or array.dtype != dtype:
        raise _bad(hospital, f"array {name}", f"{np.dtype(dtype)} {shape}", f"{array.dtype} {array.shape}")


def _bad(hospital: str, what: str, expected: str, got: str) -> BadUpdateError:
    return BadUpdateError(
        f"Hospital {hospital} sent {what} = {got[:80]}; expected {expected[:80]}.",
        fix="Check that it runs the same study file and the same version of FedLens.",
    )
