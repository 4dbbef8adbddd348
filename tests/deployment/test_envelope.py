"""Signatures around messages: what they bind, and the very bytes that are signed."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from fedlens.deployment.envelope import Ask, check_answer, content_digest, sign_answer
from fedlens.errors import ProtocolError
from fedlens.protocol.roster import COORDINATOR, Identity, Roster

LEAD = Identity.from_bytes(COORDINATOR, bytes(range(32)))
NORTH = Identity.from_bytes("north", bytes(range(32, 64)))
SOUTH = Identity.from_bytes("south", bytes(range(64, 96)))
ROSTER = Roster.draft({"north": NORTH.public(), "south": SOUTH.public()}, LEAD.public())
ASK = Ask("e" * 32, "5" * 64, "north", content_digest(b"request"), content_digest(b"own"))
ANSWER = content_digest(b"answer")


def test_a_digest_is_sha256() -> None:
    assert content_digest(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_an_ask_is_signed_as_it_always_was() -> None:
    # Made with cryptography alone: Ed25519 over "fedlens/1/ask\0" and SHA-256 of the JSON list of fields.
    assert ASK.signed_by(LEAD).hex() == (
        "e55112df86c89f15c2bcaf342aa1173935e7b72c8c78ae4d5acf1279a9105f51"
        "0db0b420e5d5683cdaa2a160321591f662e3d1259f791a2ff7646789d7b89604"
    )


@pytest.mark.parametrize(
    ("failed", "signature"),
    [
        (
            False,
            "345ac771d8fb33340d68a1c95bc470e3b80f9b28dce20cd96fe22f382d5c0e35"
            "337b31d10230675075be4ac077d83fb5f435fe713bb6831ff7e0df7015e5fa06",
        ),
        (
            True,
            "fe9e619db22075b9fa20a02d401581b5d75224f6ebc5a22550c24412e9bbbca9"
            "26110cb56348c43c06f636f48fbc0897e04d2def68e7912fb6540af909ec1207",
        ),
    ],
)
def test_an_answer_is_signed_as_it_always_was(failed: bool, signature: str) -> None:
    assert sign_answer(NORTH, "e" * 32, failed, ANSWER).hex() == signature


def test_what_the_coordinator_signed_is_accepted() -> None:
    ASK.check(ROSTER, ASK.signed_by(LEAD))


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(Ask)])
def test_an_ask_is_for_one_errand_study_hospital_and_content(name: str) -> None:
    changed = dataclasses.replace(ASK, **{name: "south" if name == "hospital" else "d" * 64})
    with pytest.raises(ProtocolError, match="not signed"):
        changed.check(ROSTER, ASK.signed_by(LEAD))


def test_fields_cannot_be_moved_into_each_other() -> None:
    moved = dataclasses.replace(ASK, errand=ASK.errand + ASK.study, study="")
    with pytest.raises(ProtocolError, match="not signed"):
        moved.check(ROSTER, ASK.signed_by(LEAD))


@pytest.mark.parametrize("identity", [NORTH, SOUTH])
def test_nobody_else_asks_in_the_coordinators_name(identity: Identity) -> None:
    with pytest.raises(ProtocolError, match="in the name of coordinator"):
        ASK.check(ROSTER, ASK.signed_by(identity))


@pytest.mark.parametrize("signature", [b"", b"short", bytes(64)])
def test_what_is_no_signature_is_refused_like_a_false_one(signature: bytes) -> None:
    with pytest.raises(ProtocolError, match="not signed"):
        ASK.check(ROSTER, signature)
    with pytest.raises(ProtocolError, match="not signed"):
        check_answer(ROSTER, signature, "north", ASK.errand, False, ANSWER)


@pytest.mark.parametrize("failed", [False, True])
def test_an_answer_is_one_hospitals_to_one_errand_with_one_outcome(failed: bool) -> None:
    signature = sign_answer(NORTH, ASK.errand, failed, ANSWER)
    check_answer(ROSTER, signature, "north", ASK.errand, failed, ANSWER)
    for hospital, errand, outcome, content in (
        ("south", ASK.errand, failed, ANSWER),
        ("north", "f" * 32, failed, ANSWER),
        ("north", ASK.errand, not failed, ANSWER),
        ("north", ASK.errand, failed, content_digest(b"another")),
    ):
        with pytest.raises(ProtocolError, match="not signed"):
            check_answer(ROSTER, signature, hospital, errand, outcome, content)


def test_a_hospital_cannot_answer_in_anothers_name() -> None:
    signature = sign_answer(Identity("south", NORTH.key), ASK.errand, False, ANSWER)
    with pytest.raises(ProtocolError, match="in the name of south"):
        check_answer(ROSTER, signature, "south", ASK.errand, False, ANSWER)


def test_a_key_that_was_replaced_counts_no_longer() -> None:
    renewed = Roster.draft({"north": SOUTH.public()}, LEAD.public())
    with pytest.raises(ProtocolError, match="in the name of north"):
        check_answer(
            renewed, sign_answer(NORTH, ASK.errand, False, ANSWER), "north", ASK.errand, False, ANSWER
        )
