"""A trained network as one ONNX file: uint8 pixels in; logits, and Grad-CAM's heat where it is cheap, out."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlens.errors import FedLensError, ModelError
from fedlens.export.contract import HEAT, LOGITS, METADATA_KEY, PIXELS, EdgeContract
from fedlens.imaging.preprocess import to_input
from fedlens.models.checkpoint import Contract
from fedlens.models.network import Network

MAPS = "maps"
"""Name of the tensor where the head begins; what comes after it stays in float32."""

_OPSET = 18
_LIBRARIES = ("fedlens", "torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless")


def edge_contract(contract: Contract, *, modalities: Sequence[str], temperature: float) -> EdgeContract:
    """What an exported float32 network promises, from its checkpoint's contract."""
    return EdgeContract(
        network=contract.model.name,
        classes=contract.classes,
        preprocess=contract.preprocess,
        preprocess_digest=contract.preprocess_digest,
        fingerprint=contract.fingerprint,
        weights_sha256=contract.weights_sha256,
        study=contract.study,
        round=contract.round,
        modalities=tuple(modalities),
        temperature=temperature,
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )


def to_onnx(network: Network, contract: EdgeContract) -> Any:
    """The network as an ``onnx.ModelProto`` with its contract in the metadata.

    The file takes ``pixels``, uint8 (N, S, S, channels), any N. It gives ``logits``, float32
    (N, classes), before temperature; and for networks whose head begins with global average pooling
    ``heat``, float32 (N, classes, h, w): Grad-CAM of each class, cut at zero, of any scale. Batch
    normalisation is folded into the convolutions.

    Args:
        network: In evaluation mode on the CPU.
        contract: Written into the file.

    Raises:
        FedLensError: The packages for ONNX are not installed.
        ModelError: The network has an operation that cannot be exported.
    """
    need("onnx", "onnxscript")
    exported = _Exported(network).eval()
    example = torch.zeros(2, network.image_size, network.image_size, network.channels, dtype=torch.uint8)
    names = [LOGITS, MAPS, *([HEAT] if exported.pooled is not None else [])]
    try:
        with _quiet():
            program = torch.onnx.export(
                exported,
                (example,),
                dynamo=True,
                input_names=[PIXELS],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("images")},),
                opset_version=_OPSET,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"{network.name} cannot be exported to ONNX: {str(error).splitlines()[0]}",
            fix="Choose another network.",
        ) from error
    assert program is not None
    model = program.model_proto
    # The name of the tensor is all that was wanted: as an output it would be copied for every image.
    for index, output in enumerate(model.graph.output):
        if output.name == MAPS:
            del model.graph.output[index]
            break
    _strip(model)
    return with_contract(model, contract)


def with_contract(model: Any, contract: EdgeContract) -> Any:
    """The same ``onnx.ModelProto``, whose metadata now holds ``contract``."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, contract.model_dump_json()
    model.producer_name, model.producer_version = "fedlens", contract.versions.get("fedlens", "")
    model.doc_string = "Research software, not a medical device. Classes: " + ", ".join(contract.classes)
    return model


def need(*packages: str) -> None:
    """Import packages of the extra ``onnx``.

    Raises:
        FedLensError: One is not installed.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise FedLensError(
                f"The package {package} is not installed.",
                why="ONNX files need it, and nothing else here does.",
                fix="Install it with: pip install 'fedlens[onnx]'",
            ) from error


class _Exported(nn.Module):
    """What goes into the file: preparation of numbers, network, and heat of each class."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.pooled = _class_gradients(network)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.features(to_input(pixels))
        logits = self.network.head(maps)
        if self.pooled is None:
            return logits, maps
        gradients = self.pooled(maps.mean(dim=(2, 3)))
        heat = torch.relu(gradients @ maps.flatten(2))
        return logits, maps, heat.reshape(-1, logits.shape[1], *maps.shape[2:])


class _LinearGradients(nn.Module):
    """Gradient of each class's logit with respect to pooled maps, where the head is one linear layer."""

    def __init__(self, output: nn.Linear) -> None:
        super().__init__()
        self.output = output

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled maps (N, K) to gradients (1, classes, K)."""
        return self.output.weight[None]


class _HiddenGradients(nn.Module):
    """The same where a hidden layer with a rectifier stands between; it depends on the image."""

    def __init__(self, hidden: nn.Linear, output: nn.Linear) -> None:
        super().__init__()
        self.hidden = hidden
        self.output = output

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled maps (N, K) to gradients (N, classes, K)."""
        active = (self.hidden(pooled) > 0).to(pooled.dtype)
        gradients: Tensor = (active[:, None] * self.output.weight) @ self.hidden.weight
        return gradients


def _class_gradients(network: Network) -> nn.Module | None:
    output, hidden = getattr(network, "output", None), getattr(network, "hidden", None)
    if network.family != "convolutional" or not isinstance(output, nn.Linear):
        return None
    if isinstance(hidden, nn.Linear):
        return _HiddenGradients(hidden, output)
    return _LinearGradients(output)


def _strip(model: Any) -> None:
    """Drop the exporter's notes: they name folders of this machine and make up much of the file."""
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that no network here needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
