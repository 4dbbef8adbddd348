"""One explanation: the map, what it speaks for, and how to get it again."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from fedlens.errors import ExplanationError
from fedlens.explain.methods import RECOMMENDED, find_method
from fedlens.explain.overlay import overlay
from fedlens.files import write_bytes, write_json
from fedlens.models.fingerprint import fingerprint
from fedlens.models.network import Network


@dataclass(frozen=True, eq=False)
class SaliencyMap:
    """Where one network looked in one image.

    Attributes:
        values: float32 (S, S), 0..1, covering the whole image; all zero where nothing spoke for the
            class.
        target: Index of the explained class.
        probabilities: Class name and softmax probability, in the order of the outputs.
        layer: In words, the maps that were weighed.
        fingerprint: Architecture fingerprint of the network.
        file: The image, as the caller names it.
        image_sha256: Digest of the image file's bytes; may be empty.
        reproduce: What another needs to get this map again, e.g. ``checkpoint``, ``command``.
        method: How the map was made, by its name in the registry.
        settings: What else of the method determines the map.
    """

    values: npt.NDArray[np.float32] = field(repr=False)
    target: int
    probabilities: tuple[tuple[str, float], ...]
    layer: str
    fingerprint: str
    file: str
    image_sha256: str = ""
    reproduce: Mapping[str, str] = field(default_factory=dict)
    method: str = RECOMMENDED
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        square = self.values.ndim == 2 and self.values.shape[0] == self.values.shape[1]
        if not square or self.values.dtype != np.float32:
            raise ExplanationError(
                f"A saliency map of {self.file} is {self.values.dtype} of shape {self.values.shape}.",
                why="It must be a float32 square.",
            )
        # Written so that NaN fails too.
        if not (self.values.min() >= 0 and self.values.max() <= 1):
            raise ExplanationError(f"A saliency map of {self.file} has values outside 0..1.")
        if not 0 <= self.target < len(self.probabilities):
            raise ExplanationError(
                f"Class {self.target} of {self.file} does not exist.",
                why=f"There are {len(self.probabilities)} classes.",
            )

    @property
    def target_name(self) -> str:
        """Name of the explained class."""
        return self.probabilities[self.target][0]

    @property
    def empty(self) -> bool:
        """Nothing in the image spoke for the class."""
        return not self.values.any()

    def ranked(self) -> list[tuple[str, float]]:
        """Classes and probabilities, the likeliest first."""
        return sorted(self.probabilities, key=lambda pair: -pair[1])

    def description(self) -> dict[str, Any]:
        """Everything but the values, ready for JSON."""
        return {
            "method": self.method,
            "settings": dict(self.settings),
            "layer": self.layer,
            "target": self.target,
            "target_name": self.target_name,
            "empty": self.empty,
            "size": self.values.shape[0],
            "probabilities": dict(self.probabilities),
            "fingerprint": self.fingerprint,
            "file": self.file,
            "image_sha256": self.image_sha256,
            "reproduce": dict(self.reproduce),
        }

    def save(
        self,
        folder: Path,
        stem: str,
        image: npt.NDArray[np.uint8],
        *,
        mask: npt.NDArray[np.bool_] | None = None,
    ) -> dict[str, Path]:
        """Write ``stem.png`` (overlay), ``stem.npy`` (values) and, last, ``stem.json``.

        Args:
            folder: Made if missing.
            stem: File name without ending.
            image: uint8 (H, W) or (H, W, 3) RGB, the original.
            mask: bool (H, W), to be outlined.

        Returns:
            Paths by ending.
        """
        paths = {ending: folder / f"{stem}.{ending}" for ending in ("png", "npy", "json")}
        picture = cv2.cvtColor(overlay(image, self.values, mask=mask), cv2.COLOR_RGB2BGR)
        write_bytes(paths["png"], cv2.imencode(".png", picture)[1].tobytes())
        buffer = io.BytesIO()
        np.save(buffer, self.values, allow_pickle=False)
        write_bytes(paths["npy"], buffer.getvalue())
        write_json(paths["json"], self.description())
        return paths


def saliency_maps(
    network: Network,
    inputs: Tensor,
    *,
    classes: Sequence[str],
    files: Sequence[str],
    method: str = RECOMMENDED,
    targets: Tensor | None = None,
    image_sha256s: Sequence[str] | None = None,
    reproduce: Mapping[str, str] | None = None,
) -> list[SaliencyMap]:
    """Explanations of a batch, one described map for each image.

    Args:
        network: Any network of the registry.
        inputs: (N, channels, S, S) float32, as ``to_input`` makes them.
        classes: Names in the order of the outputs.
        files: Names of the N images.
        method: Name in ``fedlens.explain.methods``.
        targets: (N,) int64 class indices; the predicted class where None.
        image_sha256s: Digests of the N image files, if known.
        reproduce: Written into every map.

    Raises:
        SettingsError: No method has this name.
        ExplanationError: The method does not suit the network; as ``grad_cam``; or names that do not
            match outputs or images in number.
    """
    digests = [""] * len(files) if image_sha256s is None else image_sha256s
    if len(classes) != network.classes or not len(files) == len(digests) == len(inputs):
        raise ExplanationError(
            f"{len(classes)} class names, {len(files)} files and {len(digests)} digests were given.",
            why=f"The network has {network.classes} classes, and there are {len(inputs)} images.",
        )
    explain = find_method(method)
    result = explain(network, inputs, targets)
    probabilities = result.logits.softmax(dim=1).cpu().tolist()
    digest_of_network = fingerprint(network)
    return [
        SaliencyMap(
            values=values,
            target=target,
            probabilities=tuple(zip(classes, row, strict=True)),
            layer=explain.layer(network),
            fingerprint=digest_of_network,
            file=file,
            image_sha256=digest,
            reproduce=dict(reproduce or {}),
            method=explain.name,
            settings=explain.settings,
        )
        for values, target, row, file, digest in zip(
            result.maps.cpu().numpy(), result.targets.tolist(), probabilities, files, digests, strict=True
        )
    ]
