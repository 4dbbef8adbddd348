"""A short cut at three hospitals, and a fourth that was never seen: do losses on maps help?

Real brain MRI, tumour or none, at four hospitals of equal size. Three of them train: their scanners burn
a letter beside the head into 85 % of the tumour slices and 8 % of the others. At the fourth, which takes no
part in training, tumours and others bear the letter the other way round. A network that goes by the letter
is right at home and wrong there. Every arm trains on the same images, with the same seeds; held-out
patients are of groups never trained on, at home and at the fourth hospital.

Give a study folder of the brain set, made by ``fedlens data import`` and ``fedlens data audit``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from _figures import write_figures

import fedlens
from fedlens.arm_path import FEDERATED
from fedlens.arms import initial_network, train_arm
from fedlens.explain.grad_cam import grad_cam
from fedlens.hospital.evaluation import predict
from fedlens.hospital.images import HospitalImages
from fedlens.imaging.field import find_field
from fedlens.imaging.preprocess import to_input
from fedlens.models.network import Network
from fedlens.models.parameters import from_parameters
from fedlens.preparation import PreparedStudy, prepare
from fedlens.study import Study

STUDY = Path(__file__).resolve().parent / "studies" / "outlines-brain.toml"
SEEN, UNSEEN = ("A", "B", "C"), "D"
TUMOUR = "tumor"
MARKED = {True: 0.85, False: 0.08}
"""Share of slices with a letter at the hospitals that train, by whether they show a tumour."""

ARMS: Mapping[str, Mapping[str, float]] = {
    "plain": {},
    "field": {"field_loss": 1.0},
    "outline": {"outline_loss": 0.3},
    "both": {"field_loss": 1.0, "outline_loss": 0.3},
}


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="study folder, imported and audited")
    parser.add_argument("--out", type=Path, default=Path("runs/unseen-hospital"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--passes", type=float, default=3.0)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args()
    marked = with_letters(prepare(study_of(options, "plain", 0)))
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in options.arms}
    for seed in options.seeds:
        for arm in options.arms:
            found[arm].append(run(marked, study_of(options, arm, seed)))
            said = ", ".join(f"{name} {value:.3f}" for name, value in found[arm][-1].items())
            print(f"seed {seed} {arm:8s} {said}", flush=True)
    write_figures(options.json, together(found))


def study_of(options: argparse.Namespace, arm: str, seed: int) -> Study:
    """The study of one arm: outlines at two of the three hospitals that train."""
    content = fedlens.load_study(STUDY).model_dump(mode="json")
    content["data"]["folder"] = str(options.data.resolve())
    content["hospitals"] |= {"by": "equal"}
    content["training"]["passes"] = options.passes
    content["federation"] |= {"rounds": round(8 * options.passes), "evaluate_every": 100}
    content["explanation"] = {"measures": "none", "outlines_at": ["A", "B"], **ARMS[arm]}
    content["seed"] = seed
    content["output"] = str(options.out.resolve() / arm)
    return Study.model_validate(content)


def with_letters(prepared: PreparedStudy) -> PreparedStudy:
    """The same images, with the letter burned into some; which ones is drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    pixels = np.array(prepared.pixels)
    for row, record in enumerate(prepared.manifest):
        tumour = record.label == TUMOUR
        share = MARKED[tumour != (record.hospital == UNSEEN)]
        if rng.random() < share:
            pixels[row] = burned(pixels[row], find_field(pixels[row], record.modality).field)
    pixels.flags.writeable = False
    return PreparedStudy(prepared.study, prepared.manifest, pixels, prepared.classes, SEEN)


def burned(image: npt.NDArray[np.uint8], body: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The image with an L in the corner that is farthest from the body, a tenth of the side high."""
    size = len(image)
    height, room = size // 10, size // 32
    spans = (slice(room, room + height), slice(size - room - height, size - room))
    corners = [(row, column) for row in spans for column in spans]
    row, column = min(corners, key=lambda corner: float(body[corner].mean()))
    letter = np.zeros((height, height), np.uint8)
    cv2.putText(letter, "L", (1, height - 2), cv2.FONT_HERSHEY_SIMPLEX, height / 24, 255, 2)
    result = image.copy()
    result[row, column] = np.maximum(result[row, column], letter[:, :, None])
    return result


def run(marked: PreparedStudy, study: Study) -> dict[str, float]:
    """Train one arm, and measure it at home and at the fourth hospital."""
    prepared = PreparedStudy(study, marked.manifest, marked.pixels, marked.classes, SEEN)
    trained = train_arm(prepared, FEDERATED, resume=True)
    network = initial_network(study, classes=len(prepared.classes))
    from_parameters(network, trained.rounds.parameters)
    network.eval()
    home = [prepared.images("test", hospital) for hospital in SEEN]
    away = prepared.images("test", UNSEEN)
    right = np.concatenate([hits(network, images) for images in home])
    return {
        "home": float(right.mean()),
        "unseen": float(hits(network, away).mean()),
        "heat_outside_unseen": outside(network, away),
    }


def hits(network: Network, images: HospitalImages) -> npt.NDArray[np.bool_]:
    """Whether each image's likeliest class is the true one."""
    return np.asarray(predict(network, images).argmax(1) == images.labels)


def outside(network: Network, images: HospitalImages) -> float:
    """Mean share of Grad-CAM's heat outside the head."""
    shares = []
    for start in range(0, len(images), 64):
        rows = np.arange(start, min(start + 64, len(images)))
        pixels = images.take(rows)
        maps = grad_cam(network, to_input(torch.from_numpy(pixels))).maps.numpy()
        for heat, image, row in zip(maps, pixels, rows, strict=True):
            field = find_field(image, images.records[row].modality).field
            if heat.any():
                shares.append(float(heat[~field].sum() / heat.sum()))
    return float(np.mean(shares))


def together(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Means over seeds, their spread, and each arm's paired difference from plain training."""
    figures: dict[str, float] = {}
    for arm, seeds in found.items():
        for name in seeds[0]:
            values = np.array([seed[name] for seed in seeds])
            figures[f"{arm}_{name}_mean"] = float(values.mean())
            figures[f"{arm}_{name}_least"] = float(values.min())
            figures[f"{arm}_{name}_most"] = float(values.max())
            if arm != "plain" and "plain" in found:
                gains = values - np.array([seed[name] for seed in found["plain"]])
                figures[f"{arm}_{name}_gain_mean"] = float(gains.mean())
                figures[f"{arm}_{name}_gain_least"] = float(gains.min())
    return figures


if __name__ == "__main__":
    main()
