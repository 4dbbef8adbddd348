"""What a request must look like before anything else is asked, and what every answer says to the browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography import x509
from starlette.datastructures import Headers

from fedlens.errors import SettingsError
from fedlens.viewer.settings import ViewerSettings

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names by which a machine calls itself."""

ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})
"""Ways to say that all addresses of the machine are meant."""

METHODS = frozenset({"GET", "HEAD", "POST"})

_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_ONE_YEAR = 365 * 24 * 3600


def answer_headers(path: str, host: str, secure: bool) -> dict[str, str]:
    """Headers of the answer to a request; they replace what a route may have set.

    Args:
        path: Of the request.
        host: Name from the request, without its port.
        secure: Whether it came by TLS.
    """
    headers = {**_HEADERS, "Cache-Control": "no-cache" if is_static(path) else "no-store"}
    # The rule holds for all ports of a name: a machine's own name is not to be taken from other programs.
    if secure and host not in LOCAL:
        headers["Strict-Transport-Security"] = f"max-age={_ONE_YEAR}"
    return headers


def is_static(path: str) -> bool:
    """Whether an address is one of the files that come with the program."""
    return path.startswith("/static/")


def host_name(headers: Headers) -> str:
    """The name that a request speaks to, without its port; empty where it names none, or several."""
    named = headers.getlist("host")
    if len(named) != 1:
        return ""
    name, mark, port = named[0].lower().rpartition(":")
    if not mark or not (port.isascii() and port.isdecimal()):
        name = named[0].lower()
    return _plain(name)


def own_names(settings: ViewerSettings) -> frozenset[str]:
    """Names by which the viewer may be called: its address, the machine's own, and the certificate's.

    A page of another name that was made to lead here (DNS rebinding) is none of them.

    Raises:
        SettingsError: The certificate cannot be read.
    """
    names = set(LOCAL)
    if settings.host not in ANY_ADDRESS:
        names.add(_plain(settings.host.lower()))
    if settings.certificate is not None:
        names |= certificate_names(settings.certificate)
    return frozenset(names)


def is_own(name: str, names: Collection[str]) -> bool:
    """Whether a host name is one of ``names``, where ``*.example.org`` stands for one more part."""
    _, dot, rest = name.partition(".")
    return bool(name) and (name in names or (bool(dot) and f"*.{rest}" in names))


def comes_from_elsewhere(headers: Headers, method: str, scheme: str) -> bool:
    """Whether a browser says that another site's page made this request.

    Links from other sites may be followed; nothing else may be fetched, embedded or sent from there.

    Args:
        headers: Of the request; its ``Host`` was found to be one of ours.
        method: Of the request.
        scheme: ``http`` or ``https``.
    """
    site = headers.get("sec-fetch-site", "")
    if method == "POST":
        origin = headers.get("origin", "")
        # Browsers hide the origin of a form on a page that sends no referrer, and vouch for it otherwise.
        vouched = origin in ("", f"{scheme}://{headers['host']}") or (
            origin == "null" and site == "same-origin"
        )
        return not vouched or site not in ("", "same-origin")
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return site not in ("", "none", "same-origin") and not followed


def certificate_names(path: Path) -> set[str]:
    """Host names and addresses that a certificate speaks for.

    Raises:
        SettingsError: It cannot be read.
    """
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no PEM certificate"
        raise SettingsError(
            f"Cannot read the certificate {path}: {reason}.", fix="Give the chain as a PEM file."
        ) from error
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    hosts = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return hosts | {str(one) for one in names.get_values_for_type(x509.IPAddress)}


def _plain(name: str) -> str:
    """The name, an IPv6 address as browsers write it and without brackets."""
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return name
