"""Frames over a Unix socket between the two halves of a hospital: the relay and the service.

A frame is a JSON table and some blobs: four bytes with the table's length, the table, the blobs. The
table's ``sizes`` says how long they are.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from fedlens.errors import DeploymentError

_LENGTH = struct.Struct(">I")
_MOST_HEADER = 1 << 20
_MOST_BLOB = 1 << 32
_PEER = struct.Struct("3i")


def send_frame(connection: socket.socket, header: dict[str, Any], *blobs: bytes | memoryview) -> None:
    """Write one frame.

    Raises:
        OSError: The other side is gone.
    """
    text = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    connection.sendall(_LENGTH.pack(len(text)) + text)
    for blob in blobs:
        # Not even nothing is sent after the last byte: whoever has the whole may have answered and gone.
        if len(blob):
            connection.sendall(blob)


def receive_frame(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """Read one frame.

    Raises:
        EOFError: The other side is gone.
        DeploymentError: What came is no frame.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _MOST_HEADER:
        raise DeploymentError(f"A frame's table of {length} bytes came over the local socket.")
    try:
        header = json.loads(_exactly(connection, length))
        sizes = [int(size) for size in header.pop("sizes")]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DeploymentError(f"What came over the local socket is no frame: {error}.") from error
    if any(not 0 <= size <= _MOST_BLOB for size in sizes):
        raise DeploymentError(f"A frame with blobs of {sizes} bytes came over the local socket.")
    return header, [_exactly(connection, size) for size in sizes]


def listen(path: Path) -> socket.socket:
    """A socket that only this user can connect to; one that a dead service left is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _at(path, server.bind)
    path.chmod(0o600)
    server.listen()
    return server


def connect(path: Path) -> socket.socket:
    """Connect to a service.

    Raises:
        OSError: Nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _at(path, connection.connect)
    except OSError:
        connection.close()
        raise
    return connection


def refuse_others(connection: socket.socket) -> None:
    """Refuse a peer that runs as another user, whatever the file modes say.

    Raises:
        DeploymentError: It does.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(raw)
    if user != os.getuid():
        raise DeploymentError(f"A process of user {user} connected to the service of user {os.getuid()}.")


def _at(path: Path, act: Any) -> None:
    # A socket's address has room for 107 bytes; by way of the open folder any path will do.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        act(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _exactly(connection: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError("The other side closed the connection.")
        view = view[count:]
    return bytes(buffer)
