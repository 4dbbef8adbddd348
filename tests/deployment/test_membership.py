"""What one hospital agrees to, keeps and answers, over images that were dealt to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlens.coordinator.sealed import SealedGathering, SealingSetup
from fedlens.coordinator.settings import CoordinatorSettings
from fedlens.deployment.kit import Kit
from fedlens.deployment.members import MEMBERS_NAME, Members, save_members
from fedlens.deployment.membership import JOIN_NAME, Membership
from fedlens.deployment.notices import notices_path
from fedlens.deployment.session import make_submission
from fedlens.deployment.submission import Submission
from fedlens.engines.nvflare import FlareEngine
from fedlens.errors import (
    BadUpdateError,
    DataError,
    DeploymentError,
    FedLensError,
    PolicyError,
    ProtocolError,
)
from fedlens.hospital.sealed import LEDGER_NAME, LOG_NAME
from fedlens.progress import silent
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import (
    EvaluateRequest,
    Joined,
    JoinRequest,
    KeysRequest,
    RoundPlan,
    Stamp,
    TrainRequest,
    Update,
)
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.study import Study

from .in_process import CLASSES, NAMES, InProcessCarrier, make_kits, make_study, new_key


@pytest.fixture
def kits(tmp_path: Path) -> dict[str, Kit]:
    return make_kits(tmp_path / "kits")


@pytest.fixture(scope="module")
def sealed(drawn: Path) -> Submission:
    return make_submission(make_study(drawn))


@pytest.fixture(scope="module")
def plain(drawn: Path) -> Submission:
    return make_submission(make_study(drawn, sealing={"mode": "off"}))


@pytest.fixture
def north(drawn: Path, kits: dict[str, Kit]) -> Membership:
    return Membership(kits["north"], drawn / "machines" / "north")


def join_request(submission: Submission, kits: dict[str, Kit], *, signed: bool = False) -> JoinRequest:
    """As the coordinator sends it."""
    roster = kits[COORDINATOR].members().roster(NAMES)
    signatures = {
        name: kits[name].identity().sign("roster", roster.digest.encode()) for name in NAMES if signed
    }
    return JoinRequest(
        study=submission.study.digest(),
        settings=submission.settings,
        fingerprint=submission.fingerprint,
        hospitals=NAMES,
        coordinator=roster.coordinator,
        keys=dict(roster.members),
        signatures=signatures,
    )


def join(member: Membership, request: JoinRequest) -> Joined:
    return decode(member.answer(request.study, encode(request), b"", silent), Joined)


def allow(kit: Kit, **rules: str) -> None:
    """Set rules in a hospital's policy, as TOML."""
    lines = [
        f"{key} = {rules.pop(key)}" if (key := line.partition(" ")[0]) in rules else line
        for line in kit.policy.read_text().splitlines()
    ]
    assert not rules
    kit.policy.write_text("\n".join(lines))


def train_request(submission: Submission, **plan: Any) -> TrainRequest:
    asked: dict[str, Any] = {
        "study": submission.study.digest(),
        "round": 1,
        "rounds": 2,
        "fingerprint": submission.fingerprint,
        "passes": 1.0,
        "seed": 0,
        "learning_rate_start": 0.001,
        "learning_rate_end": 0.001,
    }
    return TrainRequest(RoundPlan(**{**asked, **plan}), submission.parameters)


def home(kit: Kit, submission: Submission) -> Path:
    """The study's folder in a hospital's kit, which has one or none of this study."""
    digest = submission.study.digest()
    return next(kit.studies.glob(f"{digest[:16]}*"), kit.studies / digest)


def test_who_joins_signs_the_roster_and_tells_nothing_else(
    north: Membership, kits: dict[str, Kit], sealed: Submission
) -> None:
    request = join_request(sealed, kits)
    joined = join(north, request)

    roster = kits[COORDINATOR].members().roster(NAMES)
    assert (joined.hospital, joined.study) == ("north", sealed.study.digest())
    roster.verify("north", "roster", roster.digest.encode(), joined.signature)
    assert [field.name for field in dataclasses.fields(joined)] == ["hospital", "study", "signature"]


def test_a_sealed_study_is_joined_once_everybodys_signature_was_seen(
    north: Membership, kits: dict[str, Kit], sealed: Submission
) -> None:
    first = join_request(sealed, kits)
    join(north, first)
    assert not (home(kits["north"], sealed) / JOIN_NAME).exists()
    keys = KeysRequest(Stamp(first.study, kits[COORDINATOR].members().roster(NAMES).digest, 1, 0, "enrol"))
    asked = encode(keys) + kits[COORDINATOR].identity().sign(KeysRequest.kind, encode(keys))
    with pytest.raises(ProtocolError, match="has not seen the signed roster"):
        north.answer(first.study, asked, b"", silent)

    second = join_request(sealed, kits, signed=True)
    join(north, second)

    assert north.answer(first.study, asked, b"", silent)
    assert decode((home(kits["north"], sealed) / JOIN_NAME).read_bytes(), JoinRequest) == second
    assert "takes part in study tiny" in notices_path(kits["north"].folder).read_text()


def test_joining_again_prepares_no_image_again(
    north: Membership, kits: dict[str, Kit], sealed: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = join(north, join_request(sealed, kits))
    monkeypatch.delattr("fedlens.deployment.membership.prepare_hospital")
    assert join(north, join_request(sealed, kits, signed=True)) == first


@pytest.mark.parametrize("change", ["missing", "forged", "swapped"])
def test_a_roster_that_not_everybody_signed_is_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission, change: str
) -> None:
    signed = join_request(sealed, kits, signed=True)
    signatures = dict(signed.signatures)
    if change == "missing":
        del signatures["west"]
    elif change == "forged":
        signatures["west"] = bytes(64)
    else:
        signatures["west"] = signatures["east"]
    with pytest.raises(ProtocolError, match="Hospital west has not signed the roster"):
        join(north, dataclasses.replace(signed, signatures=signatures))
    assert not home(kits["north"], sealed).exists()


def test_sealed_rounds_run_through_real_memberships(
    drawn: Path, kits: dict[str, Kit], sealed: Submission
) -> None:
    carrier = InProcessCarrier(kits, drawn / "machines")
    request = join_request(sealed, kits, signed=True)
    for member in carrier.members.values():
        join(member, request)
    members = {name: request.keys[name] for name in NAMES}
    roster = Roster(members, request.coordinator, request.signatures)
    identity = kits[COORDINATOR].identity()
    engine = FlareEngine(roster, identity, request.study, carrier, sealed.study.network)
    setup = SealingSetup(roster, identity, segment=1, threshold=3, value_bits=16)
    settings = CoordinatorSettings.from_study(
        sealed.study,
        fingerprint=sealed.fingerprint,
        classes=CLASSES,
        norm_names=sealed.norm_names,
        buffer_names=sealed.buffer_names,
    )
    gathering = SealedGathering(settings, engine, setup)

    begun = gathering.begin({}, silent)
    event: dict[str, Any] = {}
    plan = train_request(sealed).plan
    trained = gathering.train(plan, sealed.parameters, sealed.parameters, NAMES, event, silent)

    assert begun is not None and begun["images"] == trained.images > 0
    assert event["sealing"]["survivors"] == 4 and not event["missing"] and not event["refused"]
    assert any(np.abs(array).max() > 0 for array in trained.mean.values())
    for name in NAMES:
        place = home(kits[name], sealed)
        assert json.loads((place / LEDGER_NAME).read_text())["last"] == [1, 1, 1]
        assert list(place.glob("state-*.safetensors"))
        said = [json.loads(line) for line in (place / LOG_NAME).read_text().splitlines()]
        assert [entry["step"] for entry in said] == ["enrol", "train"]


def test_an_unsealed_study_is_joined_at_once(
    north: Membership, kits: dict[str, Kit], plain: Submission
) -> None:
    allow(kits["north"], sealing='"optional"')
    request = join_request(plain, kits)
    join(north, request)
    assert (home(kits["north"], plain) / JOIN_NAME).exists()

    seen: list[tuple[str, int, int]] = []
    answer = north.answer(request.study, encode(train_request(plain)), b"", lambda *step: seen.append(step))
    update = decode(answer, Update)
    assert (update.hospital, update.round) == ("north", 1) and update.images > 0
    assert seen and seen[-1][1] == seen[-1][2]


def test_whoever_listens_ends_the_work_by_raising(
    north: Membership, kits: dict[str, Kit], plain: Submission
) -> None:
    allow(kits["north"], sealing='"optional"')
    join(north, join_request(plain, kits))

    def hang_up(step: str, done: int, total: int) -> None:
        raise BrokenPipeError

    asked = encode(train_request(plain))
    with pytest.raises(BrokenPipeError):
        north.answer(plain.study.digest(), asked, b"", hang_up)
    assert not list(home(kits["north"], plain).glob("state-*"))
    # The next one listens for itself.
    assert north.answer(plain.study.digest(), asked, b"", silent)


def test_a_hospital_that_was_started_again_goes_on_as_it_agreed(
    drawn: Path, north: Membership, kits: dict[str, Kit], plain: Submission
) -> None:
    allow(kits["north"], sealing='"optional"')
    join(north, join_request(plain, kits))
    digest = plain.study.digest()
    first = decode(north.answer(digest, encode(train_request(plain)), b"", silent), Update)

    again = Membership(kits["north"], drawn / "machines" / "north")
    measured = EvaluateRequest(digest, 1, plain.fingerprint, "validation", plain.parameters)
    assert again.answer(digest, encode(measured), b"", silent)
    second = decode(again.answer(digest, encode(train_request(plain)), b"", silent), Update)
    assert {name: array.tobytes() for name, array in second.delta.items()} == {
        name: array.tobytes() for name, array in first.delta.items()
    }


def test_of_a_study_that_was_never_joined_nothing_is_answered(
    north: Membership, kits: dict[str, Kit], plain: Submission
) -> None:
    with pytest.raises(ProtocolError, match=r"takes no part in study .*Submit the study again"):
        north.answer(plain.study.digest(), encode(train_request(plain)), b"", silent)
    assert not kits["north"].studies.exists()


@pytest.mark.parametrize("study", ["../../../etc", "", "5" * 63, "5" * 65, "F" * 64, "5" * 60 + "/../"])
def test_what_is_no_digest_leads_to_no_folder(north: Membership, plain: Submission, study: str) -> None:
    with pytest.raises(ProtocolError, match="is no digest of a study"):
        north.answer(study, encode(train_request(plain)), b"", silent)


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\x10" + bytes(30)])
def test_what_is_no_message_is_refused(north: Membership, content: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a message"):
        north.answer("5" * 64, content, b"", silent)


def test_a_study_of_another_digest_is_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission
) -> None:
    request = join_request(sealed, kits)
    for changed in (
        dataclasses.replace(request, study="5" * 64),
        dataclasses.replace(request, settings=request.settings.replace('"seed": 0', '"seed": 1', 1)),
    ):
        with pytest.raises(ProtocolError, match=r"settings have digest .*same version of FedLens"):
            join(north, changed)


def test_another_network_than_the_settings_describe_is_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission
) -> None:
    with pytest.raises(BadUpdateError, match="refuses a network with fingerprint 000000"):
        join(north, dataclasses.replace(join_request(sealed, kits), fingerprint="0" * 64))


@pytest.mark.parametrize(
    "settings", ["", "[]", "{}", '{"data": 1}', '"x"', '{"data": {}, "name": "a", "b": 1}']
)
def test_settings_that_cannot_be_read_are_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission, settings: str
) -> None:
    with pytest.raises(FedLensError, match=r"settings cannot be read|The coordinator's study"):
        join(north, dataclasses.replace(join_request(sealed, kits), settings=settings))


def test_the_coordinator_cannot_choose_the_folder_of_images(
    north: Membership, kits: dict[str, Kit], sealed: Submission, drawn: Path
) -> None:
    content = json.loads(sealed.settings)
    content["data"]["folder"] = str(drawn / "machines" / "south")
    request = dataclasses.replace(join_request(sealed, kits), settings=json.dumps(content))
    # South's images would be refused as another hospital's.
    assert join(north, request).hospital == "north"


def test_a_key_that_this_hospital_does_not_know_is_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission
) -> None:
    new_key(kits, "east", [COORDINATOR])
    with pytest.raises(ProtocolError, match=r"names another key of east .*on the phone"):
        join(north, join_request(sealed, kits))


@pytest.mark.parametrize("change", ["coordinator", "order", "fewer keys", "more keys", "without this one"])
def test_a_roster_that_is_not_its_own_list_is_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission, change: str
) -> None:
    request = join_request(sealed, kits)
    extra = {"mercy": Identity.generate("mercy").public()}
    changes: dict[str, dict[str, Any]] = {
        "coordinator": {"coordinator": Identity.generate(COORDINATOR).public()},
        "order": {"hospitals": tuple(reversed(NAMES))},
        "fewer keys": {"keys": {name: request.keys[name] for name in NAMES[:3]}},
        "more keys": {"keys": request.keys | extra},
        "without this one": {
            "hospitals": NAMES[1:],
            "keys": {name: request.keys[name] for name in NAMES[1:]},
        },
    }
    words = "do not agree|another key of mercy|does not name north"
    with pytest.raises(ProtocolError, match=words):
        join(north, dataclasses.replace(request, **changes[change]))
    assert not kits["north"].studies.exists()


def test_a_hospital_that_is_no_member_is_refused(
    north: Membership, kits: dict[str, Kit], sealed: Submission
) -> None:
    request = join_request(sealed, kits)
    members = kits["north"].members()
    fewer = {name: key for name, key in members.hospitals.items() if name != "west"}
    save_members(kits["north"].folder / MEMBERS_NAME, Members(members.federation, members.coordinator, fewer))
    with pytest.raises(DeploymentError, match="'west' is not a member"):
        join(north, request)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"studies": '["other-*"]'}, "studies named tiny"),
        ({"models": '["ffff"]'}, "does not train networks"),
        ({"minimum_hospitals": "4"}, "may sum 3"),
        ({"most_rounds": "1"}, "this study has 2"),
    ],
)
def test_the_policy_is_asked_before_any_image_is(
    north: Membership,
    kits: dict[str, Kit],
    sealed: Submission,
    rules: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow(kits["north"], **rules)
    monkeypatch.delattr("fedlens.deployment.membership.prepare_hospital")
    with pytest.raises(PolicyError, match=words):
        join(north, join_request(sealed, kits))
    assert not kits["north"].studies.exists()


def test_numbers_in_the_clear_need_the_hospitals_own_word(
    north: Membership, kits: dict[str, Kit], plain: Submission
) -> None:
    with pytest.raises(PolicyError, match="sends nothing in the clear"):
        join(north, join_request(plain, kits))


def test_a_changed_policy_counts_for_the_very_next_message(
    north: Membership, kits: dict[str, Kit], plain: Submission
) -> None:
    allow(kits["north"], sealing='"optional"')
    join(north, join_request(plain, kits))
    asked = encode(train_request(plain))
    north.answer(plain.study.digest(), asked, b"", silent)

    allow(kits["north"], studies="[]")
    with pytest.raises(PolicyError, match="studies named tiny"):
        north.answer(plain.study.digest(), asked, b"", silent)
    allow(kits["north"], studies='["t*"]')
    assert north.answer(plain.study.digest(), asked, b"", silent)
    kits["north"].policy.unlink()
    with pytest.raises(FedLensError, match="without it nothing is agreed to"):
        north.answer(plain.study.digest(), asked, b"", silent)


def test_another_hospitals_images_are_refused(drawn: Path, kits: dict[str, Kit], sealed: Submission) -> None:
    member = Membership(kits["north"], drawn / "machines" / "south")
    with pytest.raises(DataError, match="holds images of hospital south, and this is north"):
        join(member, join_request(sealed, kits))
    assert not kits["north"].studies.exists()


def test_two_studies_are_kept_apart_and_each_is_found_again(
    north: Membership, kits: dict[str, Kit], plain: Submission, drawn: Path
) -> None:
    allow(kits["north"], sealing='"optional"')
    other = make_submission(make_study(drawn, "other", sealing={"mode": "off"}, training={"passes": 4}))
    assert isinstance(other.study, Study) and other.study.digest() != plain.study.digest()
    for submission in (plain, other):
        join(north, join_request(submission, kits))
    for submission in (plain, other, plain):
        digest = submission.study.digest()
        passes = submission.study.training.passes / 2
        assert north.answer(digest, encode(train_request(submission, passes=passes)), b"", silent)
    assert len(list(kits["north"].studies.iterdir())) == 2
    with pytest.raises(BadUpdateError, match="refuses a request of study"):
        north.answer(plain.study.digest(), encode(train_request(other)), b"", silent)
