"""Messages as bytes: a small JSON header and named arrays in one safetensors blob.

A field of a message is text, a number, a list of names, bytes or a view of them, another table of such
fields, or a table of named arrays or of named bytes. Bytes travel as arrays of uint8. Nothing that is
read can run code, and whatever is wrong with a message, reading it raises a
:class:`~fedlens.errors.ProtocolError`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

import numpy as np

from fedlens.errors import ProtocolError
from fedlens.protocol.messages import Array, Blobs, Parameters
from fedlens.protocol.roster import SIGNATURE_BYTES, Identity, Roster

M = TypeVar("M")
_HEADER = "fedlens"
_DTYPES = (np.dtype(np.float32), np.dtype(np.int64))
_KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8"), "U8": np.dtype("u1")}
_INT64 = range(-(2**63), 2**63)
# RecursionError: JSON nested thousands deep. OverflowError: sizes beyond 64 bits.
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def encode(message: Any) -> bytes:
    """One message as bytes; the message's arrays are only read.

    Raises:
        ProtocolError: An array is neither float32 nor int64, or a number in the header is not finite.
    """
    try:
        return _write_blob(_header_text(message), dict(_arrays(message)))
    except ValueError as error:
        raise ProtocolError(
            f"A message of kind {message.kind} cannot be sent: {error}.",
            fix="Training has probably diverged: lower training.learning_rate.",
        ) from error


def decode(content: bytes | memoryview, expected: type[M]) -> M:
    """The message in ``content``; its arrays come sorted by name, and are read-only views of it.

    Raises:
        ProtocolError: Truncated, of another kind, with missing, unknown or wrongly typed fields, or
            with numbers in the header that are not finite.
    """
    kind = expected.kind  # type: ignore[attr-defined]
    try:
        header = _header(content)
        if (found := header.pop("kind")) != kind:
            raise ValueError(f"its kind is {found!r}")
        arrays = _read_arrays(content)
        return expected(**_fields(expected, header, arrays))
    except _UNREADABLE as error:
        raise ProtocolError(
            f"A message of kind {kind} cannot be read: {str(error)[:200]}.",
            fix="Check that both sides run the same version of FedLens.",
        ) from error


def kind_of(content: bytes) -> str:
    """The kind of a message, read from its header alone.

    Raises:
        ProtocolError: Not a message.
    """
    try:
        return str(_header(content)["kind"])
    except _UNREADABLE as error:
        raise ProtocolError(
            f"This is not a message: {str(error)[:200]}.",
            fix="Check that both sides run the same version of FedLens.",
        ) from error


def digest(message: Any, *, without: str = "", known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over a message's fields and arrays, hexadecimal.

    Args:
        message: Of any kind.
        without: A field of bytes that does not count.
        known: Digests of arrays by their names in the message (``field/name``), where the caller has them.
    """
    arrays = {name: array for name, array in _arrays(message) if name != without}
    return hashlib.sha256(f"{_header_text(message)}{arrays_digest(arrays, known)}".encode()).hexdigest()


def arrays_digest(arrays: Parameters, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 over names, types, shapes and content digests of named arrays, hexadecimal.

    Args:
        arrays: Only read, and not copied.
        known: Content digests by name, where the caller has them.
    """
    entries = [
        [name, str(array.dtype), array.shape, (known or {}).get(name) or array_digest(array)]
        for name, array in sorted(arrays.items())
    ]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def array_digest(array: Array) -> str:
    """SHA-256 over an array's bytes in row order, hexadecimal."""
    return hashlib.sha256(np.asarray(array, order="C").data).hexdigest()


def sign(message: Any, identity: Identity) -> bytes:
    """A message as bytes with its sender's signature behind it."""
    content = encode(message)
    return content + identity.sign(message.kind, content)


def read_signed(content: bytes, expected: type[M], roster: Roster, sender: str, *, most: int) -> M:
    """The message that a member of the roster signed.

    Args:
        content: From :func:`sign`.
        expected: Its kind.
        roster: Whose keys count.
        sender: Who must have signed it.
        most: Bytes beyond which it is not even looked at.

    Raises:
        ProtocolError: Truncated, oversized, of another kind, or not signed by the sender.
    """
    kind = expected.kind  # type: ignore[attr-defined]
    if not SIGNATURE_BYTES < len(content) <= most:
        raise ProtocolError(
            f"A message of kind {kind} in the name of {sender[:40]} has {len(content)} bytes.",
            why=f"It has {SIGNATURE_BYTES + 1} to {most}.",
        )
    signed = memoryview(content)[:-SIGNATURE_BYTES]
    roster.verify(sender, kind, signed, bytes(content[-SIGNATURE_BYTES:]))
    return decode(signed, expected)


def array_bytes(content: bytes) -> int:
    """Bytes of a message's arrays, without the few hundred of its header.

    The header's length depends on how many digits a wall time has; this does not.
    """
    return max(0, len(content) - 8 - int.from_bytes(content[:8], "little"))


def _header_text(message: Any) -> str:
    header = {"kind": message.kind} | {
        name: _plain(getattr(message, name))
        for name, wanted in _types(type(message)).items()
        if _is_plain(wanted)
    }
    return json.dumps(header, sort_keys=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return value


def _arrays(message: Any) -> Iterator[tuple[str, Array]]:
    """Name in the blob and content of everything that is no header field."""
    for name, wanted in _types(type(message)).items():
        value = getattr(message, name)
        if wanted is bytes or wanted is memoryview:
            yield name, np.frombuffer(value, np.uint8)
        elif wanted == Parameters:
            # Not ascontiguousarray: it would turn a step counter of shape () into (1,).
            for key, array in value.items():
                _check_type(key, array)
                yield f"{name}/{key}", np.asarray(array, order="C")
        elif wanted == Blobs:
            yield from ((f"{name}/{key}", np.frombuffer(blob, np.uint8)) for key, blob in value.items())


def _types(kind: type[Any]) -> dict[str, Any]:
    """Declared type of each field of a message class, in order."""
    return _declared(cast(Any, kind))


@cache
def _declared(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def _is_plain(wanted: Any) -> bool:
    return wanted not in (bytes, memoryview, Parameters, Blobs)


def _header(content: bytes | memoryview) -> dict[str, Any]:
    """The message's header fields and its ``kind``, unchecked."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(bytes(content[8 : 8 + length]).decode())["__metadata__"][_HEADER])
    if not isinstance(header, dict):
        raise TypeError("its header is not a table")
    return header


def _write_blob(header: str, arrays: Parameters) -> bytes:
    """A safetensors blob: eight bytes of length, a JSON table padded to eight, then arrays by size of type.

    Joined in one go: the library's own writer copies every array twice.
    """
    table: dict[str, Any] = {"__metadata__": {_HEADER: header}}
    end = 0
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, array in ordered:
        start, end = end, end + array.nbytes
        kind = next(code for code, dtype in _KINDS.items() if dtype == array.dtype)
        table[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *(array.data for _, array in ordered)))


def _read_arrays(content: bytes | memoryview) -> Parameters:
    """The arrays of a safetensors blob, as views of it.

    The library's own reader copies every array twice, which costs more than opening a sum.
    """
    length = int.from_bytes(content[:8], "little")
    table: dict[str, Any] = json.loads(bytes(content[8 : 8 + length]).decode())
    data = memoryview(content)[8 + length :]
    entries = [
        (entry["data_offsets"], name, entry) for name, entry in table.items() if name != "__metadata__"
    ]
    arrays: Parameters = {}
    end = 0
    for (start, stop), name, entry in sorted(entries, key=lambda one: (one[0], one[1])):
        kind, shape = _KINDS.get(entry["dtype"]), entry["shape"]
        if kind is None:
            raise ValueError(
                f"array {name.partition('/')[2]} is {str(entry['dtype'])[:9]}, not float32 or int64"
            )
        if any(type(number) is not int or number < 0 for number in (start, stop, *shape)):
            raise ValueError(f"array {name} has no shape or place")
        if start != end or stop - start != math.prod(shape) * kind.itemsize or stop > len(data):
            raise ValueError(f"array {name} does not lie where its shape says")
        flat = np.frombuffer(data[start:stop], kind) if stop > start else np.zeros(0, kind)
        arrays[name] = flat.reshape(shape)
        end = stop
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes belong to no array")
    return dict(sorted(arrays.items()))


def _check_type(name: str, array: Array) -> None:
    if array.dtype not in _DTYPES:
        raise ValueError(f"array {name} is {array.dtype}, not float32 or int64")


def _fields(kind: type[Any], header: dict[str, Any], arrays: Parameters) -> dict[str, Any]:
    """All fields, each of the type that ``kind`` declares; every array must belong to one."""
    left = dict(arrays)
    values = _table(kind, header)
    for name, wanted in _types(kind).items():
        if wanted is bytes or wanted is memoryview:
            if name not in left:
                raise ValueError(f"field {name} is missing")
            octets = _octets(name, left.pop(name))
            values[name] = octets.tobytes() if wanted is bytes else octets.data
        elif not _is_plain(wanted):
            prefix = f"{name}/"
            own = {key: left.pop(key) for key in list(left) if key.startswith(prefix)}
            named = {key.removeprefix(prefix): array for key, array in own.items()}
            if wanted == Parameters:
                for key, array in named.items():
                    _check_type(key, array)
                values[name] = named
            else:
                values[name] = {key: _octets(key, array).tobytes() for key, array in named.items()}
    if left:
        raise ValueError(f"array {next(iter(left))} belongs to no field")
    return values


def _octets(name: str, array: Array) -> Array:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"field {name} is not bytes")
    return array


def _table(kind: type[Any], header: Any) -> dict[str, Any]:
    """Header fields, each of its declared type; JSON knows no such promise."""
    wanted = {name: hint for name, hint in _types(kind).items() if _is_plain(hint)}
    if not isinstance(header, dict) or set(header) != set(wanted):
        raise TypeError(f"its header does not hold just the fields {list(wanted)}")
    return {name: _value(name, header[name], hint) for name, hint in wanted.items()}


def _value(name: str, value: Any, wanted: Any) -> Any:
    if is_dataclass(wanted) and isinstance(wanted, type):
        return wanted(**_table(wanted, value))
    if wanted is str and isinstance(value, str):
        return value
    if wanted is int and type(value) is int and value in _INT64:
        return value
    if wanted is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if wanted == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise TypeError(f"its field {name} is {str(value)[:40]!r}, not {wanted}")
