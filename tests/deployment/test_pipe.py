"""Frames over a local socket, and who may connect to it."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.deployment.pipe import connect, listen, receive_frame, refuse_others, send_frame
from fedlens.errors import DeploymentError

MOST_BLOB = 1 << 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    # A frame that is waited for in vain fails its test instead of hanging it.
    other.settimeout(5)
    with one, other:
        yield one, other


def through(*frames: tuple[dict[str, Any], list[bytes]]) -> list[tuple[dict[str, Any], list[bytes]]]:
    """What is received of frames sent one after another."""
    one, other = socket.socketpair()

    def send() -> None:
        with one:
            for header, blobs in frames:
                send_frame(one, header, *blobs)

    with other:
        sender = threading.Thread(target=send)
        sender.start()
        received = [receive_frame(other) for _ in frames]
        sender.join()
        with pytest.raises(EOFError):
            receive_frame(other)
    return received


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text().filter(lambda key: key != "sizes"), JSON, max_size=4),
            st.lists(st.binary(max_size=300), max_size=3),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_frames_arrive_as_they_were_sent(frames: list[tuple[dict[str, Any], list[bytes]]]) -> None:
    assert through(*frames) == frames


def test_a_blob_larger_than_the_sockets_buffers_arrives_whole() -> None:
    blob = os.urandom(3 << 20)
    assert through(({"a": 1}, [b"", blob, b"x"])) == [({"a": 1}, [b"", blob, b"x"])]


def test_views_are_sent_without_being_bytes(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    send_frame(one, {}, memoryview(b"abcdef")[2:4])
    assert receive_frame(other) == ({}, [b"cd"])


def test_nothing_is_sent_after_the_last_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    """The receiver of a whole frame may answer and close at once; sending on would lose its answer."""
    one, other = pair
    sent = one.dup()

    class Swift:
        """Reads and answers as soon as the frame is whole."""

        def sendall(self, data: bytes) -> None:
            sent.sendall(data)
            if bytes(data) == b"last":
                receive_frame(other)
                send_frame(other, {"answer": 1})
                other.close()

    with sent:
        send_frame(cast(socket.socket, Swift()), {}, b"", b"last", b"")
    assert receive_frame(one) == ({"answer": 1}, [])


@pytest.mark.parametrize("length", [0, 1, 3, 4, 10, -1])
def test_a_frame_that_breaks_off_is_no_frame(pair: tuple[socket.socket, socket.socket], length: int) -> None:
    one, other = pair
    text = json.dumps({"sizes": [5]}).encode()
    whole = struct.pack(">I", len(text)) + text + b"12345"
    one.sendall(whole[:length])
    one.close()
    with pytest.raises(EOFError, match="closed the connection"):
        receive_frame(other)


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"\xff\xfe",
        b"null",
        b"17",
        b'"sizes"',
        b'["sizes"]',
        b"{}",
        b'{"sizes": 3}',
        b'{"sizes": null}',
        b'{"sizes": [null]}',
        b'{"sizes": ["x"]}',
        b'{"sizes": [[1]]}',
        b'{"sizes": [NaN]}',
        b'{"sizes": [Infinity]}',
        b'{"sizes": [-1]}',
        json.dumps({"sizes": [0, MOST_BLOB + 1]}).encode(),
        json.dumps({"sizes": [10**400]}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_frame_is_refused_before_anything_is_made_of_it(
    pair: tuple[socket.socket, socket.socket], text: bytes
) -> None:
    one, other = pair
    one.sendall(struct.pack(">I", len(text)) + text)
    with pytest.raises(DeploymentError, match="local socket"):
        receive_frame(other)


def test_a_table_that_claims_to_be_huge_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    one.sendall(struct.pack(">I", (1 << 20) + 1))
    with pytest.raises(DeploymentError, match="1048577 bytes"):
        receive_frame(other)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("folder", ["run", "run/" + "long-name-of-a-hospital/" * 8])
def test_only_this_user_can_reach_a_service_however_long_its_path(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "service.sock"
    if "long" in folder:
        assert len(str(path)) > 108
    before = os.umask(0)
    try:
        server = listen(path)
    finally:
        os.umask(before)
    with server:
        assert (mode(path.parent), mode(path)) == (0o700, 0o600)
        assert stat.S_ISSOCK(path.stat().st_mode)
        with connect(path) as client:
            served, _ = server.accept()
            with served:
                refuse_others(served)
                send_frame(client, {"hello": 1})
                assert receive_frame(served) == ({"hello": 1}, [])


def test_a_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with listen(tmp_path / "run" / "service.sock"):
        assert mode(tmp_path / "run") == 0o700


def test_the_socket_of_a_dead_service_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "service.sock"
    listen(path).close()
    assert path.exists(), "a service that is killed leaves its socket"
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    with listen(path), connect(path):
        pass


def test_nobody_is_reached_where_no_service_was_started(tmp_path: Path) -> None:
    opened = len(list(Path("/proc/self/fd").iterdir()))
    for place in (tmp_path / "service.sock", tmp_path / "nowhere" / "service.sock"):
        with pytest.raises(FileNotFoundError):
            connect(place)
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_another_users_process_is_refused(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_others(pair[0])
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(DeploymentError, match=f"process of user {mine} connected"):
        refuse_others(pair[0])
