"""The viewer on a real port: what it refuses to open, its TLS, and bodies as they arrive."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.viewer.guarded import PASSWORD, make_accounts, make_app, make_certificate

from fedlens.errors import SettingsError
from fedlens.viewer.serving import check, listening, serve, server_at
from fedlens.viewer.settings import ViewerSettings

PATIENCE = 30.0
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'


@contextlib.contextmanager
def served(app: FastAPI, settings: ViewerSettings) -> Iterator[str]:
    """The application on a free port; gives its address."""
    began = threading.Event()
    addresses: list[str] = []

    def ready(address: str) -> None:
        addresses.append(address)
        began.set()

    with listening(settings) as port:
        server = server_at(app, settings, port, ready=ready, say=lambda text: None)
        thread = threading.Thread(target=lambda: server.run(sockets=[port]), daemon=True)
        thread.start()
        try:
            assert began.wait(PATIENCE)
            yield addresses[0]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def received(address: str, request: bytes) -> bytes:
    """What the server answers to these bytes; it is given no more."""
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer


def chunked(body: bytes) -> bytes:
    """One chunk of a body that does not say its length."""
    return b"%x\r\n" % len(body) + body + b"\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A viewer on loopback that takes files of up to a million bytes."""
    settings = ViewerSettings(port=0, largest_upload=1_000_000)
    with served(make_app(tmp_path_factory.mktemp("served"), settings), settings) as found:
        yield found


class Visitor:
    """A session on that viewer."""

    def __init__(self, address: str) -> None:
        seen = httpx.get(address)
        self.address = address
        self.head = (
            f"Host: {address.removeprefix('http://').rstrip('/')}\r\n"
            f"Cookie: {seen.headers['set-cookie'].partition(';')[0]}\r\n"
            f"X-CSRF-Token: {seen.json()['csrf']}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n"
        )

    def status(self, length: str, body: bytes) -> int:
        """Of the answer to an upload that is never finished."""
        request = f"POST /upload HTTP/1.1\r\n{self.head}{length}\r\n\r\n".encode() + body
        return int(received(self.address, request).split()[1])


def test_body_that_says_it_is_too_large_is_refused_before_it_is_sent(address: str) -> None:
    assert Visitor(address).status("Content-Length: 9000000000", b"") == 413


def test_chunked_body_is_refused_when_it_has_grown_too_large(address: str) -> None:
    chunk = b"186a0\r\n" + bytes(100_000) + b"\r\n"
    # Without its last chunk: the answer comes while the body is still arriving.
    assert Visitor(address).status("Transfer-Encoding: chunked", chunked(PART) + chunk * 12) == 413


def test_chunked_body_below_the_limit_is_taken(address: str) -> None:
    chunks = chunked(PART + bytes(900_000) + b"\r\n--x--\r\n") + b"0\r\n\r\n"
    assert Visitor(address).status("Transfer-Encoding: chunked", chunks) == 200


def test_two_lengths_are_refused(address: str) -> None:
    lengths = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 9000000"
    assert Visitor(address).status(lengths, b"0\r\n\r\n") in (400, 413)


def test_server_does_not_say_what_it_is(address: str) -> None:
    assert "server" not in httpx.get(address).headers


def test_no_request_is_logged(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    httpx.get(f"{address}nothing?patient=Doe")
    out, err = capfd.readouterr()
    assert "Doe" not in out + err
    assert "nothing" not in out + err


def test_only_tls_is_answered_where_there_is_a_certificate(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost", "127.0.0.1")
    accounts = make_accounts(tmp_path, "anna")
    settings = ViewerSettings(port=0, certificate=certificate, key=key, accounts=tmp_path / "accounts.json")
    with served(make_app(tmp_path, settings, accounts), settings) as address:
        assert re.fullmatch(r"https://127\.0\.0\.1:\d+/", address)
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=address, verify=trusted) as client:
            page = client.get("/login", headers={"Accept": "text/html"})
            token = re.search('name="csrf" value="([^"]+)"', page.text)
            assert token is not None
            fields = {"csrf": token[1], "name": "anna", "password": PASSWORD}
            assert client.post("/login", data=fields).status_code == 303
            assert client.get("/").json()["reviewer"] == "anna"
            assert [name for name in client.cookies if name.startswith("__Host-fedlens-")]
        with pytest.raises(httpx.HTTPError):
            httpx.get(address.replace("https", "http"))


def test_tls_is_1_2_or_later(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    settings = ViewerSettings(port=0, certificate=certificate, key=key)
    with listening(settings) as port:
        context = server_at(make_app(tmp_path), settings, port, ready=None, say=print).config.ssl
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "viewer.hospital.org", "", "127.0.0.1.org"])
@pytest.mark.parametrize("missing", ["accounts", "tls", "both"])
def test_other_machines_are_kept_out_without_accounts_and_tls(
    tmp_path: Path, host: str, missing: str
) -> None:
    certificate, key = make_certificate(tmp_path, "viewer.hospital.org")
    accounts = make_accounts(tmp_path, "anna")
    settings = ViewerSettings(
        host=host,
        accounts=tmp_path / "accounts.json" if missing == "tls" else None,
        certificate=certificate if missing == "accounts" else None,
        key=key if missing == "accounts" else None,
    )
    for refused in (lambda: check(settings), lambda: serve(make_app(tmp_path, None, accounts), settings)):
        with pytest.raises(SettingsError, match="does not open to other machines") as caught:
            refused()
        assert caught.value.why and "--accounts, --certificate and --key" in caught.value.fix


def test_what_is_safe_is_let_through(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "viewer.hospital.org")
    make_accounts(tmp_path, "anna")
    safe = {"accounts": tmp_path / "accounts.json", "certificate": certificate, "key": key}
    for settings in (
        ViewerSettings(),
        ViewerSettings(host="localhost"),
        ViewerSettings(host="::1"),
        ViewerSettings(accounts=tmp_path / "accounts.json"),
        ViewerSettings.model_validate({"host": "0.0.0.0", **safe}),
    ):
        check(settings)


def _without_key(folder: Path) -> ViewerSettings:
    return ViewerSettings(certificate=make_certificate(folder, "localhost")[0])


def _with_another_key(folder: Path) -> ViewerSettings:
    certificate, _ = make_certificate(folder, "localhost")
    (folder / "other").mkdir()
    return ViewerSettings(certificate=certificate, key=make_certificate(folder / "other", "localhost")[1])


def _with_no_certificate(folder: Path) -> ViewerSettings:
    return ViewerSettings(certificate=folder / "none.pem", key=folder / "none.key")


def _with_nobody(folder: Path) -> ViewerSettings:
    accounts = make_accounts(folder, "anna")
    accounts.remove("anna")
    return ViewerSettings(accounts=folder / "accounts.json")


def _without_accounts_file(folder: Path) -> ViewerSettings:
    return ViewerSettings(accounts=folder / "none.json")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_without_key, "A certificate and its key go together"),
        (_with_another_key, r"Cannot use the certificate .*viewer\.pem with key .*KEY_VALUES_MISMATCH"),
        (_with_no_certificate, r"Cannot use the certificate .*none\.pem with key .*No such file"),
        (_with_nobody, "holds no account"),
        (_without_accounts_file, "Cannot read the accounts"),
    ],
)
def test_files_that_do_not_serve_are_named(
    tmp_path: Path, make: Callable[[Path], ViewerSettings], what: str
) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        check(make(tmp_path))
    assert caught.value.fix


def test_key_with_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost", password=b"secret")
    with pytest.raises(SettingsError, match="Cannot use the certificate"):
        check(ViewerSettings(certificate=certificate, key=key))


def test_taken_port_is_named() -> None:
    with listening(ViewerSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Cannot listen on 127.0.0.1:{port}: Address already in use"):
            listening(ViewerSettings(port=port))
    with pytest.raises(SettingsError, match=r"Cannot listen on no-such-host\.invalid"):
        listening(ViewerSettings(host="no-such-host.invalid"))


def test_printed_address_is_one_that_the_certificate_speaks_for(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "*.ward.org", "viewer.hospital.org")
    make_accounts(tmp_path, "anna")
    settings = ViewerSettings(
        host="0.0.0.0", port=0, accounts=tmp_path / "accounts.json", certificate=certificate, key=key
    )
    with served(make_app(tmp_path, settings, make_accounts(tmp_path)), settings) as address:
        assert re.fullmatch(r"https://viewer\.hospital\.org:\d+/", address)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_quietly(tmp_path: Path, ending: signal.Signals) -> None:
    program = (
        "from fastapi import FastAPI\n"
        "from fedlens.viewer.serving import serve\n"
        "from fedlens.viewer.settings import ViewerSettings\n"
        "serve(FastAPI(), ViewerSettings(port=0))\n"
        "print('closed')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert re.fullmatch(r"FedLens viewer at http://127\.0\.0\.1:\d+/\n", said[0]), said
        assert said[1] == "End with Ctrl-C.\n"
        process.send_signal(ending)
        assert process.communicate(timeout=PATIENCE) == ("closed\n", "")
        assert process.returncode == 0
