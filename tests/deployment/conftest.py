"""A whole federation for tests: real FLARE kits and keys, made once a session."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from fedlens.deployment.federation import Federation
from fedlens.deployment.rehearsal import rehearse

NAMES = ("north", "south", "east", "west")


@pytest.fixture(scope="session")
def federation() -> Federation:
    """Four hospitals and a coordinator on this machine, on a port that was free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Federation(
        name="chest", coordinator="localhost", port=port, lead="lead@example.org", hospitals=NAMES
    )


@pytest.fixture(scope="session")
def federation_folder(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lead's folder of that federation, with every hospital's kit in hospitals/; not to be changed."""
    folder = tmp_path_factory.mktemp("federation") / "chest"
    rehearse(federation, folder)
    return folder


@pytest.fixture
def own_folder(federation_folder: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(federation_folder, tmp_path / "chest"))
