"""Members: one fingerprint over all keys, and a damaged list is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.deployment.members import (
    Members,
    key_fingerprint,
    load_members,
    same_fingerprint,
    save_members,
)
from fedlens.errors import DeploymentError, ProtocolError
from fedlens.protocol.roster import Identity

KEYS = st.binary(min_size=32, max_size=32)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name != "coordinator")
FINGERPRINT = re.compile(r"[0-9A-F]{4}( [0-9A-F]{4}){7}")


@st.composite
def _members(draw: st.DrawFn) -> Members:
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    keys = draw(st.lists(KEYS, unique=True, min_size=len(names) + 1, max_size=len(names) + 1))
    return Members("chest", keys[0], dict(zip(names, keys[1:], strict=True)))


@settings(deadline=None)
@given(members=_members())
def test_what_is_written_is_read_in_the_same_order(members: Members) -> None:
    read = Members.from_json(members.to_json())

    assert read == members
    assert list(read.hospitals) == list(members.hospitals)
    assert read.fingerprint() == members.fingerprint()
    assert FINGERPRINT.fullmatch(read.fingerprint())


@settings(deadline=None)
@given(members=_members(), key=KEYS)
def test_the_fingerprint_covers_everything(members: Members, key: bytes) -> None:
    others = [Members("other", members.coordinator, members.hospitals)]
    if key != members.coordinator:
        others.append(Members("chest", key, members.hospitals))
    others.append(Members("chest", members.coordinator, {**members.hospitals, "new--hospital": key}))
    if len(members.hospitals) > 1:
        turned = dict(reversed(members.hospitals.items()))
        others.append(Members("chest", members.coordinator, turned))
        first, *rest = members.hospitals
        others.append(Members("chest", members.coordinator, {name: members.hospitals[name] for name in rest}))
        others.append(
            Members("chest", members.coordinator, {**members.hospitals, first: members.hospitals[rest[0]]})
        )

    assert members.fingerprint() not in {other.fingerprint() for other in others}


def _three() -> Members:
    return Members("chest", b"c" * 32, {name: name.encode() * 32 for name in "dab"})


@pytest.mark.parametrize(
    "change",
    [
        {"coordinator": "00"},
        {"coordinator": "x" * 64},
        {"coordinator": None},
        {"federation": "other"},
        {"hospitals": []},
        {"hospitals": {"a": "b"}},
        {"hospitals": [{"name": "d"}]},
        {"fingerprint": "0000"},
    ],
)
def test_a_damaged_list_is_refused(change: dict[str, Any]) -> None:
    content = {**json.loads(_three().to_json()), **change}

    with pytest.raises(DeploymentError, match=r"members\.json is not a list of members"):
        Members.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '"x"', "null", b"\xff"])
def test_anything_else_is_refused(text: str | bytes) -> None:
    with pytest.raises(DeploymentError, match="here is not a list of members"):
        Members.from_json(text, "here")


@pytest.mark.parametrize(
    "hospitals",
    [
        {"a": b"a" * 32, "b": b"a" * 32},
        {"a": b"c" * 32},
        {"coordinator": b"a" * 32},
        {f"h{number}": number.to_bytes(32, "big") for number in range(256)},
    ],
)
def test_lists_that_cannot_be_are_refused(hospitals: dict[str, bytes]) -> None:
    with pytest.raises(DeploymentError, match="is not a list of members"):
        Members.from_json(Members("chest", b"c" * 32, hospitals).to_json())


def test_a_name_that_stands_twice_is_refused() -> None:
    content = json.loads(_three().to_json())
    content["hospitals"].append({"name": "a", "key": "ee" * 32})

    with pytest.raises(DeploymentError, match="twice"):
        Members.from_json(json.dumps(content))


def test_a_roster_is_in_the_members_order() -> None:
    roster = _three().roster(["b", "d"])

    assert list(roster.members) == ["d", "b"]
    assert roster.coordinator == b"c" * 32


def test_a_roster_of_strangers_or_nobody_is_refused() -> None:
    with pytest.raises(DeploymentError, match="'x' is not a member"):
        _three().roster(["a", "x"])
    with pytest.raises(ProtocolError):
        _three().roster([])


def test_files(tmp_path: Path) -> None:
    save_members(tmp_path / "members.json", _three())

    assert load_members(tmp_path / "members.json") == _three()
    with pytest.raises(DeploymentError, match="Cannot read"):
        load_members(tmp_path / "none.json")


def test_single_keys_have_fingerprints_of_their_own() -> None:
    one, other = (key_fingerprint(Identity.generate("a").public()) for _ in range(2))

    assert FINGERPRINT.fullmatch(one) and FINGERPRINT.fullmatch(other)
    assert one != other


def test_fingerprints_are_compared_as_people_write_them() -> None:
    assert same_fingerprint("ABCD 0123", " abcd0123 ")
    assert not same_fingerprint("ABCD 0123", "ABCD 0124")
