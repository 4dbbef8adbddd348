"""What travels inside an exported network: everything that whoever runs it must hold to. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from fedlens.errors import CheckpointError
from fedlens.settings import Settings
from fedlens.study import PreprocessSettings

METADATA_KEY = "fedlens"
"""Name under which the contract stands in the ONNX file's ``metadata_props``."""

PIXELS, LOGITS, HEAT = "pixels", "logits", "heat"
"""Names of the file's input and outputs; ``heat`` is there for networks that pool before their head."""


class EdgeContract(Settings):
    """The contract of an exported network.

    Attributes:
        network: Name of the architecture.
        classes: Class names in the order of the outputs.
        preprocess: How images become the uint8 pixels that the file takes.
        preprocess_digest: Digest of the preparation, code version included.
        fingerprint: Architecture fingerprint of the network.
        weights_sha256: Digest of the checkpoint's weights.
        study: Digest of the study the weights come from.
        round: Round after which they were taken.
        modalities: Of the images that the study used; empty where unknown.
        temperature: What logits are divided by before the softmax.
        precision: Of weights and activations.
        calibration_images: Training images that the ranges of activations were taken from; 0 for float32.
        versions: Version of each library that made the file.
        format: Version of this layout.
    """

    network: str
    classes: tuple[str, ...] = Field(min_length=2)
    preprocess: PreprocessSettings
    preprocess_digest: str
    fingerprint: str
    weights_sha256: str
    study: str = ""
    round: int = Field(default=0, ge=0)
    modalities: tuple[str, ...] = ()
    temperature: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "int8"] = "float32"
    calibration_images: int = Field(default=0, ge=0)
    versions: dict[str, str] = Field(default={})
    format: Literal[1] = 1


def parse_contract(text: str, file: str) -> EdgeContract:
    """The contract out of an ONNX file's metadata.

    Raises:
        CheckpointError: It is missing, damaged or of another version; names ``file``.
    """
    if not text:
        raise CheckpointError(
            f"{file} carries no contract of FedLens.",
            why="Without it nobody knows its classes or how its images are prepared.",
            fix="Make the file with: fedlens export RUN --onnx",
        )
    try:
        return EdgeContract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the contract"
        raise CheckpointError(
            f"Cannot read the contract of {file}: {place}: {first['msg']}.",
            fix="Use the version of FedLens that wrote it, or export again.",
        ) from error
