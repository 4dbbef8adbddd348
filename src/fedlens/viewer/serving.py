"""The viewer on a port: this machine's own by default, any other only with accounts and TLS."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from fedlens.errors import SettingsError
from fedlens.viewer.accounts import Accounts
from fedlens.viewer.request_rules import ANY_ADDRESS, certificate_names
from fedlens.viewer.settings import ViewerSettings

_MOST_CONNECTIONS = 500
_IDLE_CONNECTION = 15
_LAST_ANSWERS = 2
"""Seconds that answers under way get when the viewer is ended."""


class ViewerServer(uvicorn.Server):
    """A server that says when it is there, and goes quietly.

    Args:
        config: Its configuration.
        ready: Called once it answers.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; that browsers keep connections open until they are cut is no error to report."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def check(settings: ViewerSettings) -> None:
    """Refuse settings under which strangers could read along or look in.

    Raises:
        SettingsError: An address that other machines reach without accounts or TLS; a certificate without its
            key; a file that is missing or cannot be used.
    """
    if (settings.certificate is None) != (settings.key is None):
        raise SettingsError(
            "A certificate and its key go together.", fix="Give both --certificate and --key."
        )
    if not settings.loopback and (settings.accounts is None or settings.certificate is None):
        raise SettingsError(
            f"The viewer does not open to other machines at {settings.host} as it is.",
            why="Whoever reaches that address could see patients' images and read along.",
            fix="Give --accounts, --certificate and --key, or leave --host out for this machine alone.",
        )
    if settings.accounts is not None and not Accounts(settings.accounts).names():
        raise SettingsError(
            f"{settings.accounts} holds no account.",
            why="Nobody could log in.",
            fix=f"Make one with: fedlens account add {settings.accounts} NAME",
        )
    _tls(settings)


def serve(
    app: FastAPI,
    settings: ViewerSettings,
    *,
    ready: Callable[[str], object] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until interrupted; to be called by the main thread.

    Args:
        app: Of ``app.create_app``.
        settings: Where to listen.
        ready: Called with the address once it answers.
        say: Prints a line for the reader; standard output when None.

    Raises:
        SettingsError: As :func:`check`; the address is taken or none of this machine's.
    """
    check(settings)
    with listening(settings) as port:
        server = server_at(app, settings, port, ready=ready, say=say or _print)
        # A service manager's signal ends it as Ctrl-C does: what the caller opened is closed, too.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            # The server gives the signal back when it has ended.
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[port])
        finally:
            signal.signal(signal.SIGTERM, before)


def server_at(
    app: FastAPI,
    settings: ViewerSettings,
    port: socket.socket,
    *,
    ready: Callable[[str], object] | None,
    say: Callable[[str], None],
) -> ViewerServer:
    """The server of :func:`serve`, not begun; its ``should_exit`` ends it."""
    # No line for each request: addresses and times of who looked at what are the audit log's alone.
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_CONNECTION,
        timeout_graceful_shutdown=_LAST_ANSWERS,
    )
    config.load()
    config.ssl = _tls(settings)
    address = _address(settings, port.getsockname()[1])

    def announce() -> None:
        say(f"FedLens viewer at {address}\nEnd with Ctrl-C.")
        if ready is not None:
            ready(address)

    return ViewerServer(config, announce)


def listening(settings: ViewerSettings) -> socket.socket:
    """A socket that listens where the settings say; to be closed.

    Raises:
        SettingsError: The address is taken, or none of this machine's.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, *_, place = found[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.",
            fix="Choose another --port or --host, or end what listens there.",
        ) from error


def _tls(settings: ViewerSettings) -> ssl.SSLContext | None:
    """What encrypts connections, TLS 1.2 or later; None where nothing does."""
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask for one and wait.
        context.load_cert_chain(settings.certificate, settings.key, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"Cannot use the certificate {settings.certificate} with key {settings.key}: {_reason(error)}.",
            fix="Give a PEM file with the chain, and one with its key without a password.",
        ) from error
    return context


def _address(settings: ViewerSettings, port: int) -> str:
    host = settings.host
    if host in ANY_ADDRESS and settings.certificate is not None:
        named = sorted(name for name in certificate_names(settings.certificate) if "*" not in name)
        host = next(iter(named), host)
    scheme = "https" if settings.certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"


def _reason(error: Any) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def _print(text: str) -> None:
    print(text, flush=True)
