"""``fedlens explain``: saliency maps of a trained network for any readable images."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fedlens.errors import SettingsError
from fedlens.explain.figures import explanation_figure, save_figure
from fedlens.explain.methods import RECOMMENDED, find_method
from fedlens.explain.saliency import SaliencyMap, saliency_maps
from fedlens.image_loading import GivenImage, KnownImages, distinct_names, load_image
from fedlens.imaging.preprocess import check_modality, preprocess, to_input
from fedlens.models.checkpoint import Contract
from fedlens.models.network import Network
from fedlens.progress import Progress, silent
from fedlens.trained_network import load_trained

_BATCH = 16


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
) -> Iterator[tuple[GivenImage, SaliencyMap]]:
    """Each image with its saliency map, in order, and nothing written; otherwise as ``explain_images``."""
    if not images:
        raise SettingsError("No images to explain.", fix="Give at least one image file.")
    if modality:
        check_modality(modality)
    explainer = find_method(method)
    folder, network, contract = load_trained(run, arm)
    explainer.check(network)
    number = _class_number(target, contract) if target else None
    known = KnownImages(folder)
    for first in range(0, len(images), _BATCH):
        progress("explain", first, len(images))
        batch = [load_image(path, known) for path in images[first : first + _BATCH]]
        yield from zip(
            batch, _explain(network, contract, batch, modality, number, folder, method), strict=True
        )
    progress("explain", len(images), len(images))


def _explain(
    network: Network,
    contract: Contract,
    batch: Sequence[GivenImage],
    modality: str,
    number: int | None,
    folder: Path,
    method: str,
) -> Iterator[SaliencyMap]:
    kinds = [modality or image.modality or "other" for image in batch]
    pixels = [
        preprocess(image.pixels, contract.preprocess, kind) for image, kind in zip(batch, kinds, strict=True)
    ]
    yield from saliency_maps(
        network,
        to_input(torch.from_numpy(np.stack(pixels))),
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
            "modalities": ",".join(sorted(set(kinds))),
        },
    )


def _write(out: Path, name: str, image: GivenImage, saliency: SaliencyMap) -> None:
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
