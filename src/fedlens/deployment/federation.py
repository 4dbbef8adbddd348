"""The federation file: who takes part, and where the coordinator is reached.

One file for everybody: the lead provisions from it, and each hospital makes its request from a copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from fedlens.errors import SettingsError
from fedlens.files import write_text
from fedlens.protocol.encoding import MOST_HOSPITALS
from fedlens.protocol.roster import COORDINATOR
from fedlens.settings import Settings, load_settings

RESERVED = (COORDINATOR, "server", "client", "all")
"""Names that FLARE or FedLens gives another meaning."""

_LONGEST = 64
"""Characters of a certificate's common name, which FLARE takes these names for."""

HospitalName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=_LONGEST)]
_HOST = r"^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$"
_EMAIL = r"^[A-Za-z0-9][A-Za-z0-9._-]*@([A-Za-z0-9-]+\.)+[A-Za-z]{2,}$"

_TEMPLATE = """\
# A federation of hospitals. The lead provisions from this file: fedlens provision {file}
# Each hospital makes its request from a copy of it: fedlens hospital request NAME {file} --kit KIT

# Letters, digits, "-" and "_".
name = "{name}"

# Host name or IPv4 address at which hospitals and the lead reach the coordinator, and its only port.
# Both are part of every kit, and the host of the coordinator's certificate: choose them to last.
coordinator = "localhost"
port = 8002

# Whoever submits studies; has the form of an e-mail address.
lead = "lead@example.org"

# In the order of the roster. Small letters, digits and "-". Add a hospital at the end at any time.
hospitals = ["north", "south", "east", "west"]

# How long certificates hold.
valid_days = 1095
"""


class Federation(Settings):
    """Who takes part in a federation.

    Attributes:
        name: Letters, digits, ``-`` and ``_``.
        coordinator: Host name or IPv4 address at which the others reach the coordinator.
        port: The coordinator's only port.
        lead: Name of whoever submits studies; has the form of an e-mail address.
        hospitals: Names in the order of the roster: small letters, digits and ``-``.
        valid_days: How long certificates hold.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=_LONGEST)
    coordinator: str = Field(pattern=_HOST, max_length=_LONGEST)
    port: int = Field(default=8002, ge=1, le=65535)
    lead: str = Field(pattern=_EMAIL, max_length=_LONGEST)
    hospitals: tuple[HospitalName, ...] = Field(min_length=1, max_length=MOST_HOSPITALS)
    valid_days: int = Field(default=1095, ge=1, le=3650)

    @field_validator("hospitals")
    @classmethod
    def _names_tell_hospitals_apart(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a name stands for one hospital only")
        for name in names:
            if name in (*RESERVED, info.data.get("coordinator")):
                raise ValueError(f"{name!r} cannot name a hospital, as it names something else")
        return names


def load_federation(path: Path) -> Federation:
    """Read a federation file.

    Raises:
        SettingsError: Missing file, broken TOML, unknown key (with the nearest known one), or a value
            that cannot be; names the file, key and value.
    """
    return load_settings(
        Federation, path, "federation file", fix="Write one to start from: fedlens provision FILE --new"
    )


def new_federation(file: Path, *, overwrite: bool = False) -> Path:
    """Write a commented federation file to start from.

    Raises:
        SettingsError: ``file`` exists already, or does not end with ``.toml``.
    """
    if file.suffix != ".toml":
        raise SettingsError(
            f"A federation file is TOML, and {file} ends otherwise.", fix=f"Name it {file.stem}.toml."
        )
    if file.exists() and not overwrite:
        raise SettingsError(f"{file} exists already.", fix="Choose another name, or edit that file.")
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in file.stem)
    write_text(file, _TEMPLATE.format(name=name.strip("-")[:_LONGEST] or "federation", file=file.name))
    return file
