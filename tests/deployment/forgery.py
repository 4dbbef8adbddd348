"""What attackers bring to a coordinator's port: handshakes of their own and forged certificates."""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

HYBRID = 0x11EC
"""X25519MLKEM768 among the groups of TLS 1.3 (draft-ietf-tls-ecdhe-mlkem)."""
X25519 = 0x001D
TLS_1_3 = 0x0304


def field_of(content: bytes, size: int = 2) -> bytes:
    """A field of TLS's: its length, then its content."""
    return len(content).to_bytes(size, "big") + content


def client_hello(groups: dict[int, bytes], versions: tuple[int, ...]) -> bytes:
    """A ClientHello that offers these groups, with a key for each (RFC 8446, section 4.1.2)."""

    def numbers(*values: int) -> bytes:
        return b"".join(value.to_bytes(2, "big") for value in values)

    shares = b"".join(numbers(group) + field_of(key) for group, key in groups.items())
    extensions = {
        0: field_of(b"\0" + field_of(b"localhost")),
        10: field_of(numbers(*groups)),
        13: field_of(numbers(0x0403, 0x0804, 0x0401, 0x0805, 0x0501, 0x0806, 0x0601)),
        16: field_of(field_of(b"h2", 1)),
        43: field_of(numbers(*versions), 1),
        51: field_of(shares),
    }
    listed = b"".join(numbers(kind) + field_of(content) for kind, content in extensions.items())
    suites = field_of(numbers(0x1301, 0x1302, 0x1303, 0xC02F, 0xC030))
    body = (
        numbers(0x0303) + os.urandom(32) + field_of(os.urandom(32), 1) + suites + b"\1\0" + field_of(listed)
    )
    return b"\x16\3\1" + field_of(b"\1" + field_of(body, 3))


def server_hello(port: int, hello: bytes) -> dict[int, bytes]:
    """Extensions of the ServerHello that a ClientHello is answered with."""
    with socket.create_connection(("localhost", port), 5) as connection:
        connection.sendall(hello)
        with connection.makefile("rb") as stream:
            kind, *_, high, low = stream.read(5)
            record = stream.read(high << 8 | low)
    # 22 is the handshake; 21 would be an alert.
    assert (kind, record[0]) == (22, 2), record.hex()
    rest = record[4 + 2 + 32 :]
    rest = rest[1 + rest[0] + 2 + 1 + 2 :]
    extensions = {}
    while len(rest) >= 4:
        size = int.from_bytes(rest[2:4], "big")
        extensions[int.from_bytes(rest[:2], "big")] = rest[4 : 4 + size]
        rest = rest[4 + size :]
    return extensions


def agreed(extensions: dict[int, bytes]) -> tuple[int, int, int]:
    """Version and group of a ServerHello, and the length of the server's key."""
    share = extensions[51]
    version = int.from_bytes(extensions[43], "big")
    return version, int.from_bytes(share[:2], "big"), int.from_bytes(share[2:4], "big")


def hybrid_key() -> bytes:
    kem = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
    return kem + X25519PrivateKey.generate().public_key().public_bytes_raw()


def certify(
    folder: Path,
    like: x509.Certificate,
    issuer: x509.Name,
    signer: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    days: tuple[int, int],
) -> tuple[Path, Path]:
    """A certificate with the name and purposes of another, valid between two days from today."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
    )
    for extension in like.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    certificate, private = folder / "client.crt", folder / "client.key"
    certificate.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


def true_certificate(federation: Path) -> x509.Certificate:
    path = federation / "hospitals" / "south" / "flare" / "startup" / "client.crt"
    return x509.load_pem_x509_certificate(path.read_bytes())


def unprovisioned(federation: Path, folder: Path) -> tuple[Path, Path]:
    """A certificate that names south and is signed by itself."""
    like, key = true_certificate(federation), ec.generate_private_key(ec.SECP256R1())
    return certify(folder, like, like.subject, key, key, (-1, 30))


def another_authority(federation: Path, folder: Path) -> tuple[Path, Path]:
    """One by the authority of another federation of the same name."""
    like = true_certificate(federation)
    signer, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    return certify(folder, like, like.issuer, signer, key, (-1, 30))


def by_our_authority(federation: Path, folder: Path, days: tuple[int, int]) -> tuple[Path, Path]:
    signer = serialization.load_pem_private_key((federation / "ca" / "rootCA.key").read_bytes(), None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    like, key = true_certificate(federation), ec.generate_private_key(ec.SECP256R1())
    return certify(folder, like, like.issuer, signer, key, days)


def expired(federation: Path, folder: Path) -> tuple[Path, Path]:
    """One by the federation's own authority that ended yesterday."""
    return by_our_authority(federation, folder, (-30, -1))


def of_tomorrow(federation: Path, folder: Path) -> tuple[Path, Path]:
    """One by the federation's own authority that does not hold yet."""
    return by_our_authority(federation, folder, (1, 30))
