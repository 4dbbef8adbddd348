"""Phantoms: procedurally drawn images of three modalities, with known lesions and confounders.

They stand in for real images where none may be had, and show what those cannot: where the lesion
is exactly, and which short cut an image offers. The folder is an ordinary CSV manifest's.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError, SettingsError
from fedlens.files import write_text
from fedlens.imaging.phantoms.confounders import MARKER_SITE, hospitals, take
from fedlens.imaging.phantoms.dermoscopy import draw_dermoscopy
from fedlens.imaging.phantoms.drawing import Phantom, Shape
from fedlens.imaging.phantoms.mri import draw_mri
from fedlens.imaging.phantoms.plan import CLASSES, PlannedImage, plan_images
from fedlens.imaging.phantoms.xray import draw_xray
from fedlens.imaging.staging import staged_folder
from fedlens.progress import Progress, silent

__all__ = [
    "CLASSES",
    "MANIFEST_CSV",
    "TRUTH_CSV",
    "PhantomTruth",
    "TakenPhantom",
    "draw_phantoms",
    "read_truth",
    "take_phantom",
]

MANIFEST_CSV = "manifest.csv"
TRUTH_CSV = "truth.csv"
_TRUTH_COLUMNS = ("path", "confounders", "box", "copy_of", "mirrored")

_DRAW: dict[str, Callable[[Shape, bool, np.random.Generator, np.random.Generator], Phantom]] = {
    "xray": draw_xray,
    "mri": draw_mri,
    "dermoscopy": draw_dermoscopy,
}


@dataclass(frozen=True)
class PhantomTruth:
    """What is known about a phantom beyond its manifest row.

    Attributes:
        path: Relative to the phantoms' folder.
        confounders: Names of the short cuts in the image; see ``confounders.take``.
        box: Lesion's bounding box (left, top, right, bottom), pixels, right and bottom exclusive;
            None where there is no lesion.
        copy_of: Path of the image that this one repeats, or empty.
        mirrored: Whether it repeats it left to right.
    """

    path: str
    confounders: tuple[str, ...]
    box: tuple[int, int, int, int] | None
    copy_of: str = ""
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class TakenPhantom:
    """A planned image, drawn and taken.

    Attributes:
        pixels: uint8 (H, W) or (H, W, 3) RGB.
        lesion: bool (H, W); None where there is none.
        confounders: Names of the short cuts in the image; see ``confounders.take``.
    """

    pixels: npt.NDArray[np.uint8]
    lesion: npt.NDArray[np.bool_] | None
    confounders: tuple[str, ...]


def draw_phantoms(
    out: Path,
    *,
    images: int = 1200,
    seed: int = 0,
    size: int = 160,
    marker_site: str = MARKER_SITE,
    progress: Progress = silent,
) -> Path:
    """Draw a study of three modalities, two classes each, taken at four hospitals.

    Chest radiographs (``NORMAL``, ``PNEUMONIA``), brain MRI (``notumor``, ``tumor``) and dermoscopy
    (``nv``, ``mel``) in equal parts. ``manifest.csv`` has the columns path, label, patient, mask,
    site, modality, age and sex, and imports like anyone's; ``truth.csv`` keeps the confounders.
    The same arguments give the same pixels.

    Args:
        out: Folder to make; must be new or empty.
        images: How many; at least 24, so that every hospital has both classes.
        seed: Of everything drawn.
        size: Typical side, pixels, at least 48; hospitals differ in size and shape.
        marker_site: The hospital that burns its mark (a letter, on skin a ruler) into most of its images
            with disease; none where empty.
        progress: Called with step ``draw``.

    Returns:
        ``out``. It appears whole or not at all.

    Raises:
        SettingsError: Too few or too small images, or no hospital of that name.
        DataError: ``out`` holds files already, or cannot be written.
    """
    if images < 24 or size < 48:
        raise SettingsError(
            f"Cannot draw {images} phantoms of {size} pixels.", fix="Ask for 24 or more of 48 or more."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists already.", fix="Choose a new folder, or empty this one.")
    planned = plan_images(images, np.random.default_rng(seed), hospitals(marker_site))
    with staged_folder(out) as folder:
        for modality in CLASSES:
            (folder / modality).mkdir()
            (folder / "masks" / modality).mkdir(parents=True)
        truths = []
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for truth in pool.map(lambda image: _draw(folder, image, seed, size), planned):
                truths.append(truth)
                progress("draw", len(truths), images)
        _write_tables(folder, planned, truths)
    return out


def read_truth(folder: Path) -> dict[str, PhantomTruth]:
    """What is known about each phantom, by its path in ``folder``.

    Raises:
        DataError: No ``truth.csv`` of this version's form.
    """
    path = folder / TRUTH_CSV
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return {
                row["path"]: PhantomTruth(
                    path=row["path"],
                    confounders=tuple(filter(None, row["confounders"].split(";"))),
                    box=_parse_box(row["box"]),
                    copy_of=row["copy_of"],
                    mirrored=row["mirrored"] == "yes",
                )
                for row in csv.DictReader(stream)
            }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.", fix="Draw the phantoms again.") from error


def take_phantom(image: PlannedImage, seed: int, size: int) -> TakenPhantom:
    """Draw one planned image; ``seed`` and ``size`` as in ``draw_phantoms``."""
    patient, view = image.seed
    shape = (round(size * image.habits.sides[0]), round(size * image.habits.sides[1]))
    phantom = _DRAW[image.modality](
        shape,
        image.positive,
        np.random.default_rng((seed, patient)),
        np.random.default_rng((seed, patient, view, 1)),
    )
    rng = np.random.default_rng((seed, patient, view, 2))
    pixels, confounders = take(phantom.pixels, image.modality, image.positive, image.habits, rng)
    lesion = phantom.lesion
    if image.mirrored:
        pixels, lesion = pixels[:, ::-1], None if lesion is None else lesion[:, ::-1]
    return TakenPhantom(pixels, lesion, confounders)


def _draw(folder: Path, image: PlannedImage, seed: int, size: int) -> PhantomTruth:
    """Draw and write one image and its mask."""
    taken = take_phantom(image, seed, size)
    _write_image(folder / image.path, taken.pixels)
    if taken.lesion is not None:
        _write_image(folder / _mask_path(image), taken.lesion.astype(np.uint8) * np.uint8(255))
    return PhantomTruth(image.path, taken.confounders, _box(taken.lesion), image.copy_of, image.mirrored)


def _write_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else np.ascontiguousarray(pixels)
    _, content = cv2.imencode(path.suffix, stored)
    path.write_bytes(content.tobytes())


def _write_tables(folder: Path, planned: Sequence[PlannedImage], truths: Sequence[PhantomTruth]) -> None:
    rows = [
        (
            image.path,
            image.label,
            image.patient,
            _mask_path(image) if truth.box else "",
            image.habits.site,
            image.modality,
            image.age,
            image.sex,
        )
        for image, truth in zip(planned, truths, strict=True)
    ]
    columns = ("path", "label", "patient", "mask", "site", "modality", "age", "sex")
    write_text(folder / MANIFEST_CSV, _table(columns, rows))
    known = [
        (
            truth.path,
            ";".join(truth.confounders),
            " ".join(map(str, truth.box or ())),
            truth.copy_of,
            "yes" if truth.mirrored else "",
        )
        for truth in truths
    ]
    write_text(folder / TRUTH_CSV, _table(_TRUTH_COLUMNS, known))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _mask_path(image: PlannedImage) -> str:
    return f"masks/{Path(image.path).with_suffix('.png').as_posix()}"


def _box(lesion: npt.NDArray[np.bool_] | None) -> tuple[int, int, int, int] | None:
    if lesion is None or not lesion.any():
        return None
    left, top, width, height = cv2.boundingRect(lesion.astype(np.uint8))
    return left, top, left + width, top + height


def _parse_box(text: str) -> tuple[int, int, int, int] | None:
    if not text:
        return None
    left, top, right, bottom = map(int, text.split())
    return left, top, right, bottom
