"""Who is imaged where: patients, hospitals, classes and copies of a phantom study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedlens.imaging.phantoms.confounders import HOSPITALS, Habits

CLASSES = {
    "xray": ("NORMAL", "PNEUMONIA"),
    "mri": ("notumor", "tumor"),
    "dermoscopy": ("nv", "mel"),
}
"""Modality to its label without and with disease."""

# One copy of each kind in so many images.
_EXACT_EVERY, _MIRRORED_EVERY = 80, 80


@dataclass(frozen=True)
class PlannedImage:
    """One image to be drawn.

    Attributes:
        path: Relative to the study's folder.
        modality: A key of ``CLASSES``.
        positive: With disease.
        label: As the manifest says; a wrong one in one copy of a large study.
        patient: Name in the manifest.
        habits: The hospital that takes it.
        age: Years.
        sex: ``male`` or ``female``.
        seed: Patient's and image's number: what is drawn follows from them.
        copy_of: Path of the image that this one repeats, or empty.
        mirrored: Whether it repeats it left to right.
    """

    path: str
    modality: str
    positive: bool
    label: str
    patient: str
    habits: Habits
    age: int
    sex: str
    seed: tuple[int, int]
    copy_of: str = ""
    mirrored: bool = False


def plan_images(
    images: int, rng: np.random.Generator, hospitals: Sequence[Habits] = HOSPITALS
) -> list[PlannedImage]:
    """Plan ``images`` images of ``hospitals``, modality by modality; each has its share of copies."""
    planned: list[PlannedImage] = []
    for index, modality in enumerate(CLASSES):
        count = images * (index + 1) // len(CLASSES) - images * index // len(CLASSES)
        exact, mirrored = count // _EXACT_EVERY, count // _MIRRORED_EVERY
        originals = _originals(modality, count - exact - mirrored, (index + 1) * 100_000, rng, hospitals)
        planned += originals
        repeated = rng.permutation(len(originals))[: exact + mirrored]
        for number, source in enumerate(repeated):
            planned.append(_copy(originals[source], len(originals) + number, number >= exact))
        if exact:
            planned[-exact - mirrored] = _mislabelled(planned[-exact - mirrored])
    return planned


def _originals(
    modality: str, count: int, first: int, rng: np.random.Generator, hospitals: Sequence[Habits]
) -> list[PlannedImage]:
    planned: list[PlannedImage] = []
    patients = 0
    while len(planned) < count:
        habits = hospitals[patients % len(hospitals)]
        visit = patients // len(hospitals)
        # Spreads each hospital's positives evenly over its patients, so small studies have both classes.
        positive = int((visit + 1.5) * habits.positive) > int((visit + 0.5) * habits.positive)
        name = f"P{first + patients}"
        age, sex = int(rng.integers(18, 91)), str(rng.choice(["female", "male"]))
        for image in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
            if len(planned) < count:
                planned.append(
                    PlannedImage(
                        path=f"{modality}/{len(planned):05d}{habits.suffix}",
                        modality=modality,
                        positive=positive,
                        label=CLASSES[modality][positive],
                        patient=name,
                        habits=habits,
                        age=age,
                        sex=sex,
                        seed=(first + patients, image),
                    )
                )
        patients += 1
    return planned


def _copy(original: PlannedImage, number: int, mirrored: bool) -> PlannedImage:
    """The same image under another patient's name, as happens when collections are merged."""
    return dataclasses.replace(
        original,
        path=f"{original.modality}/{number:05d}{original.habits.suffix}",
        patient=f"{original.patient}B",
        copy_of=original.path,
        mirrored=mirrored,
    )


def _mislabelled(image: PlannedImage) -> PlannedImage:
    return dataclasses.replace(image, label=CLASSES[image.modality][not image.positive])
