from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.roster import (
    COORDINATOR,
    SIGNATURE_BYTES,
    Identity,
    Roster,
    short_fingerprint,
)

NAMES = ("Alpha", "Beta", "Gamma")


def identity(name: str, number: int | None = None) -> Identity:
    seed = hashlib.sha256(f"{name} {number}".encode()).digest()
    return Identity.from_bytes(name, seed)


def draft(names: tuple[str, ...] = NAMES) -> Roster:
    return Roster.draft({name: identity(name).public() for name in names}, identity(COORDINATOR).public())


def signed() -> Roster:
    roster = draft()
    for name in NAMES:
        roster = roster.signed_by(identity(name))
    return roster


def test_ed25519_gives_the_known_answer_of_rfc_8032() -> None:
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    member = Identity.from_bytes("A", secret)
    assert member.secret() == secret
    assert member.public().hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert member.key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_generated_identities_differ_and_come_back_from_their_secret() -> None:
    first, second = Identity.generate("A"), Identity.generate("A")
    assert first.public() != second.public()
    assert Identity.from_bytes("A", first.secret()).public() == first.public()
    assert (len(first.secret()), len(first.public())) == (32, 32)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200), st.text(max_size=10))
def test_signatures_are_over_label_purpose_and_digest(content: bytes, purpose: str) -> None:
    member = identity("Alpha")
    signature = member.sign(purpose, content)
    assert len(signature) == SIGNATURE_BYTES
    assert signature == member.sign(purpose, memoryview(content))
    expected = b"fedlens/1/" + purpose.encode() + b"\0" + hashlib.sha256(content).digest()
    member.key.public_key().verify(signature, expected)
    draft().verify("Alpha", purpose, content, signature)


def test_what_was_not_signed_is_refused_by_name() -> None:
    roster, member = draft(), identity("Alpha")
    signature = member.sign("keys", b"content")
    for name, purpose, content, given_signature in (
        ("Beta", "keys", b"content", signature),
        (COORDINATOR, "keys", b"content", signature),
        ("Alpha", "shares", b"content", signature),
        ("Alpha", "keys", b"contenu", signature),
        ("Alpha", "keys", b"content", signature[:-1]),
        ("Alpha", "keys", b"content", b""),
        ("Alpha", "keys", b"content", bytes(SIGNATURE_BYTES)),
        ("Alpha", "keys", b"content", bytes([signature[0] ^ 1]) + signature[1:]),
    ):
        with pytest.raises(ProtocolError, match=f"in the name of {name} was not signed by it"):
            roster.verify(name, purpose, content, given_signature)


def test_the_coordinator_signs_with_the_key_that_the_roster_lists() -> None:
    roster = draft()
    roster.verify(COORDINATOR, "sum-plan", b"x", identity(COORDINATOR).sign("sum-plan", b"x"))


def test_unknown_members_are_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match="'Delta' is not in the roster"):
        draft().verify("Delta", "keys", b"", bytes(SIGNATURE_BYTES))
    with pytest.raises(ProtocolError, match="'Delta' is not in the roster"):
        draft().signed_by(identity("Delta"))


def test_a_key_of_another_length_verifies_nothing() -> None:
    roster = Roster({"Alpha": b"short"}, bytes(32), {})
    with pytest.raises(ProtocolError, match="was not signed by it"):
        roster.verify("Alpha", "keys", b"", identity("Alpha").sign("keys", b""))


def test_a_roster_that_all_signed_is_accepted() -> None:
    signed().check()


def test_the_coordinators_signature_is_not_needed_and_does_no_harm() -> None:
    signed().signed_by(identity(COORDINATOR)).check()


@pytest.mark.parametrize("missing", NAMES)
def test_a_roster_without_one_signature_names_who_has_not_signed(missing: str) -> None:
    roster = draft()
    for name in NAMES:
        if name != missing:
            roster = roster.signed_by(identity(name))
    with pytest.raises(ProtocolError, match=f"Hospital {missing} has not signed the roster"):
        roster.check()


def test_signing_adds_one_signature_to_a_new_roster() -> None:
    roster = draft()
    after = roster.signed_by(identity("Beta"))
    assert dict(roster.signatures) == {}
    assert set(after.signatures) == {"Beta"}
    assert after.digest == roster.digest


def test_a_swapped_key_is_refused() -> None:
    roster = signed()
    swapped = Roster(
        {**roster.members, "Beta": identity("Beta", 2).public()}, roster.coordinator, roster.signatures
    )
    with pytest.raises(ProtocolError, match="Hospital Alpha has not signed the roster"):
        swapped.check()
    with pytest.raises(ProtocolError, match="lists another key for Beta"):
        swapped.signed_by(identity("Beta"))


def test_a_swapped_coordinator_is_refused() -> None:
    roster = signed()
    with pytest.raises(ProtocolError, match="has not signed the roster"):
        Roster(roster.members, identity("other").public(), roster.signatures).check()


def test_a_member_that_was_added_or_taken_out_is_refused() -> None:
    roster = signed()
    added = {**roster.members, "Delta": identity("Delta").public()}
    fewer = {name: roster.members[name] for name in NAMES[:2]}
    for members in (added, fewer):
        with pytest.raises(ProtocolError, match="has not signed the roster"):
            Roster(members, roster.coordinator, roster.signatures).check()


def test_another_members_signature_does_not_count() -> None:
    roster = signed()
    wrong = {**roster.signatures, "Beta": roster.signatures["Alpha"]}
    with pytest.raises(ProtocolError, match="Hospital Beta has not signed the roster"):
        Roster(roster.members, roster.coordinator, wrong).check()


def test_a_signature_for_another_purpose_does_not_count() -> None:
    roster = signed()
    wrong = {**roster.signatures, "Beta": identity("Beta").sign("keys", roster.digest.encode())}
    with pytest.raises(ProtocolError, match="Hospital Beta has not signed the roster"):
        Roster(roster.members, roster.coordinator, wrong).check()


def test_the_digest_is_over_names_and_keys_in_order() -> None:
    entries = [[name, identity(name).public().hex()] for name in NAMES]
    content = json.dumps([entries, identity(COORDINATOR).public().hex()]).encode()
    assert draft().digest == hashlib.sha256(b"fedlens/1/roster\0" + content).hexdigest()


def test_order_name_and_key_each_change_the_digest() -> None:
    roster = draft()
    renamed = {("Delta" if name == "Beta" else name): key for name, key in roster.members.items()}
    other_key = {**roster.members, "Beta": identity("Beta", 2).public()}
    digests = {
        roster.digest,
        draft(NAMES[::-1]).digest,
        Roster.draft(renamed, roster.coordinator).digest,
        Roster.draft(other_key, roster.coordinator).digest,
        Roster.draft(roster.members, identity("other").public()).digest,
    }
    assert len(digests) == 5


def test_a_roster_of_another_order_is_not_the_one_that_was_signed() -> None:
    roster = signed()
    reversed_members = {name: roster.members[name] for name in NAMES[::-1]}
    with pytest.raises(ProtocolError, match="has not signed the roster"):
        Roster(reversed_members, roster.coordinator, roster.signatures).check()


def test_signatures_do_not_change_the_digest() -> None:
    assert signed().digest == draft().digest


def test_indices_follow_the_order_from_one() -> None:
    assert [draft().index(name) for name in NAMES] == [1, 2, 3]
    assert [draft(NAMES[::-1]).index(name) for name in NAMES] == [3, 2, 1]


@pytest.mark.parametrize("name", ["Delta", COORDINATOR, ""])
def test_who_is_no_hospital_has_no_index(name: str) -> None:
    with pytest.raises(ProtocolError, match=f"Hospital '{name}' is not in the roster"):
        draft().index(name)


def test_drafts_keep_their_members_when_the_given_table_changes() -> None:
    members = {name: identity(name).public() for name in NAMES}
    roster = Roster.draft(members, bytes(32))
    members.clear()
    assert list(roster.members) == list(NAMES)


@pytest.mark.parametrize("count", [0, 256])
def test_rosters_of_none_or_too_many_are_refused(count: int) -> None:
    members = {f"H{number}": bytes(32) for number in range(count)}
    with pytest.raises(ProtocolError, match=f"A roster of {count} hospitals.*1 to 255"):
        Roster.draft(members, bytes(32))


def test_255_hospitals_fit() -> None:
    roster = Roster.draft({f"H{number}": bytes(32) for number in range(255)}, bytes(32))
    assert roster.index("H254") == 255


def test_no_hospital_takes_the_coordinators_name() -> None:
    with pytest.raises(ProtocolError, match=f"none of them named '{COORDINATOR}'"):
        draft(("Alpha", COORDINATOR))


def test_fingerprints_are_eight_groups_of_four() -> None:
    assert short_fingerprint(bytes(range(16)) * 2) == "0001 0203 0405 0607 0809 0A0B 0C0D 0E0F"
    roster = draft()
    assert roster.fingerprint().replace(" ", "").lower() == roster.digest[:32]
    assert draft(NAMES[::-1]).fingerprint() != roster.fingerprint()
