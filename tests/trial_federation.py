"""A federation in one process whose hospitals may fall silent, in the clear or sealed as its study says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlens.coordinator.gathering import Gathering
from fedlens.coordinator.plain import PlainGathering
from fedlens.coordinator.rounds import RoundsResult, run_rounds
from fedlens.coordinator.sealed import SealedGathering
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.engines.engine import Reply
from fedlens.engines.local import LocalEngine
from fedlens.hospital.hospital import Hospital, LocalEvaluation
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.parameters import buffer_names, norm_names, to_parameters
from fedlens.progress import Progress
from fedlens.progress import silent as unheard
from fedlens.protocol.codec import kind_of
from fedlens.protocol.messages import EvaluateRequest
from fedlens.sealing import seal_federation
from fedlens.study import Study

Silent = Callable[[str, str], bool]


def trial_study(
    size: int, *, rounds: int, mode: str, patience: int, strategy: str = "fedavg", **blocks: Any
) -> Study:
    """A study of as many passes as rounds; ``blocks`` are further ones of its file."""
    return Study.model_validate(
        {
            "name": "s",
            "data": {"folder": "images"},
            "preprocess": {"size": size},
            "training": {"passes": rounds, "batch_size": 8, "device": "cpu", "patience": patience},
            "federation": {"rounds": rounds, "strategy": strategy},
            "sealing": {"mode": mode},
            **blocks,
        }
    )


class Unsteady(LocalEngine):
    """An engine in which some hospitals do not answer some kinds of request."""

    silent: Silent = staticmethod(lambda name, kind: False)

    def exchange(
        self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
    ) -> Iterator[Reply]:
        """As its parent, but for silent hospitals."""
        kind = kind_of(request)
        for name in names:
            if self.silent(name, kind):
                yield Reply(name, None, "The line is dead.")
            else:
                yield from super().exchange([name], request, own)


class TrialFederation:
    """Hospitals, and a coordinator with its folder."""

    def __init__(
        self,
        folder: Path,
        study: Study,
        hospitals: Sequence[Hospital],
        network: Network,
        classes: tuple[str, ...],
    ) -> None:
        self.study = study
        self.folder = folder
        self.initial = to_parameters(network)
        self.settings = CoordinatorSettings.from_study(
            study,
            fingerprint=fingerprint(network),
            classes=classes,
            norm_names=norm_names(network),
            buffer_names=buffer_names(network),
        )
        self.hospitals = list(hospitals)
        self.members: list[Any] = list(hospitals)
        self.setup = None
        if study.sealed(len(hospitals)):
            self.members, self.setup = seal_federation(study, self.hospitals, folder)
        self.engine = Unsteady(self.members)

    def worsen(self) -> None:
        """Have every hospital's validation loss grow round by round."""

        def worsening(measure: Callable[[EvaluateRequest], LocalEvaluation]) -> Any:
            return lambda request: dataclasses.replace(measure(request), loss_sum=float(request.round))

        for hospital in self.hospitals:
            hospital.measure = worsening(hospital.measure)  # type: ignore[method-assign]

    def gathering(self) -> Gathering:
        """In the clear or sealed, as the study says."""
        if self.setup is None:
            return PlainGathering(self.settings, self.engine)
        return SealedGathering(self.settings, self.engine, self.setup)

    def run(
        self, silent: Silent | None = None, *, resume: bool = False, progress: Progress = unheard
    ) -> RoundsResult:
        """All rounds."""
        if silent is not None:
            self.engine.silent = silent  # type: ignore[method-assign]
        return run_rounds(
            self.settings,
            self.initial,
            self.engine,
            self.folder,
            gathering=self.gathering(),
            resume=resume,
            progress=progress,
        )
