"""A hospital's studies: which it takes part in, on what terms, and what it keeps of each at home.

::

    KIT/studies/<first digits of the study's digest>/
      join.bin            the coordinator's request to take part, as it was agreed to
      state-*.safetensors optimiser moments and personal arrays
      sealed.json         sums it took part in
      hospital.jsonl      what it did and what it refused
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from fedlens.arms import build_hospital
from fedlens.deployment.kit import Kit
from fedlens.deployment.notices import tell
from fedlens.deployment.policy import check_policy, load_policy
from fedlens.engines.local import Member
from fedlens.errors import ProtocolError
from fedlens.files import remove_parts, write_bytes
from fedlens.hospital.hospital import Hospital
from fedlens.preparation import prepare_hospital
from fedlens.progress import Progress, silent
from fedlens.protocol.codec import decode, encode, kind_of
from fedlens.protocol.messages import Joined, JoinRequest
from fedlens.protocol.roster import Roster
from fedlens.sealing import sealed_hospital
from fedlens.sealing_files import fewest_in_a_sum
from fedlens.settings import validated
from fedlens.study import Study

JOIN_NAME = "join.bin"
_DIGITS = 32
"""Of a study's digest: so many that nobody can make two studies that share a folder."""


@dataclass
class _Joined:
    """A study that the hospital is ready for.

    Attributes:
        study: Its settings.
        hospital: With its images.
        member: Answers its messages; None until a sealed study's roster is signed by everybody.
        request: The coordinator's last one to take part.
    """

    study: Study
    hospital: Hospital
    member: Member | None
    request: JoinRequest = field(init=False)


class Membership:
    """Answers the coordinator's messages, whatever study they belong to.

    Args:
        kit: The hospital's.
        data: Study folder with its images.
    """

    def __init__(self, kit: Kit, data: Path) -> None:
        self._kit = kit
        self._data = data
        self._joined: dict[str, _Joined] = {}
        self._progress: Progress = silent

    def answer(self, study: str, request: bytes, own: bytes, progress: Progress) -> bytes:
        """Answer one message.

        Args:
            study: Digest of the study that it belongs to.
            request: The message.
            own: What came beside it for this hospital only.
            progress: Told how far the work is; what it raises ends it.

        Raises:
            FedLensError: It is refused, or the work failed.
        """
        self._progress = progress
        try:
            kind = kind_of(request)
            if kind == JoinRequest.kind:
                return encode(self._join(decode(request, JoinRequest)))
            member = self._member(study)
            answer = member.handle(request, own)
            tell(self._kit.folder, f"answered {kind} of study {self._joined[study].study.name}")
            return answer
        finally:
            self._progress = silent

    def _join(self, request: JoinRequest) -> Joined:
        """Take part, if keys, settings and policy allow it; the same request may come again."""
        study = self._agreed_study(request)
        roster = self._agreed_roster(request)
        joined = self._joined.get(request.study)
        # Settings outside the digest may differ where the same study comes again under another name.
        if joined is None or joined.study != study:
            joined = self._prepared(study, request)
        joined.request = request
        if not study.sealed(len(roster.members)):
            joined.member = joined.hospital
        elif request.signatures:
            roster.check()
            home, identity = self._home(request.study), self._kit.identity()
            joined.member = sealed_hospital(study, joined.hospital, identity, roster, home)
        # One study's images are held at a time.
        self._joined = {request.study: joined}
        if joined.member is not None:
            write_bytes(self._home(request.study) / JOIN_NAME, encode(request))
            tell(self._kit.folder, f"takes part in study {study.name}")
        signature = self._kit.identity().sign("roster", roster.digest.encode())
        return Joined(self._kit.name, request.study, signature)

    def _member(self, study: str) -> Member:
        """Whoever answers for a study; after a restart it joins again as it was agreed."""
        if study not in self._joined:
            path = self._home(study) / JOIN_NAME
            if not path.is_file():
                raise ProtocolError(
                    f"Hospital {self._kit.name} takes no part in study {study[:12]}.",
                    why="It was never asked to, or its kit lost what it agreed to.",
                    fix="Submit the study again.",
                )
            self._join(decode(path.read_bytes(), JoinRequest))
        joined = self._joined[study]
        self._check_policy(joined.study, joined.request)
        member = joined.member
        if member is None:
            raise ProtocolError(f"Hospital {self._kit.name} has not seen the signed roster of this study.")
        return member

    def _agreed_study(self, request: JoinRequest) -> Study:
        try:
            content = json.loads(request.settings)
            content["data"]["folder"] = str(self._data)
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"The study's settings cannot be read: {error}.") from error
        study = validated(Study, content, "The coordinator's study")
        if study.digest() != request.study:
            raise ProtocolError(
                f"The study's settings have digest {study.digest()[:12]}, not {request.study[:12]}.",
                fix="Check that both sides run the same version of FedLens.",
            )
        self._check_policy(study, request)
        return study

    def _check_policy(self, study: Study, request: JoinRequest) -> None:
        """With every message: whoever changes the policy is obeyed at once."""
        hospitals = len(request.hospitals)
        fewest = fewest_in_a_sum(study, hospitals)
        policy = load_policy(self._kit.policy)
        check_policy(policy, study, request.fingerprint, fewest=fewest, sealed=study.sealed(hospitals))

    def _agreed_roster(self, request: JoinRequest) -> Roster:
        """The study's roster, whose keys must all be those that this hospital's own list names."""
        members = self._kit.members()
        roster = members.roster(request.hospitals)
        for name, key in request.keys.items():
            if roster.members.get(name) != key:
                raise ProtocolError(
                    f"The coordinator names another key of {name[:40]} than this hospital's members.json.",
                    why="Whoever holds that key could speak in its name.",
                    fix="Compare fingerprints on the phone; take a new members.json with: "
                    "fedlens hospital members.",
                )
        complete = tuple(roster.members) == request.hospitals and len(request.keys) == len(request.hospitals)
        if not complete or request.coordinator != members.coordinator:
            raise ProtocolError(
                "The study's roster and this hospital's members.json do not agree.",
                fix="Take a new members.json with: fedlens hospital members.",
            )
        if self._kit.name not in roster.members:
            raise ProtocolError(f"The study's roster does not name {self._kit.name}.")
        return Roster(roster.members, roster.coordinator, dict(request.signatures))

    def _prepared(self, study: Study, request: JoinRequest) -> _Joined:
        name = self._kit.name
        prepared = prepare_hospital(study, self._data, name, progress=self._report)
        splits = {split: prepared.images(split, name) for split in ("train", "validation")}
        if not len(splits["train"]):
            raise ProtocolError(f"Hospital {name} has no training image for this study.")
        home = self._home(request.study)
        remove_parts(home)
        hospital = build_hospital(study, name, splits, home, classes=prepared.classes, progress=self._report)
        hospital.check(request.study, request.fingerprint)
        return _Joined(study, hospital, None)

    def _report(self, step: str, done: int, total: int) -> None:
        self._progress(step, done, total)

    def _home(self, study: str) -> Path:
        if not (len(study) == 64 and all(letter in "0123456789abcdef" for letter in study)):
            raise ProtocolError(f"{study[:80]!r} is no digest of a study.")
        return self._kit.studies / study[:_DIGITS]
