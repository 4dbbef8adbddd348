"""What the stray detector says about the brain set's ``notumor``. ``python benchmarks/straying_brain.py RUN``

RUN is the output folder of a study of the brain set alone, two classes::

    fedlens data import brain_mri --out data/brain --groups brain_mri/index.csv:path:cluster
    fedlens data audit data/brain
    fedlens run benchmarks/studies/straying-brain.toml      # writes runs/straying-brain

The audit finds that ``notumor`` can be told by its source. Here the federated network's maps of the
validation and test images are measured as a hospital measures its own, and the network itself is asked the
same: how many images change class when what lies outside the head, or on frames and letters, is blackened,
and, as a yardstick, when the head's rim, its outermost eighth, is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from _figures import write_figures

from fedlens.explain.methods import RECOMMENDED, find_method
from fedlens.explain.straying import cell_of, stray_values, straying_classes, straying_hospitals
from fedlens.hospital.images import HospitalImages, select_images
from fedlens.imaging.field import FieldMasks, find_field
from fedlens.imaging.preprocess import to_input
from fedlens.metrics.explanation import COLUMNS
from fedlens.metrics.explanation_totals import QualityTotals
from fedlens.models.checkpoint import load_checkpoint
from fedlens.models.network import Network
from fedlens.preparation import prepare
from fedlens.run_folder import find_model, kept_study

BATCH = 32
REGIONS = ("outside", "text", "border", "rim")
HEALTHY = "notumor"

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


def measure(network: Network, images: HospitalImages, method: str) -> dict[str, Floats]:
    """Columns of ``stray_values`` of all images, float64 (N,), and more.

    These are ``right`` and ``flips-...`` (0 or 1), and ``energy-rim`` and ``area-rim``.
    """
    explain, cell = find_method(method), cell_of(network)
    found: dict[str, list[Floats]] = {}
    for first in range(0, len(images), BATCH):
        chosen = np.arange(first, min(first + BATCH, len(images)))
        pixels = images.take(chosen)
        fields = [find_field(image, "mri") for image in pixels]
        result = explain(network, to_input(torch.from_numpy(pixels)))
        maps = result.maps.numpy()
        values = stray_values(maps, fields, cell)
        rims = np.stack([rim(field) for field in fields])
        heat = maps.astype(np.float64)
        values["energy-rim"] = (heat * rims).sum((1, 2)) / heat.sum((1, 2)).clip(min=1e-12)
        values["area-rim"] = rims.mean((1, 2))
        predicted = result.targets.numpy()
        values["right"] = (predicted == images.labels[chosen]).astype(np.float64)
        for name in ("outside", "marks", "rim"):
            changed = np.stack([without(*pair, name) for pair in zip(pixels, fields, strict=True)])
            with torch.no_grad():
                again = network(to_input(torch.from_numpy(changed))).argmax(1).numpy()
            values[f"flips-{name}"] = (again != predicted).astype(np.float64)
        for name, column in values.items():
            found.setdefault(name, []).append(column)
    return {name: np.concatenate(columns) for name, columns in found.items()}


def rim(field: FieldMasks) -> npt.NDArray[np.bool_]:
    """The outermost eighth of the head, bool (S, S)."""
    depth = cv2.distanceTransform(np.pad(field.field, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.asarray(field.field & (depth <= np.quantile(depth[field.field], 0.125)))


def without(image: Pixels, field: FieldMasks, what: str) -> Pixels:
    """The image, uint8 (S, S, C), with a part of it blackened, a copy.

    ``what`` is ``outside``, all beyond the head; ``marks``, frames and letters; or ``rim``.
    """
    gone = {"outside": ~field.field, "marks": field.text | field.border}.get(what)
    changed = image.copy()
    changed[rim(field) if gone is None else gone] = 0
    return changed


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, help="output folder of the study")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--method", default=RECOMMENDED, help="how to explain")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = kept_study(arguments.run)
    if study is None:
        parser.error(f"{arguments.run} is no run folder")
    prepared = prepare(study)
    network, _ = load_checkpoint(find_model(arguments.run, "federated"))
    figures: dict[str, float] = {}
    for split in ("validation", "test"):
        images = select_images(prepared.manifest, prepared.pixels, prepared.classes, split=split)
        values = measure(network, images, arguments.method)
        figures |= {f"{split}_{name}": value for name, value in describe(images, values).items()}
        figures |= {
            f"{split}_{name}": value for name, value in verdicts(images, values, prepared.classes).items()
        }
    write_figures(arguments.json, figures)


def describe(images: HospitalImages, values: dict[str, Floats]) -> dict[str, float]:
    """By the set's own four classes: images, heat and its chance by region, maps that stray, flips."""
    fine = np.array([record.subtype or record.label for record in images.records])
    groups = {name: fine == name for name in sorted(set(fine.tolist()))}
    figures = {"accuracy": float(values["right"].mean())}
    for name, own in {**groups, "tumor": fine != HEALTHY}.items():
        figures[f"{name}_images"] = float(own.sum())
        for region in REGIONS:
            heat, area = values[f"energy-{region}"][own].mean(), values[f"area-{region}"][own].mean()
            figures[f"{name}_heat_{region}"] = float(heat)
            figures[f"{name}_area_{region}"] = float(area)
            if area:
                figures[f"{name}_times_chance_{region}"] = float(heat / area)
            if f"strays-{region}" in values:
                figures[f"{name}_strays_{region}"] = float(values[f"strays-{region}"][own].mean())
        for what in ("outside", "marks", "rim"):
            figures[f"{name}_flips_without_{what}"] = float(values[f"flips-{what}"][own].mean())
        marked = own & (values["area-border"] > 0)
        figures[f"{name}_images_with_a_frame"] = float(marked.sum())
    return figures


def verdicts(images: HospitalImages, values: dict[str, Floats], classes: tuple[str, ...]) -> dict[str, float]:
    """How many classes and hospitals are flagged; each is printed as its sentence."""
    columns = {name: column for name, column in values.items() if name in COLUMNS}
    sites = np.array([record.hospital for record in images.records])
    totals = {
        site: QualityTotals.of(
            {name: column[sites == site] for name, column in columns.items()},
            images.labels[sites == site],
            len(classes),
        )
        for site in sorted(set(sites.tolist()))
    }
    of_classes = straying_classes(QualityTotals.of(columns, images.labels, len(classes)))
    of_hospitals = straying_hospitals(totals)
    for sentence in [flag.sentence(classes) for flag in of_classes] + [
        flag.sentence(classes) for flag in of_hospitals
    ]:
        print(sentence)
    return {"classes_flagged": float(len(of_classes)), "hospitals_flagged": float(len(of_hospitals))}


if __name__ == "__main__":
    main()
