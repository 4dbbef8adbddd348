"""Keys and shares for the next sum travel with the present one's messages, and may never hold it up."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import pytest

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import decode, encode, sign
from fedlens.protocol.messages import Blobs, Keys, SealedUpload, SharesRequest, Unmasking, UnmaskRequest
from fedlens.protocol.roster import COORDINATOR, SIGNATURE_BYTES
from fedlens.protocol.sealed_sum import SealedSum
from fedlens.protocol.session import begin_session

from .federation import REACH, Federation

ALL = "ABCD"


def closed(federation: Federation) -> SealedSum:
    """A sum that all have uploaded to, with keys for the next one."""
    current = federation.keyed()
    federation.uploaded(current, next_stamp=federation.stamp(2))
    current.close()
    assert set(current.next_keys) == set(ALL)
    return current


def asked(federation: Federation, current: SealedSum, next_keys: Blobs) -> bytes:
    """The honest request with other keys for the next sum."""
    request = decode(current.unmask_request()[:-SIGNATURE_BYTES], UnmaskRequest)
    return sign(dataclasses.replace(request, next_keys=next_keys), federation.coordinator)


def told(answer: bytes) -> Unmasking:
    return decode(answer[:-SIGNATURE_BYTES], Unmasking)


def changed_by(federation: Federation, name: str, content: bytes, **changes: bytes) -> bytes:
    """Keys that a hospital changed and signed."""
    keys = decode(content[:-SIGNATURE_BYTES], Keys)
    return sign(dataclasses.replace(keys, **changes), federation.identities[name])


def of_low_order(federation: Federation, keys: Blobs) -> Blobs:
    mask_key = decode(keys["C"][:-SIGNATURE_BYTES], Keys).mask_key
    return {**keys, "C": changed_by(federation, "C", keys["C"], mask_key=bytes(32) + mask_key[32:])}


def malformed(federation: Federation, keys: Blobs) -> Blobs:
    box_key = decode(keys["C"][:-SIGNATURE_BYTES], Keys).box_key
    return {**keys, "C": changed_by(federation, "C", keys["C"], box_key=box_key[:32] + b"\xff" * 1184)}


def copied(federation: Federation, keys: Blobs) -> Blobs:
    box_key = decode(keys["D"][:-SIGNATURE_BYTES], Keys).box_key
    return {**keys, "C": changed_by(federation, "C", keys["C"], box_key=box_key)}


def of_another_sum(federation: Federation, keys: Blobs) -> Blobs:
    content = decode(keys["C"][:-SIGNATURE_BYTES], Keys)
    other = dataclasses.replace(content, stamp=federation.stamp(3))
    return {**keys, "C": sign(other, federation.identities["C"])}


def of_too_few(federation: Federation, keys: Blobs) -> Blobs:
    return {name: keys[name] for name in "AB"}


def without_ones_own(federation: Federation, keys: Blobs) -> Blobs:
    return {name: keys[name] for name in "BCD"}


def of_a_stranger(federation: Federation, keys: Blobs) -> Blobs:
    return {**keys, "X": keys["C"]}


def torn(federation: Federation, keys: Blobs) -> Blobs:
    return {**keys, "C": keys["C"][:100]}


UNUSABLE = (
    of_low_order,
    malformed,
    copied,
    of_another_sum,
    of_too_few,
    without_ones_own,
    of_a_stranger,
    torn,
)


def test_with_usable_keys_every_answer_carries_shares_for_the_next_sum() -> None:
    federation = Federation(ALL)
    current = closed(federation)
    request = current.unmask_request()
    for name in ALL:
        current.take_unmasking(name, federation.hospitals[name].unmask(request))
    current.open()
    following = federation.begin(federation.stamp(2))
    for name in ALL:
        following.take_keys(name, current.next_keys[name])
    for name in ALL:
        following.take_shares(name, current.next_shares[name])
    seal = federation.planned(following)
    for name in ALL:
        content = federation.upload(following, seal, name, model="next weights")
        following.take_upload(name, content)
    opened = federation.open(following)
    assert np.abs(opened.values - federation.exact(ALL)).max() <= 4 * REACH / 2**15


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_unusable_keys_for_the_next_sum_do_not_keep_this_one_closed(
    unusable: Callable[[Federation, Blobs], Blobs],
) -> None:
    federation = Federation(ALL)
    current = closed(federation)
    usable = dict(current.next_keys)
    request = asked(federation, current, unusable(federation, usable))
    hospital = federation.hospitals["A"]
    session = hospital._next
    assert session is not None
    answer = hospital.unmask(request)
    assert told(answer).next_shares == b""
    current.take_unmasking("A", answer)
    assert "A" not in current.next_shares
    # The next sum's secrets are as they were: seeds can still be shared, with keys that are of use.
    assert hospital._next is session
    assert (session.peers, session.read, session.encapsulated, session.received) == ({}, {}, {}, {})
    hospital.shares(sign(SharesRequest(federation.stamp(2), usable), federation.coordinator))

    honest = current.unmask_request()
    for name in "BCD":
        current.take_unmasking(name, federation.hospitals[name].unmask(honest))
    opened = current.open()
    assert np.abs(opened.values - federation.exact(ALL)).max() <= 4 * REACH / 2**15


def test_keys_for_the_next_sum_may_be_left_out() -> None:
    federation = Federation(ALL)
    current = closed(federation)
    request = current.unmask_request(with_next=False)
    assert all(told(seal.unmask(request)).next_shares == b"" for seal in federation.hospitals.values())


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_a_refused_request_for_shares_leaves_the_secrets_of_a_sum_of_use(
    unusable: Callable[[Federation, Blobs], Blobs],
) -> None:
    federation = Federation(ALL)
    current = federation.begin(federation.stamp(2))
    for name, hospital in federation.hospitals.items():
        current.take_keys(name, hospital.keys(current.keys_request()))
    hospital, session = federation.hospitals["A"], federation.hospitals["A"]._next
    assert session is not None
    request = SharesRequest(current.stamp, unusable(federation, dict(current._keys)))
    with pytest.raises(ProtocolError):
        hospital.shares(sign(request, federation.coordinator))
    assert (session.peers, session.read, session.encapsulated, session.received) == ({}, {}, {}, {})
    honest = current.shares_request()
    for name, seal in federation.hospitals.items():
        current.take_shares(name, seal.shares(honest))
    federation.uploaded(current)
    opened = federation.open(current)
    assert np.abs(opened.values - federation.exact(ALL)).max() <= 4 * REACH / 2**15


def test_keys_of_the_coordinator_are_refused_and_seeds_can_still_be_shared() -> None:
    federation = Federation(ALL)
    current = federation.begin()
    for name, hospital in federation.hospitals.items():
        current.take_keys(name, hospital.keys(current.keys_request()))
    own = begin_session(
        current.stamp, federation.coordinator, federation.roster, federation.threshold, os.urandom
    )
    keys = {**current._keys, COORDINATOR: own.own_keys}
    for hospital in federation.hospitals.values():
        session = hospital._next
        assert session is not None
        with pytest.raises(ProtocolError, match="coordinator is no hospital of the roster"):
            hospital.shares(sign(SharesRequest(current.stamp, keys), federation.coordinator))
        assert (session.peers, session.read, session.received) == ({}, {}, {})
    for name, hospital in federation.hospitals.items():
        current.take_shares(name, hospital.shares(current.shares_request()))
    federation.uploaded(current, "BCD")
    opened = federation.open(current)
    assert np.abs(opened.values - federation.exact("BCD")).max() <= 3 * REACH / 2**15


@pytest.mark.parametrize("unusable", [of_low_order, malformed])
def test_an_upload_with_unusable_keys_for_the_next_sum_names_who_made_them(
    unusable: Callable[[Federation, Blobs], Blobs],
) -> None:
    federation = Federation(ALL)
    current = federation.keyed()
    seal = federation.planned(current, next_stamp=federation.stamp(2))
    content = federation.upload(current, seal, "C")
    upload = decode(content, SealedUpload)
    wrong = unusable(federation, {"C": upload.next_keys})["C"]
    with pytest.raises(ProtocolError, match="A public key of C cannot be used"):
        current.take_upload("C", encode(dataclasses.replace(upload, next_keys=wrong)))
    assert current.uploaded == () and current.next_keys == {}
    current.take_upload("C", content)
