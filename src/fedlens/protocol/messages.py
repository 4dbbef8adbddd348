"""Everything that leaves or enters a hospital, in one file.

A message is a small JSON header and named arrays, carried as one safetensors blob. There is no
other way across the wall: no pixels, labels, file names or patient keys have a field here.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from fedlens.errors import RoundError

Array = npt.NDArray[Any]
Parameters = dict[str, Array]
"""Named arrays of a network's state, buffers included; float32 or int64."""


@dataclass(frozen=True)
class RoundPlan:
    """What must not drift apart within a round; the same for every hospital.

    Attributes:
        study: Digest of the study's settings.
        round: From 1.
        rounds: Rounds of the whole study.
        fingerprint: Architecture fingerprint of the network.
        passes: Local passes over a hospital's training images in this round (may be a fraction).
        seed: Root of all of the round's randomness.
        learning_rate_start: Learning rate at the round's first local step.
        learning_rate_end: Learning rate after the round's last local step; steps between are
            interpolated linearly.
        proximal_mu: FedProx strength, 0 for none.
        personal: Full names of arrays that stay at home (FedBN): no update holds them. Requests
            hold the study's first values of them, from which a hospital's own ones start.
    """

    study: str
    round: int
    rounds: int
    fingerprint: str
    passes: float
    seed: int
    learning_rate_start: float
    learning_rate_end: float
    proximal_mu: float = 0.0
    personal: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainRequest:
    """Coordinator -> hospital: train from these weights."""

    kind: ClassVar[str] = "train-request"
    plan: RoundPlan
    parameters: Parameters = field(repr=False)


@dataclass(frozen=True)
class Update:
    """Hospital -> coordinator: local minus global weights after training.

    Attributes:
        images: Training images behind the update (the FedAvg weight).
        loss_sum: Sum of the training loss over ``seen`` images.
        correct: Augmented training images classified rightly while training.
        seen: Images passed through training this round.
        seconds: Wall time of local training.
        delta: Difference for floating arrays; the plain local value for integer counters.
    """

    kind: ClassVar[str] = "update"
    hospital: str
    study: str
    round: int
    fingerprint: str
    images: int
    loss_sum: float
    correct: int
    seen: int
    seconds: float
    delta: Parameters = field(repr=False)


@dataclass(frozen=True)
class EvaluateRequest:
    """Coordinator -> hospital: measure these weights on your held-out images."""

    kind: ClassVar[str] = "evaluate-request"
    study: str
    round: int
    fingerprint: str
    split: str
    parameters: Parameters = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """Hospital -> coordinator: sums only, so that federation totals are sums of these.

    Attributes:
        loss_sum: Sum of cross entropy over the images.
        counts: Arrays of counts. ``confusion``: (classes, classes) int64, rows true, columns
            predicted. ``positives`` and ``negatives``: (classes, bins) int64 histograms of the
            one-against-rest probability, from which AUROC is computed.
    """

    kind: ClassVar[str] = "evaluation"
    hospital: str
    study: str
    round: int
    fingerprint: str
    split: str
    loss_sum: float
    seconds: float
    counts: Parameters = field(repr=False)


Message = TrainRequest | Update | EvaluateRequest | Evaluation
M = TypeVar("M", TrainRequest, Update, EvaluateRequest, Evaluation)
_ARRAYS = {TrainRequest: "parameters", Update: "delta", EvaluateRequest: "parameters", Evaluation: "counts"}


def encode(message: Message) -> bytes:
    """One message as bytes; the message's arrays are only read.

    Raises:
        RoundError: An array is neither float32 nor int64, or a number in the header is not finite.
    """
    arrays_name = _ARRAYS[type(message)]
    arrays: Parameters = getattr(message, arrays_name)
    header: dict[str, Any] = {"kind": message.kind} | {
        name: asdict(value) if isinstance(value, RoundPlan) else value
        for name, value in vars(message).items()
        if name != arrays_name
    }
    # Not ascontiguousarray: it would turn a step counter of shape () into (1,).
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        _check_arrays(contiguous)
        # One entry: the library writes several in another order every time.
        return bytes(save_arrays(contiguous, {_HEADER: json.dumps(header, sort_keys=True, allow_nan=False)}))
    except ValueError as error:
        raise RoundError(
            f"A message of kind {message.kind} cannot be sent: {error}.",
            fix="Training has probably diverged: lower training.learning_rate.",
        ) from error


def decode(content: bytes, expected: type[M]) -> M:
    """The message in ``content``; its arrays come sorted by name.

    Raises:
        RoundError: Truncated, of another kind, with missing, unknown or wrongly typed fields, or
            with numbers in the header that are not finite.
    """
    try:
        header = _header(content)
        kind = header.pop("kind")
        if kind != expected.kind:
            raise ValueError(f"its kind is {kind!r}")
        # Sorted, because the library returns them in another order every time.
        arrays: Parameters = dict(sorted(load_arrays(content).items()))
        _check_arrays(arrays)
        values = _typed(expected, header, skip=_ARRAYS[expected])
        return expected(**values, **{_ARRAYS[expected]: arrays})  # type: ignore[arg-type]
    except _UNREADABLE as error:
        raise RoundError(
            f"A message of kind {expected.kind} cannot be read: {error}.",
            fix="Check that both sides run the same version of FedLens.",
        ) from error


def kind_of(content: bytes) -> str:
    """The kind of a message, read from its header alone.

    Raises:
        RoundError: Not a message.
    """
    try:
        return str(_header(content)["kind"])
    except _UNREADABLE as error:
        raise RoundError(
            f"This is not a message: {error}.", fix="Check that both sides run the same version of FedLens."
        ) from error


def array_bytes(content: bytes) -> int:
    """Bytes of a message's arrays, without the few hundred of its header.

    The header's length depends on how many digits a wall time has; this does not.
    """
    return max(0, len(content) - 8 - int.from_bytes(content[:8], "little"))


# RecursionError: JSON nested thousands deep. OverflowError: sizes beyond 64 bits.
_UNREADABLE = (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
_HEADER = "fedlens"
_DTYPES = (np.dtype(np.float32), np.dtype(np.int64))
_INT64 = range(-(2**63), 2**63)


def _header(content: bytes) -> dict[str, Any]:
    """The message's fields beside its arrays, and its ``kind``, unchecked."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + length].decode())["__metadata__"][_HEADER])
    if not isinstance(header, dict):
        raise TypeError("its header is not a table")
    return header


def _check_arrays(arrays: Parameters) -> None:
    for name, array in arrays.items():
        if array.dtype not in _DTYPES:
            raise ValueError(f"array {name} is {array.dtype}, not float32 or int64")


def _typed(kind: type[Any], header: Any, skip: str = "") -> dict[str, Any]:
    """The header's fields, each of the type that ``kind`` declares; JSON knows no such promise."""
    types = get_type_hints(kind)
    names = [entry.name for entry in fields(kind) if entry.name != skip]
    if not isinstance(header, dict) or set(header) != set(names):
        raise TypeError(f"its header does not hold just the fields {names}")
    return {name: _value(name, header[name], types[name]) for name in names}


def _value(name: str, value: Any, wanted: Any) -> Any:
    if wanted is RoundPlan:
        return RoundPlan(**_typed(RoundPlan, value))
    if wanted is str and isinstance(value, str):
        return value
    if wanted is int and type(value) is int and value in _INT64:
        return value
    if wanted is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if wanted == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise TypeError(f"its field {name} is {str(value)[:40]!r}, not {wanted}")
