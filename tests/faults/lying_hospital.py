"""A hospital whose service lies: ``python lying_hospital.py KIT DATA LIES``, kept by the real supervisor.

LIES is a JSON table from a round's number to what the service does to its answer in that round's training
(:data:`LIES`). All else it answers as an honest service does; its FLARE client is the real one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedlens.deployment.flare_config import write_hospital_config
from fedlens.deployment.kit import Kit, open_kit
from fedlens.deployment.membership import Membership
from fedlens.deployment.service import serve
from fedlens.deployment.supervisor import _supervise, client_command
from fedlens.hospital.hospital import Hospital, LocalTraining
from fedlens.progress import Progress
from fedlens.protocol.codec import decode, encode, kind_of
from fedlens.protocol.messages import Parameters, SealedUpload, TrainRequest, Update


def _first(delta: Parameters, changed: Callable[[np.ndarray], np.ndarray]) -> Parameters:
    name = min(name for name, array in delta.items() if array.dtype == np.float32)
    return {**delta, name: changed(delta[name])}


def _not_a_number(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.nan)


def _larger(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, array])


CLEAR: dict[str, Callable[[Update], Update]] = {
    "nan": lambda update: dataclasses.replace(update, delta=_first(update.delta, _not_a_number)),
    "shape": lambda update: dataclasses.replace(update, delta=_first(update.delta, _larger)),
    "fingerprint": lambda update: dataclasses.replace(update, fingerprint="f" * 64),
    "study": lambda update: dataclasses.replace(update, study="a" * 64),
    "sender": lambda update: dataclasses.replace(update, hospital="north"),
}
SEALED: dict[str, Callable[[SealedUpload], SealedUpload]] = {
    "sealed shape": lambda upload: dataclasses.replace(upload, values=upload.values[:-8]),
    "sealed values": lambda upload: dataclasses.replace(upload, values=memoryview(bytes(len(upload.values)))),
}
BEFORE = ("nan before sealing", "totals before sealing")
"""What it does to its training, of which the sealing knows nothing."""
LIES = (*CLEAR, *SEALED, *BEFORE, "garbage")


class Liar:
    """A membership's answers, and a lie in some rounds."""

    def __init__(self, kit: Kit, data: Path, lies: dict[str, str]) -> None:
        self._membership = Membership(kit, data)
        self._lies = lies
        self._lie = ""
        honest = Hospital.train

        def train(hospital: Hospital, request: TrainRequest) -> LocalTraining:
            trained = honest(hospital, request)
            if self._lie == "nan before sealing":
                return dataclasses.replace(trained, delta=_first(trained.delta, _not_a_number))
            if self._lie == "totals before sealing":
                # Right more often than asked, by more than the others' mistakes.
                totals = dataclasses.replace(trained.totals, correct=100 * trained.totals.seen)
                return dataclasses.replace(trained, totals=totals)
            return trained

        Hospital.train = train  # type: ignore[method-assign]

    def answer(self, study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
        """An answer, made false where its round is one of the lies'."""
        training = kind_of(request) == TrainRequest.kind
        self._lie = self._lies.get(str(decode(request, TrainRequest).plan.round), "") if training else ""
        content = self._membership.answer(study, request, own, progress)
        if self._lie in CLEAR:
            return encode(CLEAR[self._lie](decode(content, Update)))
        if self._lie in SEALED:
            return encode(SEALED[self._lie](decode(content, SealedUpload)))
        return b"garbage" if self._lie == "garbage" else content


def main(arguments: list[str]) -> None:
    """The supervisor, or with ``--service`` the service itself."""
    folder, data, lies, *service = arguments
    kit = open_kit(Path(folder), "hospital")
    if service:
        os.umask(0o077)
        serve(kit, Liar(kit, Path(data), json.loads(lies)).answer)
    write_hospital_config(kit.folder)
    liar = [sys.executable, __file__, folder, data, lies, "--service"]
    _supervise(kit, {"service": liar, "flare": client_command(kit)}, print)


if __name__ == "__main__":
    main(sys.argv[1:])
