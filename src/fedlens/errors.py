"""Every error FedLens raises on purpose.

::

    FedLensError                    exit 1
    ├── SettingsError               exit 2   a study file, option or setting
    ├── DataError                   exit 3   images, masks, manifests
    │   ├── UnreadableImageError             one file, with the reason
    │   ├── LayoutError                      a folder nobody recognises
    │   ├── ManifestError                    a manifest that is missing, torn or inconsistent
    │   └── SplitError                       splits or hospital shares that cannot be made
    ├── ModelError                  exit 4   networks and checkpoints
    │   └── CheckpointError
    ├── RoundError                  exit 5   a federated round
    │   ├── NotEnoughHospitalsError
    │   ├── BadUpdateError
    │   ├── PolicyError                      a request that a hospital's policy does not allow
    │   ├── StoppedError                     a study that was stopped on purpose
    │   └── ProtocolError                    a message, key, share or seal that is refused
    ├── HistoryError                exit 6   a run folder that cannot be resumed or read
    ├── ExplanationError            exit 7   saliency maps
    ├── DeploymentError             exit 8   kits, requests, approvals and services of a federation
    └── PacsError                   exit 9   an image archive that is out of reach or refuses

Each error has three voices: what happened, why it matters (may be empty) and what to do next.
The command line prints just these and ends with the class's exit code.
"""

from __future__ import annotations

from typing import ClassVar


class FedLensError(Exception):
    """Base of all FedLens errors.

    Args:
        what: What happened; names the file, key or value.
        why: What was expected, or why it cannot go on. May be empty.
        fix: What the reader should do next. May be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(" ".join(part for part in (what, why, fix) if part))


class SettingsError(FedLensError):
    """A study file, option or setting is missing, unknown or out of range."""

    exit_code = 2


class DataError(FedLensError):
    """Images, masks or manifests cannot be used as they are."""

    exit_code = 3


class UnreadableImageError(DataError):
    """One image file cannot be decoded; ``reason`` is a short phrase for the report."""

    def __init__(self, file: str, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(
            f"Cannot read image {file}: {reason}.",
            fix="Replace or remove the file, then import again.",
        )


class LayoutError(DataError):
    """A source folder or file matches no layout that the importer knows."""


class ManifestError(DataError):
    """A manifest is missing, torn, or disagrees with itself."""


class SplitError(DataError):
    """The asked-for splits or hospital shares cannot be made from these images."""


class ModelError(FedLensError):
    """A network cannot be built or fed."""

    exit_code = 4


class CheckpointError(ModelError):
    """A checkpoint is torn, or its contract does not fit the use it is put to."""


class RoundError(FedLensError):
    """A federated round cannot be run or finished."""

    exit_code = 5


class NotEnoughHospitalsError(RoundError):
    """Fewer hospitals answered than the study's minimum."""


class BadUpdateError(RoundError):
    """A hospital's update has a wrong shape, fingerprint, round or non-finite values."""


class PolicyError(RoundError):
    """A hospital's own policy does not allow what was asked of it."""


class StoppedError(RoundError):
    """A study was stopped on purpose; it can be resumed."""


class ProtocolError(RoundError):
    """A message of a sealed round is malformed, forged, replayed or out of turn; it is refused."""


class HistoryError(FedLensError):
    """A run folder is missing, belongs to other settings, or cannot be resumed."""

    exit_code = 6


class ExplanationError(FedLensError):
    """A saliency map cannot be computed or drawn."""

    exit_code = 7


class DeploymentError(FedLensError):
    """A federation's kits, requests, approvals or services cannot be made, trusted or used."""

    exit_code = 8


class PacsError(FedLensError):
    """A PACS cannot be reached, refuses, or does not do what it should."""

    exit_code = 9
