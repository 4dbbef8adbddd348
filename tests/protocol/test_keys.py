from __future__ import annotations

import dataclasses
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import ProtocolError
from fedlens.protocol.codec import decode, sign
from fedlens.protocol.keys import (
    KEM_KEY_BYTES,
    KEM_TEXT_BYTES,
    PUBLIC_BYTES,
    SEED_BYTES,
    TAG_BYTES,
    X25519_BYTES,
    HybridKey,
    check_public,
    decrypt,
    deposit,
    derive,
    encapsulate,
    encrypt,
    fresh_seed,
    open_deposit,
    pair_secret,
)
from fedlens.protocol.messages import Keys
from fedlens.protocol.roster import SIGNATURE_BYTES
from fedlens.protocol.session import read_all_keys, read_keys
from tests.protocol.federation import Federation

ALICE = bytes([1]) * SEED_BYTES
BOB = bytes([2]) * SEED_BYTES
SECRETS = st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES)


# Whoever agrees with one of these points gets zeros (RFC 7748, section 6.1): 0, 1, two of order 8, p - 1,
# p, p + 1, and 0 with the bit set that every reader ignores.
LOW_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
)


def hkdf(secret: bytes, info: bytes, size: int, salt: bytes = bytes(32)) -> bytes:
    """RFC 5869 with nothing but HMAC."""
    key = hmac.digest(salt, secret, "sha256")
    output, block = b"", b""
    while len(output) < size:
        block = hmac.digest(key, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:size]


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def test_hkdf_gives_the_known_answers_of_rfc_5869() -> None:
    secret = bytes([0x0B]) * 22
    first = HKDF(
        SHA256(),
        42,
        salt=bytes.fromhex("000102030405060708090a0b0c"),
        info=bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"),
    )
    assert first.derive(secret).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert HKDF(SHA256(), 42, salt=None, info=b"").derive(secret).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@settings(deadline=None, max_examples=60)
@given(
    st.binary(max_size=80), st.text("abcdefgh 0123-", max_size=12), st.binary(max_size=60), st.integers(1, 99)
)
def test_derived_keys_are_hkdf_of_label_purpose_and_context(
    secret: bytes, purpose: str, context: bytes, size: int
) -> None:
    info = b"fedlens/1/" + purpose.encode() + b"\0" + context
    assert derive(secret, purpose, context, size) == hkdf(secret, info, size)


def test_purpose_context_and_secret_each_change_everything() -> None:
    derived = [
        derive(ALICE, "box", b"context"),
        derive(ALICE, "mask", b"context"),
        derive(ALICE, "box", b"contexu"),
        derive(ALICE, "box", b""),
        derive(BOB, "box", b"context"),
        derive(ALICE, "boxc", b"ontext"),
    ]
    assert len({key[:4] for key in derived}) == len(derived)
    assert {len(key) for key in derived} == {SEED_BYTES}


def test_x25519_gives_the_known_answers_of_rfc_7748() -> None:
    kem = MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    alice = HybridKey(
        X25519PrivateKey.from_private_bytes(
            bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
        ),
        kem,
    )
    bob = HybridKey(
        X25519PrivateKey.from_private_bytes(
            bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
        ),
        kem,
    )
    assert alice.public()[:X25519_BYTES].hex() == (
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    )
    assert bob.public()[:X25519_BYTES].hex() == (
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.agree(bob.public()).hex() == bob.agree(alice.public()).hex() == shared


def test_both_keys_follow_from_the_seed_by_purpose() -> None:
    key = HybridKey.from_seed(ALICE, "mask")
    assert key.x25519.private_bytes_raw() == hkdf(ALICE, b"fedlens/1/mask x25519\0", 32)
    assert key.kem.private_bytes_raw() == hkdf(ALICE, b"fedlens/1/mask ml-kem-768\0", 64)


def test_public_keys_are_x25519_then_ml_kem() -> None:
    key = HybridKey.from_seed(ALICE, "mask")
    public = key.public()
    assert len(public) == PUBLIC_BYTES == X25519_BYTES + KEM_KEY_BYTES
    assert public[:X25519_BYTES] == key.x25519.public_key().public_bytes_raw()
    assert public[X25519_BYTES:] == key.kem.public_key().public_bytes_raw()


def test_one_seed_gives_unrelated_keys_for_two_purposes() -> None:
    box, mask = (HybridKey.from_seed(ALICE, purpose).public() for purpose in ("box", "mask"))
    assert box[:X25519_BYTES] != mask[:X25519_BYTES]
    assert box[X25519_BYTES:] != mask[X25519_BYTES:]
    assert HybridKey.from_seed(ALICE, "box").public() == box


@settings(deadline=None, max_examples=20)
@given(SECRETS, SECRETS)
def test_two_hospitals_agree_on_one_secret(first: bytes, second: bytes) -> None:
    alice, bob = HybridKey.from_seed(first, "mask"), HybridKey.from_seed(second, "mask")
    assert alice.agree(bob.public()) == bob.agree(alice.public())
    secret, text = encapsulate(bob.public())
    assert (len(secret), len(text)) == (32, KEM_TEXT_BYTES)
    assert bob.decapsulate(text) == secret


def test_every_encapsulation_is_fresh() -> None:
    public = HybridKey.from_seed(ALICE, "box").public()
    (first, first_text), (second, second_text) = encapsulate(public), encapsulate(public)
    assert first != second
    assert first_text != second_text


@pytest.mark.parametrize("place", [0, 500, KEM_TEXT_BYTES - 1])
def test_an_altered_key_ciphertext_gives_an_unrelated_secret(place: int) -> None:
    key = HybridKey.from_seed(ALICE, "box")
    secret, text = encapsulate(key.public())
    other = key.decapsulate(flipped(text, place))
    assert len(other) == 32
    assert other != secret


def test_a_key_ciphertext_for_another_hospital_gives_an_unrelated_secret() -> None:
    secret, text = encapsulate(HybridKey.from_seed(ALICE, "box").public())
    assert HybridKey.from_seed(BOB, "box").decapsulate(text) != secret


@pytest.mark.parametrize("size", [0, KEM_TEXT_BYTES - 1, KEM_TEXT_BYTES + 1])
def test_a_key_ciphertext_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="A key ciphertext cannot be read"):
        HybridKey.from_seed(ALICE, "box").decapsulate(bytes(size))


@pytest.mark.parametrize(
    "public", [b"", bytes(31), bytes(PUBLIC_BYTES), (1).to_bytes(32, "little") + bytes(KEM_KEY_BYTES)]
)
def test_a_public_key_that_is_no_point_of_use_is_refused(public: bytes) -> None:
    with pytest.raises(ProtocolError, match="A public key cannot be used"):
        HybridKey.from_seed(ALICE, "box").agree(public)


@pytest.mark.parametrize("kem", [b"", bytes(KEM_KEY_BYTES - 1), b"\xff" * KEM_KEY_BYTES])
def test_nothing_is_encapsulated_to_a_malformed_key(kem: bytes) -> None:
    with pytest.raises(ProtocolError, match="A public key cannot be used"):
        encapsulate(bytes(X25519_BYTES) + kem)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_points_of_low_order_are_refused_in_their_owners_name(point: str) -> None:
    public = HybridKey.from_seed(BOB, "mask").public()
    check_public(public, "B")
    low = bytes.fromhex(point) + public[X25519_BYTES:]
    with pytest.raises(ProtocolError, match="A public key of B cannot be used"):
        check_public(low, "B")
    with pytest.raises(ProtocolError, match="A public key cannot be used"):
        HybridKey.from_seed(ALICE, "mask").agree(low)


@pytest.mark.parametrize(
    "kem", [b"", bytes(KEM_KEY_BYTES - 1), bytes(KEM_KEY_BYTES + 1), b"\xff" * KEM_KEY_BYTES]
)
def test_malformed_ml_kem_keys_are_refused_in_their_owners_name(kem: bytes) -> None:
    public = HybridKey.from_seed(BOB, "mask").public()
    with pytest.raises(ProtocolError, match="A public key of B cannot be used"):
        check_public(public[:X25519_BYTES] + kem, "B")


UNUSABLE = {
    "zero point": lambda key: bytes(X25519_BYTES) + key[X25519_BYTES:],
    "point of order 8": lambda key: bytes.fromhex(LOW_ORDER[2]) + key[X25519_BYTES:],
    "ml-kem": lambda key: key[:X25519_BYTES] + b"\xff" * KEM_KEY_BYTES,
}


@pytest.mark.parametrize("field", ["box_key", "mask_key"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_one_hospitals_unusable_keys_are_named_when_keys_are_read(field: str, kind: str) -> None:
    federation = Federation("ABC")
    current = federation.begin()
    asked = current.keys_request()
    contents = {name: hospital.keys(asked) for name, hospital in federation.hospitals.items()}
    assert set(read_all_keys(contents, current.stamp, federation.roster)) == set("ABC")
    keys = decode(contents["B"][:-SIGNATURE_BYTES], Keys)
    changed = dataclasses.replace(keys, **{field: UNUSABLE[kind](getattr(keys, field))})
    contents["B"] = sign(changed, federation.identities["B"])
    with pytest.raises(ProtocolError, match="A public key of B cannot be used"):
        read_keys(contents["B"], current.stamp, "B", federation.roster)
    with pytest.raises(ProtocolError, match="A public key of B cannot be used"):
        read_all_keys(contents, current.stamp, federation.roster)


def test_a_pair_secret_rests_on_both_agreements_purpose_and_context() -> None:
    found = {
        pair_secret(ALICE, BOB, "mask", b"c"),
        pair_secret(BOB, BOB, "mask", b"c"),
        pair_secret(ALICE, ALICE, "mask", b"c"),
        pair_secret(BOB, ALICE, "mask", b"c"),
        pair_secret(ALICE, BOB, "box", b"c"),
        pair_secret(ALICE, BOB, "mask", b"d"),
    }
    assert len(found) == 6
    assert pair_secret(ALICE, BOB, "mask", b"c") == hkdf(ALICE + BOB, b"fedlens/1/mask\0c", 32)


@settings(deadline=None, max_examples=60)
@given(SECRETS, st.binary(max_size=100), st.binary(max_size=50))
def test_what_is_encrypted_comes_back(key: bytes, plain: bytes, context: bytes) -> None:
    text = encrypt(key, plain, context)
    assert len(text) == len(plain) + TAG_BYTES
    assert text == AESGCM(key).encrypt(bytes(12), plain, context)
    assert decrypt(key, text, context, "a box") == plain


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=64), st.data())
def test_an_altered_ciphertext_is_refused(plain: bytes, data: st.DataObject) -> None:
    text = encrypt(ALICE, plain, b"context")
    place = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.integers(0, len(text) - 1))
    for wrong in (flipped(text, place), text[:cut], text + b"\0"):
        with pytest.raises(ProtocolError, match="The ciphertext of the box from B was altered"):
            decrypt(ALICE, wrong, b"context", "the box from B")


@pytest.mark.parametrize(("key", "context"), [(BOB, b"context"), (ALICE, b"contexu"), (ALICE, b"")])
def test_a_ciphertext_of_another_key_or_context_is_refused(key: bytes, context: bytes) -> None:
    text = encrypt(ALICE, b"plain", b"context")
    with pytest.raises(ProtocolError, match="The ciphertext of a box was altered, or made for another sum"):
        decrypt(key, text, context, "a box")


@settings(deadline=None, max_examples=40)
@given(SECRETS, st.dictionaries(st.integers(1, 255), SECRETS, max_size=8), st.binary(max_size=30))
def test_a_deposit_gives_back_its_secrets_by_index(
    seed: bytes, secrets: dict[int, bytes], context: bytes
) -> None:
    before = dict(secrets)
    assert open_deposit(seed, deposit(seed, secrets, context), context, "A") == secrets
    assert secrets == before


def test_a_deposit_does_not_depend_on_the_order_of_its_secrets() -> None:
    assert deposit(ALICE, {1: ALICE, 2: BOB}, b"") == deposit(ALICE, {2: BOB, 1: ALICE}, b"")


def test_a_deposit_of_another_seed_or_sum_or_an_altered_one_is_refused() -> None:
    text = deposit(ALICE, {1: BOB}, b"sum")
    for seed, content, context in (
        (BOB, text, b"sum"),
        (ALICE, text, b"other"),
        (ALICE, flipped(text, 3), b"sum"),
    ):
        with pytest.raises(ProtocolError, match="The ciphertext of A's deposit was altered"):
            open_deposit(seed, content, context, "A")


@pytest.mark.parametrize("size", [1, 33, 35])
def test_a_torn_deposit_is_refused(size: int) -> None:
    text = encrypt(derive(ALICE, "deposit", b"sum"), bytes(size), b"sum")
    with pytest.raises(ProtocolError, match="torn"):
        open_deposit(ALICE, text, b"sum", "A")


def test_a_fresh_seed_is_32_bytes_of_the_given_randomness() -> None:
    assert fresh_seed(lambda size: hashlib.shake_256(b"x").digest(size)) == hashlib.shake_256(b"x").digest(32)
    assert fresh_seed() != fresh_seed()
    assert len(fresh_seed()) == SEED_BYTES
