"""A federation in one process, without FLARE: kits, dealt phantoms, and relays and services played here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from tests.coordinator import fakes

import fedlens
from fedlens.deployment.envelope import Ask, content_digest, sign_answer
from fedlens.deployment.headers import (
    DONE,
    ERRAND,
    ERROR,
    FAILED,
    HERE,
    OWN,
    SIGNATURE,
    STATE,
    STUDY,
    UNKNOWN,
)
from fedlens.deployment.kit import KEY_NAME, Kind, Kit, new_identity, private_folder, write_kit
from fedlens.deployment.members import MEMBERS_NAME, Members, save_members
from fedlens.deployment.membership import Membership, _Joined
from fedlens.deployment.policy import POLICY_TEXT
from fedlens.deployment.submission import Submission, portable_settings
from fedlens.engines.nvflare import Headers
from fedlens.errors import FedLensError
from fedlens.files import write_text
from fedlens.hospital.hospital import Hospital
from fedlens.progress import silent
from fedlens.protocol.codec import kind_of
from fedlens.protocol.messages import JoinRequest
from fedlens.protocol.roster import COORDINATOR
from fedlens.sharing import share_images
from fedlens.study import Study

NAMES = ("north", "south", "east", "west")
CLASSES = ("NORMAL", "PNEUMONIA", "mel", "notumor", "nv", "tumor")

Fails = Callable[[str, str], str]
"""Takes a hospital and a kind of message; why the hospital fails at it, or nothing."""


def make_kits(folder: Path, names: Sequence[str] = NAMES, *, sealing: str = "required") -> dict[str, Kit]:
    """Kits of a coordinator and hospitals, with real keys and no certificate; ``sealing`` is their policy."""
    kinds: dict[str, Kind] = {COORDINATOR: "coordinator", **dict.fromkeys(names, "hospital")}
    kits = {
        name: Kit(private_folder(folder / name), kind, name, "chest", "localhost", 8002)
        for name, kind in kinds.items()
    }
    keys = {name: new_identity(kit.folder / KEY_NAME, name).public() for name, kit in kits.items()}
    members = Members("chest", keys.pop(COORDINATOR), keys)
    for name, kit in kits.items():
        save_members(kit.folder / MEMBERS_NAME, members)
        for part in ("startup", "local"):
            (kit.flare / part).mkdir(parents=True)
        if name != COORDINATOR:
            write_text(kit.policy, POLICY_TEXT.replace('sealing = "required"', f'sealing = "{sealing}"'))
        write_kit(kit)
    return kits


def new_key(kits: dict[str, Kit], name: str, tell: Sequence[str]) -> None:
    """Give a hospital another key, and its new members.json to some of the kits."""
    (kits[name].folder / KEY_NAME).unlink()
    key = new_identity(kits[name].folder / KEY_NAME, name).public()
    members = kits[COORDINATOR].members()
    changed = Members(members.federation, members.coordinator, {**members.hospitals, name: key})
    for kit in tell:
        save_members(kits[kit].folder / MEMBERS_NAME, changed)


def make_study(home: Path, name: str = "tiny", **changes: dict[str, Any]) -> Study:
    """A study of four hospitals over ``home/images``; ``changes`` add to its tables."""
    tables: dict[str, dict[str, Any]] = {
        "data": {"folder": home / "images", "classes": CLASSES},
        "hospitals": {"by": "equal", "names": NAMES},
        "preprocess": {"size": 32},
        "training": {"passes": 2, "batch_size": 8, "precision": "float32", "device": "cpu"},
        "federation": {"rounds": 2, "minimum_hospitals": 3},
        "network": {"grace": 0, "wait": 30},
        "sealing": {},
        "explanation": {"measures": "none"},
        "decision": {"federated": False},
    }
    content = {key: {**table, **changes.get(key, {})} for key, table in tables.items()}
    return Study.model_validate({"name": name, "output": home / "runs", **content})


def draw_images(home: Path, images: int = 110) -> None:
    """Phantoms in ``home/images``, and each hospital's share of them in ``home/machines``."""
    fedlens.draw_phantoms(home / "phantoms", images=images, seed=2, size=48)
    fedlens.import_images([home / "phantoms"], home / "images")
    fedlens.audit(home / "images")
    share_images(make_study(home), home / "machines")


class QuickMembership(Membership):
    """Takes part in unsealed studies of :func:`quick_submission`, with numbers instead of images."""

    def _prepared(self, study: Study, request: JoinRequest) -> _Joined:
        images = 30 + 7 * NAMES.index(self._kit.name)
        hospital = fakes.FakeHospital(self._kit.name, images, self._kit.folder / "fake")
        return _Joined(study, cast(Hospital, hospital), None)


def quick_submission(name: str = "tiny", **changes: dict[str, Any]) -> Submission:
    """A study whose network has a dozen weights, which :class:`QuickMembership` trains in no time."""
    tables = {**changes, "sealing": {"mode": "off"}, "data": {"classes": fakes.CLASSES}}
    return Submission(
        settings=portable_settings(make_study(Path(), name, **tables)),
        fingerprint="f" * 64,
        norm_names=tuple(sorted(fakes.NORM_NAMES)),
        buffer_names=tuple(sorted(fakes.BUFFER_NAMES)),
        parameters=fakes.initial_parameters(),
    )


class InProcessCarrier:
    """Plays every hospital's relay and service, signatures included; those that are away say nothing.

    Args:
        kits: From :func:`make_kits`.
        machines: Every hospital's images.
        membership: What answers for each hospital.
    """

    def __init__(
        self, kits: dict[str, Kit], machines: Path, membership: type[Membership] = Membership
    ) -> None:
        self._membership = membership
        self._kits = {name: kit for name, kit in kits.items() if name != COORDINATOR}
        self._machines = machines
        self._last: dict[str, tuple[str, Headers, bytes]] = {}
        # Hospitals are processes of their own; here they share torch's random numbers, so only in turn.
        self._turn = threading.Lock()
        self.members: dict[str, Membership] = {}
        self.away: set[str] = set()
        self.fails: Fails = lambda hospital, kind: ""
        self.asked: list[tuple[str, str]] = []
        self.restart(*self._kits)

    def restart(self, *names: str) -> None:
        """Hospitals' processes end and begin; what stands in their kits is all that they know."""
        for name in names:
            self._last.pop(name, None)
            self.members[name] = self._membership(self._kits[name], self._machines / name)

    def kinds(self, hospital: str) -> list[str]:
        """The kinds of all messages that the hospital was asked to answer, in order."""
        return [kind for name, kind in self.asked if name == hospital]

    def call(
        self, hospital: str, topic: str, headers: Headers, content: bytes, seconds: float
    ) -> tuple[Headers, bytes] | None:
        """See :class:`fedlens.engines.nvflare.Carrier`."""
        if hospital in self.away:
            return None
        if topic == "ping":
            return {STATE: HERE}, b""
        errand = headers[ERRAND]
        if topic == "ask" and self._last.get(hospital, ("", {}, b""))[0] != errand:
            self._last[hospital] = (errand, *self._answered(hospital, headers, content))
        known, told, answer = self._last.get(hospital, ("", {}, b""))
        return (told, answer) if known == errand else ({STATE: UNKNOWN}, b"")

    def _answered(self, hospital: str, headers: Headers, content: bytes) -> tuple[Headers, bytes]:
        """What the service would say, as :mod:`fedlens.deployment.service` has it."""
        kit, cut = self._kits[hospital], len(content) - headers[OWN]
        request, own = content[:cut], content[cut:]
        ask = Ask(headers[ERRAND], headers[STUDY], hospital, content_digest(request), content_digest(own))
        kind = kind_of(request)
        self.asked.append((hospital, kind))
        try:
            ask.check(kit.members().roster([hospital]), bytes.fromhex(headers[SIGNATURE]))
            reason, answer = self.fails(hospital, kind), b""
            if not reason:
                with self._turn:
                    answer = self.members[hospital].answer(headers[STUDY], request, own, silent)
        except FedLensError as error:
            reason, answer = str(error), b""
        digest = content_digest(reason.encode() if reason else answer)
        signed = sign_answer(kit.identity(), headers[ERRAND], bool(reason), digest).hex()
        if reason:
            return {STATE: FAILED, ERROR: reason, SIGNATURE: signed}, b""
        return {STATE: DONE, SIGNATURE: signed}, answer


def wait_for(holds: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Poll until ``holds()`` is true; returns what it returned."""
    until = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < until, f"After {seconds} s not: {what}"
        time.sleep(0.005)
    return found
