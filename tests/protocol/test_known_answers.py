from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedlens.protocol.codec import read_signed, sign
from fedlens.protocol.encoding import steps
from fedlens.protocol.keys import HybridKey, decrypt, open_deposit, pair_secret
from fedlens.protocol.messages import Keys, Receipt, Stamp, SumPlan
from fedlens.protocol.packing import pack_block, packed_size
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.protocol.sealed_hospital import payload_digest
from fedlens.protocol.session import (
    box_context,
    commitment,
    context_of,
    deposit_context,
    keys_digest,
    mask_seed_alone,
    pair_mask,
    read_keys,
)
from fedlens.protocol.shamir import join_shares, split_secret
from fedlens.protocol.totals import Layout, train_layout, value_names
from fedlens.protocol.vectors import Opened, RunningSum, Values, seal_numbers
from tests.protocol import make_vectors
from tests.protocol.make_vectors import MOST, NAMES, Stream, keystream, words_of

FILE = Path(__file__).with_name("vectors.json")
VECTORS: dict[str, Any] = json.loads(FILE.read_text())
HOSPITALS: dict[str, Any] = VECTORS["hospitals"]
STAMP = Stamp(**VECTORS["stamp"])
LAYOUT = Layout({name: tuple(shape) for name, shape in VECTORS["totals"]})
BOXES = [tuple(pair.split(">")) for pair in VECTORS["boxes"]]
PAIRS = [tuple(pair.split("+")) for pair in VECTORS["pairs"]]
RANDOM_FIELDS = {"kem", "kem_secret", "key", "text", "mask_kem", "seed", "keystream", "deposit"}

each_hospital = pytest.mark.parametrize("name", NAMES)
each_box = pytest.mark.parametrize(("sender", "receiver"), BOXES)
each_pair = pytest.mark.parametrize(("first", "second"), PAIRS)


def recorded(name: str, field: str) -> bytes:
    return bytes.fromhex(HOSPITALS[name][field])


def roster() -> Roster:
    return Roster(
        {name: recorded(name, "public") for name in NAMES},
        bytes.fromhex(VECTORS["coordinator"]["public"]),
        {name: bytes.fromhex(text) for name, text in VECTORS["roster"]["signatures"].items()},
    )


def peers() -> dict[str, bytes]:
    return {name: recorded(name, "keys") for name in NAMES}


def read(name: str) -> Keys:
    return read_keys(recorded(name, "keys"), STAMP, name, roster())


def plan() -> SumPlan:
    return read_signed(bytes.fromhex(VECTORS["plan"]), SumPlan, roster(), COORDINATOR, most=MOST)


def values(name: str) -> Values:
    shapes = {array["name"]: array["shape"] for array in VECTORS["arrays"]}
    arrays = {
        array: np.frombuffer(bytes.fromhex(text), "<f4").reshape(shapes[array])
        for array, text in HOSPITALS[name]["values"].items()
    }
    return Values(arrays, list(arrays), HOSPITALS[name]["weight"], recorded(name, "rounding_seed"))


def box_key(name: str) -> HybridKey:
    return HybridKey.from_seed(recorded(name, "box_seed"), "box")


def mask_key(name: str) -> HybridKey:
    return HybridKey.from_seed(recorded(name, "mask_seed"), "mask")


def pair_seed(me: str, other: str) -> tuple[bytes, int]:
    """The mask of a pair as one of them derives it: by decapsulating, where it stands later in the roster."""
    first, second = sorted((me, other))
    kem = bytes.fromhex(VECTORS["pairs"][f"{first}+{second}"]["kem_secret"])
    if me == second:
        kem = mask_key(me).decapsulate(bytes.fromhex(VECTORS["boxes"][f"{first}>{second}"]["mask_kem"]))
    x25519 = mask_key(me).agree(recorded(other, "mask_key"))
    return pair_mask(x25519, kem, STAMP, me, other, peers(), roster())


def all_seeds(name: str) -> list[tuple[bytes, int]]:
    own = mask_seed_alone(recorded(name, "self_seed"), STAMP, name), 1
    return [own, *(pair_seed(name, other) for other in NAMES if other != name)]


def opened(survivors: tuple[str, ...]) -> Opened:
    """The sum over survivors, opened from two shares of each seed."""
    running = RunningSum(plan())
    for name in survivors:
        running.add(memoryview(recorded(name, "masked_values")), memoryview(recorded(name, "masked_totals")))
    seeds = []
    for name in survivors:
        shares = {index: bytes.fromhex(HOSPITALS[name]["self_shares"][str(index)]) for index in (1, 2)}
        seeds.append((mask_seed_alone(join_shares(shares), STAMP, name), -1))
    for name in survivors:
        left = [pair_seed(name, other) for other in NAMES if other not in survivors]
        seeds.extend((seed, -sign_of) for seed, sign_of in left)
    return running.open(seeds, values("A").sizes, len(survivors))


@pytest.mark.parametrize("name", [*NAMES, COORDINATOR])
def test_public_keys_follow_from_identities(name: str) -> None:
    entry = HOSPITALS.get(name, VECTORS["coordinator"])
    member = Identity.from_bytes(name, bytes.fromhex(entry["secret"]))
    assert member.public().hex() == entry["public"]


def test_the_roster_has_this_digest_and_is_signed_by_all() -> None:
    found = roster()
    found.check()
    assert found.digest == VECTORS["roster"]["digest"] == STAMP.roster
    assert found.fingerprint() == VECTORS["roster"]["fingerprint"]
    for name in NAMES:
        signed = found.signed_by(Identity.from_bytes(name, recorded(name, "secret")))
        assert signed.signatures[name].hex() == VECTORS["roster"]["signatures"][name]


@each_hospital
def test_seeds_and_shares_are_read_from_the_stream(name: str) -> None:
    stream = Stream(HOSPITALS[name]["random"])
    for field in ("self_seed", "mask_seed", "box_seed"):
        assert stream(32) == recorded(name, field)
    for seed, field in (("self_seed", "self_shares"), ("mask_seed", "mask_shares")):
        shares = split_secret(
            recorded(name, seed), threshold=VECTORS["threshold"], indices=[1, 2, 3], random=stream
        )
        assert {str(index): share.hex() for index, share in shares.items()} == HOSPITALS[name][field]


def test_a_threshold_of_three_gives_these_shares() -> None:
    entry = VECTORS["shares"]
    stream = Stream(entry["random"])
    secret = stream(32)
    assert secret.hex() == entry["secret"]
    indices = [int(index) for index in entry["shares"]]
    shares = split_secret(secret, threshold=entry["threshold"], indices=indices, random=stream)
    assert {str(index): share.hex() for index, share in shares.items()} == entry["shares"]
    for some in combinations(shares, 3):
        assert join_shares({index: shares[index] for index in some}) == secret


@each_hospital
def test_any_two_shares_join_to_the_seed(name: str) -> None:
    for seed, field in (("self_seed", "self_shares"), ("mask_seed", "mask_shares")):
        shares = {int(index): bytes.fromhex(text) for index, text in HOSPITALS[name][field].items()}
        for some in combinations(shares, 2):
            assert join_shares({index: shares[index] for index in some}) == recorded(name, seed)


@each_hospital
def test_hybrid_public_keys_follow_from_seeds(name: str) -> None:
    assert box_key(name).public() == recorded(name, "box_key")
    assert mask_key(name).public() == recorded(name, "mask_key")


@each_hospital
def test_commitments_are_digests_of_seeds_and_shares(name: str) -> None:
    contents = [
        content
        for kind in ("self", "mask")
        for content in (HOSPITALS[name][f"{kind}_seed"], *HOSPITALS[name][f"{kind}_shares"].values())
    ]
    digests = [hashlib.sha256(bytes.fromhex(content)).digest() for content in contents]
    assert b"".join(digests) == recorded(name, "commitments")
    found = [commitment(read(name), which, index) for which in (0, 1) for index in range(4)]
    assert found == digests


@each_hospital
def test_signed_keys_hold_these_fields(name: str) -> None:
    fields = (recorded(name, field) for field in ("box_key", "mask_key", "commitments"))
    keys = Keys(STAMP, name, *fields)
    assert sign(keys, Identity.from_bytes(name, recorded(name, "secret"))) == recorded(name, "keys")
    assert read(name) == keys


@each_box
def test_boxes_open_to_the_receivers_shares(sender: str, receiver: str) -> None:
    box = VECTORS["boxes"][f"{sender}>{receiver}"]
    context = box_context(STAMP, sender, receiver, peers())
    assert context.hex() == box["context"]
    x25519 = box_key(receiver).agree(recorded(sender, "box_key"))
    assert x25519 == box_key(sender).agree(recorded(receiver, "box_key"))
    assert x25519.hex() == box["x25519"]
    secret = box_key(receiver).decapsulate(bytes.fromhex(box["kem"]))
    assert secret.hex() == box["kem_secret"]
    key = pair_secret(x25519, secret, "box", context)
    assert key.hex() == box["key"]
    index = str(NAMES.index(receiver) + 1)
    shares = HOSPITALS[sender]["self_shares"][index] + HOSPITALS[sender]["mask_shares"][index]
    assert decrypt(key, bytes.fromhex(box["text"]), context, "the box").hex() == shares


@each_box
def test_contexts_bind_the_sum_both_names_and_both_signed_keys(sender: str, receiver: str) -> None:
    digests = [hashlib.sha256(recorded(name, "keys")).hexdigest() for name in (sender, receiver)]
    text = json.dumps([VECTORS["stamp"], sender, receiver, *digests], sort_keys=True)
    assert VECTORS["boxes"][f"{sender}>{receiver}"]["context"] == text.encode().hex()


@each_pair
def test_both_of_a_pair_derive_the_mask(first: str, second: str) -> None:
    pair = VECTORS["pairs"][f"{first}+{second}"]
    assert box_context(STAMP, first, second, peers()).hex() == pair["context"]
    text = bytes.fromhex(VECTORS["boxes"][f"{first}>{second}"]["mask_kem"])
    assert mask_key(second).decapsulate(text).hex() == pair["kem_secret"]
    assert mask_key(first).agree(recorded(second, "mask_key")).hex() == pair["x25519"]
    assert pair_seed(first, second) == (bytes.fromhex(pair["seed"]), 1)
    assert pair_seed(second, first) == (bytes.fromhex(pair["seed"]), -1)


@each_hospital
def test_deposits_hold_the_secrets_for_later_hospitals(name: str) -> None:
    found = open_deposit(
        recorded(name, "mask_seed"), recorded(name, "deposit"), deposit_context(STAMP, name), name
    )
    later = [pair for pair in PAIRS if pair[0] == name]
    assert found == {
        NAMES.index(second) + 1: bytes.fromhex(VECTORS["pairs"][f"{name}+{second}"]["kem_secret"])
        for _, second in later
    }


@each_hospital
def test_own_masks_follow_from_self_seeds(name: str) -> None:
    mask = HOSPITALS[name]["self_mask"]
    assert context_of(STAMP, name).hex() == mask["context"]
    assert mask_seed_alone(recorded(name, "self_seed"), STAMP, name).hex() == mask["seed"]


@pytest.mark.parametrize(
    "mask", [*(HOSPITALS[name]["self_mask"] for name in NAMES), *VECTORS["pairs"].values()]
)
def test_keystreams_are_aes_256_of_a_counter(mask: dict[str, str]) -> None:
    seed = bytes.fromhex(mask["seed"])
    assert keystream(seed).hex() == mask["keystream"]
    plain = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
    assert plain.update(bytes(64)).hex() == mask["keystream"]


def test_arrays_and_totals_lie_in_this_order() -> None:
    template = {array["name"]: np.zeros(array["shape"], np.float32) for array in reversed(VECTORS["arrays"])}
    assert value_names(template) == [array["name"] for array in VECTORS["arrays"]]
    assert list(train_layout(template).shapes.items()) == list(LAYOUT.shapes.items())


def test_the_plan_binds_keys_ranges_and_bits() -> None:
    found = plan()
    assert (found.stamp, found.participants, found.threshold) == (STAMP, NAMES, VECTORS["threshold"])
    assert (found.value_bits, found.ring_bits) == (VECTORS["value_bits"], 18)
    assert (found.values, found.totals) == (40, LAYOUT.size)
    assert found.keys == keys_digest(peers())
    assert found.ranges["ranges"].tolist() == [array["range"] for array in VECTORS["arrays"]]
    coordinator = Identity.from_bytes(COORDINATOR, bytes.fromhex(VECTORS["coordinator"]["secret"]))
    assert sign(found, coordinator).hex() == VECTORS["plan"]


@each_hospital
def test_values_become_these_words(name: str) -> None:
    assert words_of(values(name), plan()).astype("<u4").tobytes() == recorded(name, "words")


@each_hospital
def test_words_and_totals_are_masked_and_packed_like_this(name: str) -> None:
    packed, totals, outcome = seal_numbers(
        values(name), HOSPITALS[name]["totals"], LAYOUT, plan(), all_seeds(name)
    )
    assert packed.tobytes() == recorded(name, "masked_values")
    assert totals.tobytes() == recorded(name, "masked_totals")
    assert outcome.saturated == (1 if name == "B" else 0)


@each_hospital
def test_masked_values_are_words_plus_keystreams_in_the_ring(name: str) -> None:
    masked = np.frombuffer(recorded(name, "words"), "<u4").copy()
    totals_size = -(-8 * LAYOUT.size // 16) * 16
    for seed, sign_of in all_seeds(name):
        stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
        mask = np.frombuffer(stream.update(bytes(totals_size + 160))[totals_size:], "<u4")
        masked = masked + mask if sign_of > 0 else masked - mask
    packed = np.empty(packed_size(40, 18), np.uint8)
    pack_block(masked, 18, packed)
    assert packed.tobytes() == recorded(name, "masked_values")


@each_hospital
def test_receipts_bind_the_plan_and_the_payload(name: str) -> None:
    receipt = read_signed(recorded(name, "receipt"), Receipt, roster(), name, most=MOST)
    assert receipt.plan == hashlib.sha256(bytes.fromhex(VECTORS["plan"])).hexdigest()
    assert receipt.payload == payload_digest(recorded(name, "masked_values"), recorded(name, "masked_totals"))


@pytest.mark.parametrize("survivors", [("A", "B", "C"), ("A", "B")])
def test_sums_open_to_these_numbers(survivors: tuple[str, ...]) -> None:
    found, expected = opened(survivors), VECTORS["sums"]["+".join(survivors)]
    assert found.values.tobytes().hex() == expected["values"]
    assert found.totals.tolist() == expected["totals"]


@pytest.mark.parametrize("survivors", [("A", "B", "C"), ("A", "B")])
def test_opened_sums_are_those_of_the_plain_numbers(survivors: tuple[str, ...]) -> None:
    expected = np.zeros(40)
    for name in survivors:
        own = values(name)
        limits = np.repeat(plan().ranges["ranges"], own.sizes)
        plain = np.concatenate([array.ravel() for array in own.arrays.values()])
        expected += np.clip(own.weight * plain.astype(np.float64), -limits, limits)
    entry = VECTORS["sums"]["+".join(survivors)]
    step = np.repeat(steps(plan().ranges["ranges"].astype(np.float64), plan().value_bits), values("A").sizes)
    error = np.frombuffer(bytes.fromhex(entry["values"]), "<f4") - expected
    assert (np.abs(error) <= len(survivors) * step * (1 + 2.0**-7)).all()
    totals = LAYOUT.restore(np.array(entry["totals"], np.int64))
    for field in HOSPITALS["A"]["totals"]:
        assert totals[field] == sum(HOSPITALS[name]["totals"][field] for name in survivors)
    assert totals["saturated"] == 1
    assert totals["exponents"].sum(axis=1).tolist() == [len(survivors)] * 2


def test_a_run_with_these_encapsulations_gives_the_whole_file_again() -> None:
    again = make_vectors.make_vectors(make_vectors.encapsulations_of(VECTORS))
    assert json.loads(json.dumps(again)) == VECTORS


def without_random_fields(entry: Any) -> Any:
    if isinstance(entry, dict):
        masked = {"masked_values", "masked_totals", "receipt"}
        return {
            name: without_random_fields(value)
            for name, value in entry.items()
            if name not in RANDOM_FIELDS | masked
        }
    return entry


def test_fresh_vectors_differ_by_encapsulations_alone(tmp_path: Path) -> None:
    path = tmp_path / "vectors.json"
    script = Path(make_vectors.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(script), str(path)], check=True, env=environment)
    fresh = json.loads(path.read_text())
    assert fresh["boxes"] != VECTORS["boxes"]
    assert fresh["sums"] == VECTORS["sums"]
    assert without_random_fields(fresh) == without_random_fields(VECTORS)
