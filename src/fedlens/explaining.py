"""``fedlens explain``: saliency maps of a trained network for any readable images."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedlens.errors import SettingsError
from fedlens.explain.figures import explanation_figure, save_figure
from fedlens.explain.methods import RECOMMENDED, find_method
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.image_loading import KnownImages, distinct_names, load_image
from fedlens.imaging.preprocess import PROFILES, digest, preprocess, to_input
from fedlens.models.checkpoint import Contract, load_checkpoint, read_contract
from fedlens.models.network import Network
from fedlens.progress import Progress, silent
from fedlens.run_folder import find_model
from fedlens.study import PreprocessSettings

_BATCH = 16


@dataclass(frozen=True)
class ExplainedImage:
    """One image on its way: the original, the network's input, and what the study knows of it.

    Attributes:
        path: The file.
        sha256: Digest of its bytes.
        pixels: uint8 (H, W) or (H, W, 3) RGB, the original.
        prepared: uint8 (S, S, channels), what the network sees.
        modality: Preparation profile.
        label: Its class in the study; empty where it is not known.
        mask: bool (H, W), the expert's outline, if the study has one.
    """

    path: Path
    sha256: str
    pixels: npt.NDArray[np.uint8]
    prepared: npt.NDArray[np.uint8]
    modality: str
    label: str = ""
    mask: npt.NDArray[np.bool_] | None = None


def explain_images(
    run: Path,
    images: Sequence[Path],
    *,
    out: Path | None = None,
    target: str = "",
    method: str = RECOMMENDED,
    arm: str = "federated",
    modality: str = "",
    progress: Progress = silent,
) -> list[SaliencyMap]:
    """Saliency maps of a trained network, written as figure, overlay, array and JSON.

    Each image is prepared as the checkpoint's contract says. ``out`` gets ``NAME-figure.png`` (image,
    overlay, colour bar, likeliest classes), ``NAME.png`` (overlay at the image's own resolution),
    ``NAME.npy`` (float32, 0..1, at the network's resolution) and ``NAME.json``. For images that the
    study's manifest holds, the label and the expert's outline are drawn too.

    Args:
        run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder.
        images: Image files, DICOM included.
        out: Where to write; ``run/explanations`` by default.
        target: Class to explain; each image's predicted class when empty.
        method: How to explain; ``fedlens.explain.methods`` lists what there is.
        arm: Whose network to take where ``run`` holds several.
        modality: Preparation profile; when empty it is looked up by content in the study's manifest,
            then in the DICOM header, and is ``other`` failing both.
        progress: Called with step ``explain``.

    Returns:
        One map for each image, in order.

    Raises:
        HistoryError: ``run`` holds no such network.
        CheckpointError: Its files are torn, or prepared images would differ in this version.
        SettingsError: No images, or an unknown class, method or modality.
        ExplanationError: The method does not suit the network.
        UnreadableImageError: An image cannot be decoded.
    """
    out = out or run / "explanations"
    names = distinct_names(images)
    maps: list[SaliencyMap] = []
    for image, saliency in explained(
        run, images, target=target, method=method, arm=arm, modality=modality, progress=progress
    ):
        _write(out, names[len(maps)], image, saliency)
        maps.append(saliency)
    return maps


def explained(
    run: Path,
    images: Sequence[Path],
    *,
    target: str = "",
    method: str = RECOMMENDED,
    arm: str = "federated",
    modality: str = "",
    progress: Progress = silent,
) -> Iterator[tuple[ExplainedImage, SaliencyMap]]:
    """Each image with its saliency map, in order, and nothing written; otherwise as ``explain_images``."""
    if not images:
        raise SettingsError("No images to explain.", fix="Give at least one image file.")
    if modality and modality not in PROFILES:
        raise SettingsError(f"No modality {modality!r}.", fix=f"Choose one of {', '.join(PROFILES)}.")
    explainer = find_method(method)
    folder = find_model(run, arm)
    contract = read_contract(folder)
    # Another version's preparation would show the network images unlike those it learnt from.
    network, _ = load_checkpoint(folder, preprocess_digest=digest(contract.preprocess))
    explainer.check(network)
    number = _class_number(target, contract) if target else None
    known = KnownImages(folder)
    for first in range(0, len(images), _BATCH):
        progress("explain", first, len(images))
        batch = [_load(path, contract.preprocess, modality, known) for path in images[first : first + _BATCH]]
        yield from zip(batch, _explain(network, contract, batch, number, folder, method), strict=True)
    progress("explain", len(images), len(images))


def _load(path: Path, settings: PreprocessSettings, modality: str, known: KnownImages) -> ExplainedImage:
    given = load_image(path, known)
    modality = modality or given.modality or "other"
    return ExplainedImage(
        path=path,
        sha256=given.sha256,
        pixels=given.pixels,
        prepared=preprocess(given.pixels, settings, modality),
        modality=modality,
        label=given.label,
        mask=given.mask,
    )


def _explain(
    network: Network,
    contract: Contract,
    batch: Sequence[ExplainedImage],
    number: int | None,
    folder: Path,
    method: str,
) -> Iterator[SaliencyMap]:
    pixels = torch.from_numpy(np.stack([image.prepared for image in batch]))
    yield from saliency_maps(
        network,
        to_input(pixels),
        classes=contract.classes,
        files=[str(image.path) for image in batch],
        method=method,
        targets=None if number is None else torch.full((len(batch),), number),
        image_sha256s=[image.sha256 for image in batch],
        reproduce={
            "checkpoint": str(folder),
            "model": contract.model.name,
            "weights_sha256": contract.weights_sha256,
            "preprocess_digest": contract.preprocess_digest,
            "modalities": ",".join(sorted({image.modality for image in batch})),
        },
    )


def _write(out: Path, name: str, image: ExplainedImage, saliency: SaliencyMap) -> None:
    figure = explanation_figure(image.pixels, saliency, mask=image.mask, truth=image.label)
    out.mkdir(parents=True, exist_ok=True)
    save_figure(out / f"{name}-figure.png", figure)
    saliency.save(out, name, image.pixels, mask=image.mask)


def _class_number(target: str, contract: Contract) -> int:
    if target not in contract.classes:
        near = difflib.get_close_matches(target, contract.classes, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"The network has no class {target!r}.",
            fix=f"{hint}Choose one of {', '.join(contract.classes)}.",
        )
    return contract.classes.index(target)
