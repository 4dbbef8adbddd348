"""Settings of the viewer."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field

from fedlens.settings import Settings

_MEBIBYTE = 2**20


class ViewerSettings(Settings):
    """How the viewer is reached, and what it takes.

    Attributes:
        host: Address to listen on; anything but loopback needs ``accounts``, ``certificate`` and ``key``.
        port: To listen on.
        certificate: TLS certificate chain, PEM.
        key: Its private key, PEM.
        accounts: File of accounts; everybody who reaches the address is ``reviewer`` where None.
        reviewer: Who reviews where nobody logs in.
        hospital: Whose images are shown; all that are here when empty.
        largest_upload: Bytes of one file.
        largest_image: Pixels of one image, all its frames counted.
        decode_seconds: Time that decoding one file may take.
        idle_minutes: After which a login ends.
        per_page: Cases on a page of the list.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65535)
    certificate: Path | None = None
    key: Path | None = None
    accounts: Path | None = None
    reviewer: str = Field(default="", max_length=64)
    hospital: str = ""
    largest_upload: int = Field(default=64 * _MEBIBYTE, ge=1)
    largest_image: int = Field(default=50_000_000, ge=1)
    decode_seconds: float = Field(default=20.0, gt=0)
    idle_minutes: float = Field(default=30.0, gt=0)
    per_page: int = Field(default=50, ge=1, le=500)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the viewer."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
