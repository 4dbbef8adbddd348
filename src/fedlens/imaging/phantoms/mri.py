"""Axial brain MRI phantoms: ``notumor``, or ``tumor`` that is bright, ring-shaped or dark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedlens.imaging.phantoms.drawing import (
    Field,
    Phantom,
    Shape,
    ellipse,
    fractal,
    noise,
    placed,
    radius,
    ridge,
    step,
)


def draw_mri(
    shape: Shape, positive: bool, anatomy: np.random.Generator, view: np.random.Generator
) -> Phantom:
    """Draw one axial slice; see ``draw_xray`` for the arguments."""
    x, y = placed(shape, view, shift=0.06, turn=7, zoom=0.07)
    axes = (anatomy.uniform(0.62, 0.74), anatomy.uniform(0.8, 0.9))
    rim = radius(x, y, (0, 0), axes, 0) + 0.02 * noise(shape, anatomy, 4)
    brain = step(0.84 - rim, 0.03)
    water_bright = anatomy.random() < 0.25
    tissue = _tissue(shape, x, y, rim, anatomy, view, -0.45 if water_bright else 1.0)
    slice_: Field = brain * tissue
    lesion = None
    if positive:
        slice_, lesion = _tumour(shape, x, y, axes, brain, slice_, view)
    scalp = ridge(rim - 0.97, 0.035) * (0.85 + 0.15 * noise(shape, anatomy, 12))
    slice_ = slice_ + anatomy.uniform(0.5, 0.85) * scalp + 0.06 * step(1 - rim, 0.04)
    return Phantom(slice_.clip(0, 1).astype(np.float32), lesion)


def _tissue(
    shape: Shape,
    x: Field,
    y: Field,
    rim: Field,
    anatomy: np.random.Generator,
    view: np.random.Generator,
    water: float,
) -> Field:
    """Grey and white matter with folds, midline and ventricles; ``water`` darkens (or brightens) fluid."""
    # Folds repeat in every slice of a patient, but shift a little from slice to slice.
    folds = fractal(shape, anatomy, 9, 2) + 0.25 * noise(shape, view, 9)
    outward = step(rim - 0.52, 0.35)
    sulci = ridge(folds, 0.16) * outward
    white = step(0.62 - rim + 0.16 * folds, 0.12)
    tissue: Field = 0.42 + 0.12 * white * np.sign(water) + 0.03 * fractal(shape, view, 6)
    fluid = np.maximum(0.8 * sulci, ridge(x, 0.018) * step(rim - 0.35, 0.1))
    size, low = anatomy.uniform(0.75, 1.35), anatomy.uniform(-0.12, 0.06)
    for side in (-1, 1):
        horn = ellipse(x, y, (side * 0.1, low - 0.12 * size), (0.055 * size, 0.2 * size), side * 16, 0.35)
        tail = ellipse(x, y, (side * 0.15, low + 0.22 * size), (0.05 * size, 0.17 * size), side * -28, 0.4)
        fluid = np.maximum(fluid, np.maximum(horn, tail))
    fluid = np.maximum(fluid, ellipse(x, y, (0, low + 0.1), (0.025, 0.1), 0, 0.5))
    sinus = ridge(radius(x, y, (0, 0.8), (0.05, 0.04), 0), 1)
    tissue = tissue - (0.34 * water) * fluid + 0.3 * sinus
    return tissue


def _tumour(
    shape: Shape,
    x: Field,
    y: Field,
    axes: tuple[float, float],
    brain: Field,
    slice_: Field,
    view: np.random.Generator,
) -> tuple[Field, npt.NDArray[np.bool_]]:
    angle, depth = view.uniform(0, 2 * np.pi), view.uniform(0.25, 0.62)
    centre = (axes[0] * depth * np.cos(angle), axes[1] * depth * np.sin(angle))
    size = view.uniform(0.13, 0.28)
    away = radius(x, y, centre, (size, size * view.uniform(0.75, 1.3)), view.uniform(0, 180))
    away = away + 0.16 * fractal(shape, view, 7, 2)
    mass = step(1 - away, 0.18) * brain
    oedema = step(1.7 - away + 0.3 * noise(shape, view, 6), 0.8) * brain
    texture = 1 + 0.12 * fractal(shape, view, 14, 2)
    strength = view.uniform(0.65, 1.0)
    kind = view.choice(["bright", "ring", "dark"], p=[0.5, 0.35, 0.15])
    if kind == "bright":
        colour = 0.44 + 0.4 * strength * texture
    elif kind == "ring":
        colour = 0.2 + 0.65 * strength * texture * ridge(away - 0.85, 0.22)
    else:
        colour = 0.4 - 0.26 * strength * texture
    swollen = slice_ - (0.13 * strength) * oedema
    return swollen * (1 - mass) + mass * colour, (mass > 0.5) & (brain > 0.5)
