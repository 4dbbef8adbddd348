"""A whole federation for tests: real FLARE kits and keys, and images dealt over its hospitals, made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deployment.in_process import draw_images
from tests.deployment.running import RunningFederation, free_port, move_to_port, run_tiny, tiny_study

import fedlens
from fedlens.deployment.federation import Federation
from fedlens.deployment.rehearsal import rehearse
from fedlens.protocol.messages import Parameters
from fedlens.sharing import share_images

NAMES = ("north", "south", "east", "west")
POLICY = 'sealing = "optional"\nminimum_hospitals = 2\n'


@pytest.fixture(scope="session")
def federation() -> Federation:
    """Four hospitals and a coordinator on this machine, on a port that was free."""
    return Federation(
        name="chest", coordinator="localhost", port=free_port(), lead="lead@example.org", hospitals=NAMES
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


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported and audited phantoms."""
    home = tmp_path_factory.mktemp("images")
    fedlens.draw_phantoms(home / "phantoms", images=120, seed=3, size=48)
    fedlens.import_images([home / "phantoms"], home / "images")
    fedlens.audit(home / "images")
    return home / "images"


@pytest.fixture(scope="session")
def dealt(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those phantoms, dealt into one folder for each hospital."""
    folder = tmp_path_factory.mktemp("dealt")
    share_images(tiny_study(images, "dealt"), folder, copy=True)
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images pooled, and dealt into ``machines``; not to be changed."""
    home = tmp_path_factory.mktemp("drawn")
    draw_images(home)
    return home


@pytest.fixture
def running(own_folder: Path, dealt: Path) -> Iterator[RunningFederation]:
    """A federation of which nothing runs yet, on a port of its own; whatever a test starts ends with it."""
    port = free_port()
    for kit in (own_folder / "coordinator", own_folder / "lead", *(own_folder / "hospitals").iterdir()):
        move_to_port(kit, port)
    for kit in (own_folder / "hospitals").iterdir():
        (kit / "policy.toml").write_text(POLICY)
    federation = RunningFederation(own_folder, dealt)
    try:
        yield federation
    finally:
        federation.close()


@pytest.fixture(scope="session")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Parameters:
    """Final weights of :func:`tiny_study` in the clear, as the local engine trains them without a pause."""
    return run_tiny(images, tmp_path_factory.mktemp("undisturbed"))
