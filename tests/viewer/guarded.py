"""A small application behind the guard, for tests of the guard itself."""

from __future__ import annotations

import datetime
import ipaddress
import re
from pathlib import Path
from typing import Annotated

from argon2 import PasswordHasher
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.testclient import TestClient

from fedlens.viewer.accounts import Accounts
from fedlens.viewer.audit import AuditLog
from fedlens.viewer.guard import Guard
from fedlens.viewer.login import login_router
from fedlens.viewer.pages import STATIC
from fedlens.viewer.problems import problem
from fedlens.viewer.settings import ViewerSettings

ADDRESS = "http://127.0.0.1:8765"
PATIENT = "Doe^Jane"
PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PAGE = {"Accept": "text/html"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_accounts(folder: Path, *names: str) -> Accounts:
    """Accounts with one password."""
    accounts = Accounts(folder / "accounts.json", CHEAP)
    for name in names:
        accounts.add(name, PASSWORD)
    return accounts


def make_app(
    folder: Path,
    settings: ViewerSettings | None = None,
    accounts: Accounts | None = None,
    clock: Clock | None = None,
) -> FastAPI:
    """Routes that show what they were given; the audit log is ``folder/audit.jsonl``."""
    settings = settings or ViewerSettings(reviewer="Dr Test", largest_upload=1_000_000)
    app = FastAPI()
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/")
    @app.get("/waiting")
    def seen(request: Request) -> dict[str, object]:
        state = request.state
        return {"reviewer": state.reviewer, "csrf": state.csrf, "login": state.login}

    @app.get("/page")
    def page(request: Request) -> Response:
        return problem(request, 200, "Nothing to see.")

    @app.post("/note")
    def note(note: Annotated[str, Form()]) -> dict[str, str]:
        return {"note": note}

    @app.post("/upload")
    def upload(files: Annotated[list[UploadFile], File()]) -> list[int]:
        return [len(file.file.read()) for file in files]

    @app.get("/careless")
    def careless() -> Response:
        return Response(headers={"Content-Security-Policy": "default-src *", "Cache-Control": "public"})

    @app.get("/broken")
    def broken() -> None:
        raise ValueError(f"{PATIENT} has no pixels")

    guard = Guard.install(app, settings, accounts, AuditLog(folder / "audit.jsonl"), clock or Clock())
    app.include_router(login_router(guard))
    return app


def visit(app: FastAPI, address: str = ADDRESS) -> TestClient:
    """A browser with an empty cookie jar that follows no redirect."""
    return TestClient(app, base_url=address, follow_redirects=False)


def form_token(client: TestClient, path: str = "/login") -> str:
    """The token in a page's form."""
    found = re.search('name="csrf" value="([^"]+)"', client.get(path, headers=PAGE).text)
    assert found is not None
    return found[1]


def log_in(client: TestClient, name: str, password: str = PASSWORD) -> int:
    """Send the log-in form; returns the answer's status."""
    fields = {"csrf": form_token(client), "name": name, "password": password}
    return client.post("/login", data=fields).status_code


def make_certificate(folder: Path, *names: str, password: bytes = b"") -> tuple[Path, Path]:
    """A certificate that signs itself for these host names and addresses, and its key."""
    closed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "viewer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "viewer.pem", folder / "viewer.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, closed)
    )
    return files


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
