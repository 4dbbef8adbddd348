"""Reading and preparing 1-megapixel JPEGs, against MONAI's transforms for the same steps.

MONAI has no CLAHE; its ``HistogramNormalize`` (global equalisation, which is less work) stands in.
Both sides decode with Pillow, shrink by area first, and run in one process, taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from _figures import write_figures
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    HistogramNormalize,
    LoadImage,
    MedianSmooth,
    Resize,
    ScaleIntensityRangePercentiles,
)

from fedlens.imaging.augment import draw_warps, warp
from fedlens.imaging.formats import read_image
from fedlens.imaging.preprocess import preprocess, to_input
from fedlens.study import AugmentSettings, PreprocessSettings

SIDE = 1024
SIZE = 224
IMAGES = 8
ROUNDS = 7

Prepare = Callable[[Path], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    json = parser.parse_args().json
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for modality in ("xray", "dermoscopy"):
            files = draw_files(Path(folder), modality)
            for threads in (1, 2):
                figures |= compare(files, modality, threads)
    figures |= augmentation()
    write_figures(json, figures)


def draw_files(folder: Path, modality: str) -> list[Path]:
    """JPEGs of one megapixel with structure at all scales, grey or in colour."""
    rng = np.random.default_rng(0)
    channels = 3 if modality == "dermoscopy" else 1
    files = []
    for number in range(IMAGES):
        image = np.zeros((SIDE, SIDE, channels), np.float32)
        for cells in (4, 16, 64, 256):
            coarse = rng.normal(0, 1, (cells, cells, channels)).astype(np.float32)
            layer = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            image += layer.reshape(image.shape) * (40 / np.sqrt(cells))
        image += 120 + rng.normal(0, 4, image.shape)
        file = folder / f"{modality}{number}.jpg"
        cv2.imwrite(str(file), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        files.append(file)
    return files


def compare(files: Sequence[Path], modality: str, threads: int) -> dict[str, float]:
    """Images a second of both sides, and the median ratio of their turns."""
    settings = PreprocessSettings(size=SIZE)

    def ours(file: Path) -> object:
        return preprocess(read_image(file), settings, modality)

    monai = Compose(
        [
            LoadImage(reader="PILReader", image_only=True),
            EnsureChannelFirst(),
            Resize((SIZE, SIZE), mode="area"),
            ScaleIntensityRangePercentiles(0.5, 99.5, 0, 255, clip=True),
            MedianSmooth(radius=1),
            HistogramNormalize(num_bins=256, min=0, max=255),
        ]
    )
    ours_seconds, monai_seconds = [], []
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for turn in range(ROUNDS + 1):
            pair = (seconds(pool, ours, files), seconds(pool, monai, files))
            if turn:  # the first turn warms up
                ours_seconds.append(pair[0])
                monai_seconds.append(pair[1])
    ratios = [b / a for a, b in zip(ours_seconds, monai_seconds, strict=True)]
    name = f"{modality}_threads{threads}"
    return {
        f"preprocess_{name}_images_per_second": len(files) / statistics.median(ours_seconds),
        f"monai_{name}_images_per_second": len(files) / statistics.median(monai_seconds),
        f"preprocess_{name}_speedup_over_monai": statistics.median(ratios),
        f"preprocess_{name}_speedup_over_monai_least": min(ratios),
    }


def seconds(pool: ThreadPoolExecutor, prepare: Prepare, files: Sequence[Path]) -> float:
    """Wall time to prepare all files."""
    began = time.perf_counter()
    for _ in pool.map(prepare, files):
        pass
    return time.perf_counter() - began


def augmentation() -> dict[str, float]:
    """Images a second on one core, for 128 and 224 px in colour."""
    figures = {}
    for size in (128, SIZE):
        pixels = np.random.default_rng(0).integers(0, 256, (256, size, size, 3), dtype=np.uint8)
        free = np.arange(256) % 3 == 0
        rng = np.random.default_rng(0)
        spans = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            augmented = warp(pixels, draw_warps(pixels.shape[1], AugmentSettings(), rng, free))
            middle = time.perf_counter()
            to_input(torch.from_numpy(augmented))
            spans.append((middle - began, time.perf_counter() - middle))
        figures[f"augment_{size}px_images_per_second"] = 256 / statistics.median(s[0] for s in spans)
        figures[f"to_input_{size}px_images_per_second"] = 256 / statistics.median(s[1] for s in spans)
    return figures


if __name__ == "__main__":
    main()
