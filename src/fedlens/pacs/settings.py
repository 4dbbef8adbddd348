"""Where a PACS is, how to get in, and which images are wanted."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from fedlens.errors import SettingsError

FORMS = "dicom://AETITLE@HOST:PORT, dicom+tls://AETITLE@HOST:PORT, https://HOST/dicom-web"
_AET = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")
_DATES = re.compile(r"\d{8}|\d{8}-|-\d{8}|\d{8}-\d{8}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Tls:
    """Certificates for an encrypted connection.

    Attributes:
        authority: PEM file of who signed the server's certificate; the system's authorities when None.
        certificate: PEM file to show to the server, if it asks for one.
        key: PEM file of that certificate's key.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("A certificate and its key go together.", fix="Give both --cert and --key.")
        for file in filter(None, (self.authority, self.certificate, self.key)):
            if not file.is_file():
                raise SettingsError(f"{file} is no file.")

    def context(self) -> ssl.SSLContext:
        """What a client connects with; TLS 1.2 or later, the server's name is checked.

        Raises:
            SettingsError: A file holds no certificate or no key.
        """
        try:
            context = ssl.create_default_context(cafile=self.authority)
            if self.certificate is not None and self.key is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"The certificates cannot be used: {error}.", fix="Give PEM files to --ca, --cert and --key."
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


@dataclass(frozen=True)
class DimseServer:
    """A PACS that speaks DICOM's own protocol (PS3.7, PS3.8).

    Attributes:
        host: Name or address.
        port: Its port.
        title: Its AE title.
        own_title: Ours, as the PACS knows it.
        tls: Encrypt with these certificates; None for a connection in the clear.
        move_port: Have images sent to this port of ours (C-MOVE); over the same connection when None (C-GET).
        timeout: Seconds to wait for an answer.
    """

    host: str
    port: int
    title: str
    own_title: str = "FEDLENS"
    tls: Tls | None = None
    move_port: int | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for title in (self.title, self.own_title):
            if not _AET.fullmatch(title):
                raise SettingsError(
                    f"{title!r} is no AE title.", why="It has 1 to 16 letters, digits or signs, no backslash."
                )
        if self.move_port is not None and not 1 <= self.move_port < 65536:
            raise SettingsError(f"{self.move_port} is no port.", fix="Choose one from 1 to 65535.")


@dataclass(frozen=True)
class WebServer:
    """A PACS that speaks DICOMweb (PS3.18).

    Attributes:
        url: Root of its services.
        user: Name for basic authentication; none when empty.
        password: To go with it.
        token: Bearer token; none when empty.
        tls: Certificates.
        timeout: Seconds to wait for an answer.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls: Tls = field(default_factory=Tls)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if self.user and self.token:
            raise SettingsError("Both a user and a token were given.", fix="Give one of them.")
        if parts.scheme == "http" and (self.user or self.token) and not _loopback(parts.hostname or ""):
            raise SettingsError(
                f"A password or token would go to {self.url} unencrypted.", fix="Use https://."
            )


Server = DimseServer | WebServer


@dataclass(frozen=True)
class Wanted:
    """Which images to pull; what is empty does not narrow the search.

    Attributes:
        patient: Patient ID.
        study: Study Instance UID.
        series: Series Instance UID.
        accession: Accession number.
        modality: As in DICOM: MR, CT, CR, DX, ...
        dates: Study date ``YYYYMMDD``, or a range ``YYYYMMDD-YYYYMMDD`` of which one end may be open.
        limit: Most images to pull.
    """

    patient: str = ""
    study: str = ""
    series: str = ""
    accession: str = ""
    modality: str = ""
    dates: str = ""
    limit: int = 10_000

    def __post_init__(self) -> None:
        if not (self.patient or self.study or self.series or self.accession or self.dates):
            raise SettingsError(
                "Nothing says which images to pull.",
                why="Without it the whole archive would come.",
                fix="Give --patient, --study, --series, --accession or --dates.",
            )
        if self.series and not self.study:
            raise SettingsError("A series is looked for within its study.", fix="Give --study too.")
        for uid in filter(None, (self.study, self.series)):
            if not is_uid(uid):
                raise SettingsError(f"{uid!r} is no UID.")
        for name in ("patient", "accession", "modality"):
            if any(sign in getattr(self, name) for sign in "*?\\"):
                raise SettingsError(
                    f"{name} {getattr(self, name)!r} has a wild card.", fix="Name it in full."
                )
        if self.dates and not _DATES.fullmatch(self.dates):
            raise SettingsError(f"{self.dates!r} are no dates.", fix="Write them like 20260101-20260331.")
        if self.limit < 1:
            raise SettingsError(f"A limit of {self.limit} images pulls nothing.")

    def study_keys(self) -> dict[str, str]:
        """What a study has to match: DICOM keyword to value."""
        keys = {
            "PatientID": self.patient,
            "StudyInstanceUID": self.study,
            "AccessionNumber": self.accession,
            "StudyDate": self.dates,
        }
        return {keyword: value for keyword, value in keys.items() if value}

    def series_keys(self) -> dict[str, str]:
        """What a series has to match."""
        keys = {"SeriesInstanceUID": self.series, "Modality": self.modality}
        return {keyword: value for keyword, value in keys.items() if value}


def parse_server(
    address: str,
    *,
    own_title: str = "FEDLENS",
    move_port: int | None = None,
    user: str = "",
    password: str = "",
    token: str = "",
    tls: Tls | None = None,
    timeout: float = 60.0,
) -> Server:
    """The server that an address stands for; its scheme says which protocol.

    Args:
        address: ``dicom://AETITLE@HOST:PORT``, ``dicom+tls://...``, ``https://...`` or ``http://...``.
        own_title: Our AE title.
        move_port: For C-MOVE instead of C-GET.
        user: For basic authentication.
        password: To go with it.
        token: Bearer token.
        tls: Certificates.
        timeout: Seconds.

    Raises:
        SettingsError: The address has another form, or holds a password.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise SettingsError(
            f"{address!r} is no address of a PACS: {error}.", fix=f"Forms: {FORMS}."
        ) from error
    if parts.password:
        raise SettingsError(
            "The address holds a password.",
            why="Others on this machine can read command lines.",
            fix="Give it in the environment variable FEDLENS_PACS_PASSWORD, and --user.",
        )
    if parts.scheme in ("http", "https") and parts.hostname:
        return WebServer(address.rstrip("/"), user, password, token, tls or Tls(), timeout)
    if parts.scheme in ("dicom", "dicom+tls") and parts.hostname and parts.username and port:
        secure = (tls or Tls()) if parts.scheme == "dicom+tls" else None
        return DimseServer(parts.hostname, port, parts.username, own_title, secure, move_port, timeout)
    raise SettingsError(f"{address!r} is no address of a PACS.", fix=f"Forms: {FORMS}.")


def is_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5 9), and so harmless as a file's name."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
