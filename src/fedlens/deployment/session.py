"""The lead's side: a session with the coordinator, over FLARE's own admin connection."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedlens.arm_path import arm_path
from fedlens.coordinator.checkpoints import read_checkpoint
from fedlens.coordinator.deciding import decided
from fedlens.coordinator.history import HISTORY_NAME, Event, read_history
from fedlens.decision.bundle import BUNDLE_NAMES
from fedlens.deployment.kit import Kit
from fedlens.deployment.submission import Submission, portable_settings
from fedlens.errors import DeploymentError, FedLensError, HistoryError, RoundError, SettingsError
from fedlens.files import write_bytes
from fedlens.progress import Progress, silent
from fedlens.protocol.codec import encode
from fedlens.study import Study

_PIECE_BYTES = 2 << 20
_CONNECT_SECONDS = 20.0
_POLL_SECONDS = 1.0
ENDED = ("finished", "failed", "stopped", "interrupted")

Answer = dict[str, Any]


class Session:
    """Commands to the coordinator. Use as a context manager: FLARE's threads end with it.

    Args:
        kit: The lead's.

    Raises:
        DeploymentError: The coordinator is out of reach, or does not let this kit in.
    """

    def __init__(self, kit: Kit) -> None:
        from nvflare.fuel.flare_api.flare_api import new_secure_session

        # FLARE prints and logs where it stands; what matters comes back as errors.
        logging.getLogger("nvflare").setLevel(logging.CRITICAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._session = new_secure_session(
                    kit.name, str(kit.flare.absolute()), timeout=_CONNECT_SECONDS
                )
        except Exception as error:
            raise DeploymentError(
                f"No session with the coordinator at {kit.host}:{kit.port}: {error}",
                why="It is not running, out of reach, or does not accept this kit.",
                fix="Start it with: fedlens coordinator start",
            ) from error

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def ask(self, what: str, **asked: Any) -> Answer:
        """One command and its answer.

        Raises:
            FedLensError: As the coordinator raised it.
            DeploymentError: The connection broke, or FLARE refused the command.
        """
        try:
            reply = self._session.do_command(f"fedlens {what}", props=asked)
        except Exception as error:
            raise DeploymentError(
                f"The coordinator did not answer: {error}.",
                fix="Check that it runs; its studies go on without this session.",
            ) from error
        if "CONNECTION" in str(reply.get("status")):
            raise DeploymentError(
                "The coordinator did not answer: the connection broke.",
                fix="Start it again, then go on with: fedlens resume",
            )
        texts = [part["data"] for part in reply.get("data", []) if part["type"] == "string"]
        try:
            answer: Answer = json.loads(texts[0])
        except (IndexError, ValueError) as error:
            said = " ".join(str(part.get("data", "")) for part in reply.get("data", []))
            raise DeploymentError(
                f"The coordinator refused the command: {said or reply.get('status')}.",
                why="FLARE's authorization there does not allow it to this user.",
            ) from error
        if "error" in answer:
            raise _raised(answer["error"])
        return answer

    def submit(self, study: Study, progress: Progress = silent) -> Answer:
        """Hand a study to the coordinator, which begins it; returns its name and digest.

        Raises:
            SettingsError: ``data.classes`` is empty.
            RoundError: Another study runs, or one of that name is there.
        """
        return self.hand_over(make_submission(study), progress)

    def hand_over(self, submission: Submission, progress: Progress = silent) -> Answer:
        """See :meth:`submit`, for a network that was made elsewhere."""
        content = encode(submission)
        upload = uuid.uuid4().hex
        for start in range(0, len(content), _PIECE_BYTES):
            piece = content[start : start + _PIECE_BYTES]
            self.ask("upload", upload=upload, content=base64.b64encode(piece).decode())
            progress("submit", min(len(content), start + _PIECE_BYTES), len(content))
        return self.ask("submit", upload=upload)

    def follow(self, name: str, watch: Callable[[Event], None], at: Callable[[Answer], None]) -> Answer:
        """Stay until the study ends; returns its last status.

        Args:
            name: Of the study.
            watch: Told every event of the history, once.
            at: Told where it stands, about once a second.
        """
        seen = 0
        while True:
            status = self.ask("status", name=name, since=seen)
            for event in status["events"]:
                watch(event)
            seen += len(status["events"])
            at(status)
            if status["state"] in ENDED and seen >= status["count"]:
                return status
            time.sleep(_POLL_SECONDS)

    def fetch(self, name: str, file: str, target: Path, progress: Progress = silent) -> str:
        """Write one of a study's result files to ``target``; returns its name at the coordinator.

        Args:
            name: Of the study.
            file: ``history``, ``rounds`` (the last checkpoint), ``best_round``, or a file of fitted advice.
            target: Written whole or not at all.
            progress: Told of bytes.
        """
        pieces: list[bytes] = []
        size, told = 1, ""
        while (have := sum(map(len, pieces))) < size:
            answer = self.ask("fetch", name=name, file=file, start=have)
            pieces.append(base64.b64decode(answer["content"]))
            size, told = answer["size"], answer["name"]
            progress("fetch", min(size, have + len(pieces[-1])), size)
            if not pieces[-1] and size:
                raise DeploymentError(f"{file} of study {name} changed while it was fetched.")
        write_bytes(target, b"".join(pieces))
        return told


def make_submission(study: Study) -> Submission:
    """A study with the network it starts from.

    Raises:
        SettingsError: ``data.classes`` is empty.
    """
    classes = study.named_classes()
    from fedlens.arms import initial_network
    from fedlens.hospital.decision import feature_count
    from fedlens.models.fingerprint import fingerprint
    from fedlens.models.parameters import buffer_names, norm_names, to_parameters

    network = initial_network(study, classes=len(classes))
    return Submission(
        settings=portable_settings(study),
        fingerprint=fingerprint(network),
        norm_names=tuple(sorted(norm_names(network))),
        buffer_names=tuple(sorted(buffer_names(network))),
        parameters=to_parameters(network),
        features=feature_count(network),
    )


def collect_results(session: Session, study: Study, folder: Path, progress: Progress = silent) -> Path:
    """Fetch a finished study's history, network and advice, and write its report.

    Returns the arm's folder, laid out as a run's.

    Raises:
        RoundError: It has not finished.
        HistoryError: The folder holds a run of this machine.
    """
    from fedlens.federation_report import write_federation_report
    from fedlens.imaging.preprocess import digest
    from fedlens.models.checkpoint import Contract, save_checkpoint
    from fedlens.run_folder import MODEL_NAME, keep_study

    arm = arm_path(folder, study)
    which = "best_round" if study.training.patience else "rounds"
    if (arm / "rounds").is_dir():
        raise HistoryError(
            f"{folder} holds a run that was made on this machine.",
            why="The federation's result would overwrite it.",
            fix="Set another output in the study file, then fetch with: fedlens resume",
        )
    checkpoint = arm / "fetched.safetensors"
    session.fetch(study.name, which, checkpoint, progress)
    state = read_checkpoint(checkpoint)
    checkpoint.unlink()
    contract = Contract(
        model=study.model,
        classes=study.data.classes,
        preprocess=study.preprocess,
        preprocess_digest=digest(study.preprocess),
        fingerprint=state.fingerprint,
        study=study.digest(),
        round=state.round,
    )
    save_checkpoint(arm / MODEL_NAME, state.parameters, contract)
    session.fetch(study.name, "history", arm / HISTORY_NAME)
    if decided(read_history(arm)):
        for name in BUNDLE_NAMES:
            session.fetch(study.name, name, arm / MODEL_NAME / name)
    keep_study(study, folder)
    write_federation_report(folder)
    return arm


def _raised(told: dict[str, Any]) -> FedLensError:
    """An error as the coordinator raised it, with its exit code."""
    kinds = {kind.exit_code: kind for kind in (SettingsError, RoundError, HistoryError, DeploymentError)}
    kind = kinds.get(told["code"], FedLensError)
    return kind(told["what"], why=told["why"], fix=told["fix"])
