"""Checkpoints: weights and the contract under which they may be used.

A checkpoint is a folder of two files. ``weights.safetensors`` is written first, whole;
``contract.json`` follows with the digest of the weights. A writer killed between the two leaves a
folder that ``load_checkpoint`` refuses. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy
from safetensors import torch as safetensors_torch
from torch import Tensor

from fedlens.errors import CheckpointError, ModelError, SettingsError
from fedlens.files import write_bytes, write_text
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network
from fedlens.models.parameters import from_parameters, to_parameters
from fedlens.models.registry import build_network
from fedlens.models.weights import weights_content
from fedlens.settings import Settings
from fedlens.study import ModelSettings, PreprocessSettings

WEIGHTS_NAME = "weights.safetensors"
CONTRACT_NAME = "contract.json"

_log = logging.getLogger(__name__)


class Contract(Settings):
    """What a user of the weights must hold to.

    Attributes:
        model: Network settings, without ``start``.
        classes: Class names in the order of the outputs.
        preprocess: How images become network inputs; gives image size and channels too.
        preprocess_digest: Digest of the preprocessing, code version included.
        fingerprint: Architecture fingerprint of the network.
        study: Digest of the study the weights come from.
        round: Round after which the weights were taken; 0 for none.
        weights_sha256: Digest of the weights file; filled by ``save_checkpoint``.
        format: Version of this file's layout.
    """

    model: ModelSettings
    classes: tuple[str, ...] = Field(min_length=2)
    preprocess: PreprocessSettings
    preprocess_digest: str
    fingerprint: str
    study: str = ""
    round: int = Field(default=0, ge=0)
    weights_sha256: str = ""
    format: Literal[1] = 1

    @property
    def image_size(self) -> int:
        """Side of the network's input, pixels."""
        return self.preprocess.size

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.preprocess.channels

    def build(self) -> Network:
        """A network of this architecture with weights yet to be loaded."""
        return build_network(
            self.model, classes=len(self.classes), channels=self.channels, image_size=self.image_size, seed=0
        )


@dataclass(frozen=True)
class StartReport:
    """What ``load_start`` took over; state names in the network's order.

    Attributes:
        loaded: Copied from the file.
        skipped: Left as they were, because the file has no such name or another shape.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]


def save_checkpoint(
    folder: Path, weights: Network | Mapping[str, npt.NDArray[Any]], contract: Contract
) -> Path:
    """Write weights and contract; returns ``folder``.

    To keep an older checkpoint until the new one is whole, give each its own folder.
    """
    arrays = to_parameters(weights) if isinstance(weights, Network) else dict(weights)
    content = weights_content(arrays)
    signed = contract.model_copy(
        update={
            "model": contract.model.model_copy(update={"start": None}),
            "weights_sha256": hashlib.sha256(content).hexdigest(),
        }
    )
    write_bytes(folder / WEIGHTS_NAME, content)
    write_text(folder / CONTRACT_NAME, signed.model_dump_json(indent=2) + "\n")
    return folder


def load_checkpoint(
    folder: Path, *, classes: Sequence[str] | None = None, preprocess_digest: str | None = None
) -> tuple[Network, Contract]:
    """The network of a checkpoint, in evaluation mode on the CPU, and its contract.

    Args:
        folder: Written by ``save_checkpoint``.
        classes: The class order the caller needs, if it matters.
        preprocess_digest: The digest of the caller's preprocessing, if it matters.

    Raises:
        CheckpointError: A file is missing or torn, the weights are not those the contract was
            signed for, the architecture has changed, or the caller needs other classes or
            preprocessing.
    """
    contract = read_contract(folder)
    _expect(folder, "classes", contract.classes, None if classes is None else tuple(classes))
    _expect(folder, "preprocessing", contract.preprocess_digest, preprocess_digest)
    try:
        network = contract.build()
    except SettingsError as error:
        raise CheckpointError(
            f"The network of {folder} cannot be built: {error.what}", why=error.why, fix=error.fix
        ) from error
    found = fingerprint(network)
    if found != contract.fingerprint:
        raise CheckpointError(
            f"The network of {folder} has another architecture in this version of FedLens.",
            why=f"Fingerprint {found[:12]}, but the contract says {contract.fingerprint[:12]}.",
            fix="Use the version that wrote the checkpoint, or train again.",
        )
    try:
        from_parameters(network, safetensors_numpy.load(_weights(folder, contract)))
    except (SafetensorError, ModelError) as error:
        raise CheckpointError(
            f"The weights of {folder} do not fit its network: {error}",
            fix="Copy the checkpoint again from where it was written.",
        ) from error
    return network.eval(), contract


def read_contract(folder: Path) -> Contract:
    """The contract of a checkpoint, its weights unread.

    Raises:
        CheckpointError: Missing, torn, or of another version.
    """
    path = folder / CONTRACT_NAME
    if not path.is_file():
        raise CheckpointError(
            f"No {CONTRACT_NAME} in {folder}.",
            why="It is written last, so the checkpoint is unfinished or this is another folder."
            if (folder / WEIGHTS_NAME).is_file()
            else "A checkpoint holds it beside its weights.",
            fix="Give a folder that FedLens finished writing.",
        )
    try:
        return Contract.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CheckpointError(
            f"Cannot read {path}: {place}: {first['msg']}.",
            fix="Copy the checkpoint again from where it was written.",
        ) from error


def load_start(path: Path, network: Network) -> StartReport:
    """Copy starting weights into ``network`` where name and shape agree.

    A last layer for other classes is thus left fresh. Floating weights are converted to the
    network's precision.

    Args:
        path: A checkpoint folder, or any safetensors file.
        network: Changed in place; untouched if an error is raised.

    Raises:
        CheckpointError: Missing or torn, nothing fits, or a weight that fits is not finite.
    """
    state = network.state_dict()
    found = _start_arrays(path)
    fitting = {
        name: found[name]
        for name, tensor in state.items()
        if name in found
        and found[name].shape == tensor.shape
        and found[name].is_floating_point() == tensor.is_floating_point()
    }
    if not fitting:
        raise CheckpointError(
            f"None of the {len(found)} weights in {path} fits {network.name}.",
            why=f"It holds names like {', '.join(sorted(found)[:2]) or 'none'}; "
            f"expected names like {', '.join(sorted(state)[:2])}.",
            fix="Set model.start to weights of the same model.name.",
        )
    broken = [name for name, tensor in fitting.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"Weight {broken[0]} in {path} is not finite.", fix="Set model.start to sound weights."
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            state[name].copy_(tensor)
    skipped = tuple(name for name in state if name not in fitting)
    if skipped:
        _log.warning("%s left %d of %d weights fresh: %s", path, len(skipped), len(state), ", ".join(skipped))
    return StartReport(tuple(fitting), skipped)


def _start_arrays(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        content = _weights(path, read_contract(path))
    elif path.is_file():
        content = path.read_bytes()
    else:
        raise CheckpointError(
            f"No starting weights at {path}.",
            fix="Set model.start to a checkpoint folder or a .safetensors file on this machine.",
        )
    try:
        arrays: dict[str, Tensor] = safetensors_torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(
            f"Cannot read the weights {path}: {error}.",
            why="Only the safetensors format is read; pickled weights can run code.",
            fix="Convert the file with safetensors.torch.save_file.",
        ) from error
    return arrays


def _weights(folder: Path, contract: Contract) -> bytes:
    """Bytes of the weights file, after its digest has been checked."""
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise CheckpointError(f"No {WEIGHTS_NAME} in {folder}.", fix="Copy the whole checkpoint folder.")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != contract.weights_sha256:
        raise CheckpointError(
            f"{path} is not the file that its contract was written for.",
            why=f"Its digest is {digest[:12]}, the contract says {contract.weights_sha256[:12]}: "
            "it was changed, cut short, or its writer was killed.",
            fix="Copy the checkpoint again from where it was written, or use an older one.",
        )
    return content


def _expect(folder: Path, what: str, held: object, needed: object) -> None:
    if needed is not None and held != needed:
        raise CheckpointError(
            f"The checkpoint {folder} was made for other {what}.",
            why=f"It holds {held}, and {needed} is needed.",
            fix=f"Use a checkpoint with the same {what}, or train again.",
        )
