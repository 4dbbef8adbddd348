"""Checkpoints: whole round trips, and every way in which one can be torn or misused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedlens.errors import CheckpointError
from fedlens.models import checkpoint
from fedlens.models.checkpoint import (
    CONTRACT_NAME,
    WEIGHTS_NAME,
    Contract,
    load_checkpoint,
    load_start,
    read_contract,
    save_checkpoint,
)
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.parameters import to_parameters
from fedlens.models.registry import build_network
from fedlens.study import ModelSettings, PreprocessSettings

_CLASSES = ("benign", "malignant")


def _network(seed: int = 0, *, name: str = "efdl-cnn", classes: int = 2) -> Network:
    return build_network(ModelSettings(name=name), classes=classes, channels=1, image_size=16, seed=seed)


def _contract(network: Network) -> Contract:
    return Contract(
        model=ModelSettings(name=network.name, start=Path("/elsewhere/start")),
        classes=_CLASSES,
        preprocess=PreprocessSettings(size=16, channels=1),
        preprocess_digest="abc",
        fingerprint=fingerprint(network),
        study="def",
        round=3,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = _network(5)
    return save_checkpoint(tmp_path / "checkpoint", network, _contract(network))


@pytest.mark.parametrize("as_arrays", [False, True])
def test_round_trip(tmp_path: Path, as_arrays: bool) -> None:
    network = _network(5).eval()
    save_checkpoint(tmp_path, to_parameters(network) if as_arrays else network, _contract(network))
    loaded, contract = load_checkpoint(tmp_path, classes=_CLASSES, preprocess_digest="abc")
    inputs = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(inputs), network(inputs))
    assert not loaded.training
    assert contract.classes == _CLASSES and contract.round == 3 and contract.study == "def"
    assert (contract.image_size, contract.channels) == (16, 1)
    assert contract.model.start is None and "/elsewhere" not in (tmp_path / CONTRACT_NAME).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONTRACT_NAME, WEIGHTS_NAME]


def test_truncated_weights(folder: Path) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"weights.safetensors is not the file.*cut short"):
        load_checkpoint(folder)


def test_one_flipped_bit(folder: Path) -> None:
    path = folder / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="digest"):
        load_checkpoint(folder)


def test_killed_between_the_two_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, content: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_text", killed)
    network = _network(6)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, network, _contract(network))
    with pytest.raises(CheckpointError, match="its writer was killed"):
        load_checkpoint(folder)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder.parent / "fresh", network, _contract(network))
    with pytest.raises(CheckpointError, match="written last"):
        load_checkpoint(folder.parent / "fresh")


@pytest.mark.parametrize("name", [CONTRACT_NAME, WEIGHTS_NAME])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder)


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:40], "the file: Invalid JSON"),
        (_edit(lambda content: content.pop("classes")), "classes: Field required"),
        (_edit(lambda content: content.update(format=2)), "format: Input should be 1"),
        (_edit(lambda content: content.update(colour="red")), "colour: Extra inputs"),
        (_edit(lambda content: content.update(fingerprint="0" * 64)), "another architecture"),
        (_edit(lambda content: content.update(classes=["a", "b", "c"])), "another architecture"),
        (_edit(lambda content: content["model"].update(name="resnet81")), "Did you mean 'resnet18'"),  # type: ignore[attr-defined]
        (_edit(lambda content: content.update(weights_sha256="0" * 64)), "not the file"),
    ],
)
def test_changed_contract(folder: Path, edit: Callable[[str], str], message: str) -> None:
    path = folder / CONTRACT_NAME
    path.write_text(edit(path.read_text()))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(folder)
    assert caught.value.fix


def test_weights_of_another_network_under_a_rewritten_digest(folder: Path) -> None:
    other = save_checkpoint(folder.parent / "other", {"x": np.zeros(2, np.float32)}, read_contract(folder))
    with pytest.raises(CheckpointError, match="unknown x"):
        load_checkpoint(other)


def test_expectations_of_the_caller(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"other classes.*malignant.*benign"):
        load_checkpoint(folder, classes=_CLASSES[::-1])
    with pytest.raises(CheckpointError, match=r"other preprocessing.*abc.*xyz"):
        load_checkpoint(folder, preprocess_digest="xyz")


def test_start_takes_all_but_a_last_layer_of_other_classes(folder: Path) -> None:
    network = _network(0, classes=5)
    fresh = network.output.weight.detach().clone()
    report = load_start(folder, network)
    assert report.skipped == ("output.weight", "output.bias")
    assert set(report.loaded) | set(report.skipped) == set(network.state_dict())
    assert torch.equal(network.state_dict()["hidden.weight"], _network(5).state_dict()["hidden.weight"])
    assert torch.equal(network.output.weight, fresh)


def test_start_from_a_file_in_half_precision(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in _network(5).state_dict().items() if "num" not in name}
    save_file(state, tmp_path / "start.safetensors")
    network = _network(0)
    report = load_start(tmp_path / "start.safetensors", network)
    assert "hidden.weight" in report.loaded
    assert network.state_dict()["hidden.weight"].dtype == torch.float32
    assert torch.equal(network.state_dict()["hidden.weight"], state["hidden.weight"].float())


def test_start_that_fits_nowhere_is_not_finite_or_no_safetensors(folder: Path, tmp_path: Path) -> None:
    network = _network(0)
    before = to_parameters(network)
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_file({"output.bias": torch.tensor([0.0, torch.nan])}, tmp_path / "nan.safetensors")
    torch.save({"output.bias": torch.zeros(2)}, tmp_path / "pickled.pt")
    for name, message in [
        ("other.safetensors", r"None of the 1 weights.*conv1.weight"),
        ("nan.safetensors", "output.bias .* is not finite"),
        ("pickled.pt", "Only the safetensors format"),
        ("missing", "No starting weights"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            load_start(tmp_path / name, network)
    (folder / WEIGHTS_NAME).write_bytes(b"")
    with pytest.raises(CheckpointError, match="not the file"):
        load_start(folder, network)
    assert all(np.array_equal(before[name], array) for name, array in to_parameters(network).items())
