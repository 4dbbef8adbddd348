"""Images with records, bodies and experts' outlines, for tests of measured explanations."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fedlens.hospital.images import HospitalImages
from fedlens.imaging.manifest import ImageRecord

SIZE = 48
CLASSES = ("clear", "spot", "ring")


def outlined_images(folder: Path, count: int, seed: int = 0, *, outlined: int = 2) -> HospitalImages:
    """A bright body on black with a spot that an expert outlined in every ``outlined``-th image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    pixels = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    records, outlines = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for index, label in enumerate(labels):
        body = np.zeros((SIZE, SIZE), np.uint8)
        cv2.circle(body, (SIZE // 2, SIZE // 2), SIZE // 3, 255, -1)
        picture = np.where(body > 0, rng.normal(110, 15, body.shape), rng.normal(3, 1, body.shape))
        where = tuple(int(place) for place in rng.integers(18, 30, 2))
        spot = np.zeros_like(body)
        cv2.circle(spot, where, 4, 255, -1 if label == 1 else 2)
        if label:
            picture = np.where(spot > 0, 220, picture)
        pixels[index] = np.clip(picture, 0, 255).astype(np.uint8)[:, :, None]
        name = f"{seed}-{index}"
        file = folder / f"{name}.png"
        has_one = bool(label) and index % outlined == 0
        if has_one:
            cv2.imwrite(str(file), spot)
        outlines.append(file if has_one else None)
        records.append(
            ImageRecord(
                f"test/{name}", f"{name}.png", CLASSES[label], f"test:{name}", "mri", "test", "0", SIZE, SIZE
            )
        )
    return HospitalImages(
        pixels=pixels,
        rows=np.arange(count),
        labels=labels,
        free_rotation=np.zeros(count, np.bool_),
        records=tuple(records),
        outlines=tuple(outlines),
    )


def joined(parts: list[HospitalImages]) -> HospitalImages:
    """All of them in one place."""
    pixels = np.concatenate([part.take(np.arange(len(part))) for part in parts])
    return HospitalImages(
        pixels=pixels,
        rows=np.arange(len(pixels)),
        labels=np.concatenate([part.labels for part in parts]),
        free_rotation=np.concatenate([part.free_rotation for part in parts]),
        records=tuple(record for part in parts for record in part.records),
        outlines=tuple(outline for part in parts for outline in part.outlines),
    )
