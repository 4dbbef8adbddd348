"""What a run folder holds for the study's page, read again only where a file has changed.

A run folder may be a run's or a comparison's, one seed's or one arm's of it, or a study's at its coordinator,
which holds the submission in place of ``study.json``, and a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedlens.coordinator.history import HISTORY_NAME, Event, read_history
from fedlens.deployment.study_run import LOG_NAME, SUBMISSION_NAME
from fedlens.deployment.submission import Submission
from fedlens.federation_report import REPORT_NAME
from fedlens.home_explanations import HOME_EXPLANATIONS_NAME
from fedlens.protocol.codec import decode
from fedlens.reports.comparison import ARM_ORDER
from fedlens.reports.explanations import EXPLANATIONS_NAME
from fedlens.reports.measures import LOCAL
from fedlens.reports.predictions import PREDICTIONS_NAME
from fedlens.run_folder import HOSPITALS_NAME, IMAGES_NAME, STUDY_NAME, kept_study
from fedlens.study import Study

Mark = tuple[int, int]
"""Time of change in nanoseconds, and bytes: another one is another content."""

_SEED = "seed-"
_LOG_BYTES = 1 << 16
_STAMP = 20
"""Characters of the time before each line of a coordinator's log, and the space after it."""


@dataclass(frozen=True)
class ArmFolder:
    """Where one arm of a study keeps its files.

    Attributes:
        seed: Training seed.
        arm: As in :mod:`fedlens.arms`.
        folder: Holds ``history.jsonl``.
    """

    seed: int
    arm: str
    folder: Path

    @property
    def alone(self) -> bool:
        """Whether one member trains, without a federation."""
        return self.arm == "central" or self.arm.startswith(LOCAL)


class StudyFiles:
    """Reads one run folder; not for two threads at once.

    Args:
        run: The folder that the viewer was given.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._histories: dict[Path, tuple[Mark, tuple[Event, ...]]] = {}
        self._study: tuple[tuple[Mark | None, ...], Study | None] | None = None

    @property
    def root(self) -> Path:
        """The whole study's folder, where only a seed's or an arm's was given."""
        for folder in (self._run, self._run.parent):
            if folder.name.startswith(_SEED):
                return folder.parent
        return self._run

    def arms(self) -> tuple[ArmFolder, ...]:
        """Arms that have begun, by seed and then in the order of tables."""
        if (self._run / HISTORY_NAME).is_file():
            places = [self._run / HISTORY_NAME]
        else:
            places = [*self._run.glob(f"{_SEED}*/*/{HISTORY_NAME}"), *self._run.glob(f"*/{HISTORY_NAME}")]
        found = [ArmFolder(_seed(path.parent), path.parent.name, path.parent) for path in places]
        return tuple(sorted(found, key=lambda place: (place.seed, _order(place.arm), place.arm)))

    def study(self) -> Study | None:
        """The study's settings; None where none were kept.

        Raises:
            FedLensError: They are damaged or of another version.
        """
        marks = tuple(mark(self.root / name) for name in (STUDY_NAME, SUBMISSION_NAME))
        if self._study is None or self._study[0] != marks:
            self._study = (marks, self._read_study())
        return self._study[1]

    def events(self, place: ArmFolder) -> tuple[Event, ...]:
        """An arm's history so far.

        Raises:
            HistoryError: It is damaged.
        """
        path = place.folder / HISTORY_NAME
        found = mark(path)
        if found is None:
            return ()
        kept = self._histories.get(path)
        if kept is None or kept[0] != found:
            kept = self._histories[path] = (found, tuple(read_history(place.folder)))
        return kept[1]

    @property
    def at_coordinator(self) -> bool:
        """Whether hospitals are machines apart and this is their coordinator's folder."""
        return (self.root / SUBMISSION_NAME).is_file()

    def log(self) -> tuple[str, ...]:
        """What a coordinator noted last, the newest line last and without its time; empty elsewhere."""
        path = self.root / LOG_NAME
        if not path.is_file():
            return ()
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
        return tuple(line[_STAMP:] for line in lines)

    def last_sign(self, place: ArmFolder) -> float:
        """When something was last written for an arm, be it a hospital's state; seconds since 1970."""
        return max((found[0] / 1e9 for found in map(mark, _written(place.folder)) if found), default=0.0)

    def measured(self) -> float:
        """When tables and report were last written; 0 where they never were."""
        found = mark(self.root / REPORT_NAME)
        return found[0] / 1e9 if found else 0.0

    def stamp(self) -> tuple[tuple[str, Mark | None], ...]:
        """Names and marks of all files that the page shows; equal as long as none has changed."""
        names = (STUDY_NAME, SUBMISSION_NAME, LOG_NAME, IMAGES_NAME, REPORT_NAME)
        paths = [self.root / name for name in names]
        for place in self.arms():
            paths += [place.folder / HISTORY_NAME, *self.result_files(place)]
            paths += sorted(place.folder.glob(f"{HOSPITALS_NAME}/*/{HOME_EXPLANATIONS_NAME}"))
        return tuple((str(path), mark(path)) for path in paths)

    @staticmethod
    def result_files(place: ArmFolder) -> tuple[Path, Path]:
        """What an arm's network said of test images, and what its maps came to."""
        return place.folder / PREDICTIONS_NAME, place.folder / EXPLANATIONS_NAME

    def _read_study(self) -> Study | None:
        if self.at_coordinator:
            return decode((self.root / SUBMISSION_NAME).read_bytes(), Submission).study
        return kept_study(self.root)


def mark(path: Path) -> Mark | None:
    """What tells one content of a file from another; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def changed(path: Path) -> float:
    """When a file was last written, in seconds since 1970; 0 where it is missing."""
    found = mark(path)
    return found[0] / 1e9 if found else 0.0


def _written(folder: Path) -> Iterator[Path]:
    """Files that training writes to: its own, and hospitals' states."""
    for pattern in ("*", "rounds/*", f"{HOSPITALS_NAME}/*/*"):
        yield from folder.glob(pattern)


def _seed(folder: Path) -> int:
    number = folder.parent.name.removeprefix(_SEED)
    return int(number) if folder.parent.name.startswith(_SEED) and number.isdecimal() else 0


def _order(arm: str) -> int:
    name = "local" if arm.startswith(LOCAL) else arm
    return ARM_ORDER.index(name) if name in ARM_ORDER else len(ARM_ORDER)
