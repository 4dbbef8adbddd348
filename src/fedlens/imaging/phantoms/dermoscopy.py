"""Dermoscopy phantoms: ``nv``, round and of one brown; ``mel``, ragged and of several colours."""

from __future__ import annotations

import numpy as np

from fedlens.imaging.phantoms.drawing import Field, Phantom, Shape, fractal, grid, noise, ridge, step

_SKINS = np.array([[0.93, 0.74, 0.68], [0.88, 0.66, 0.6], [0.84, 0.68, 0.56], [0.72, 0.54, 0.44]], np.float32)
_BROWNS = np.array([[0.5, 0.32, 0.22], [0.58, 0.38, 0.26], [0.42, 0.27, 0.19], [0.62, 0.36, 0.3]], np.float32)
# Black, blue-grey veil, red, and the white of regression.
_PATCHES = np.array([[0.14, 0.09, 0.09], [0.4, 0.42, 0.52], [0.66, 0.3, 0.28], [0.82, 0.72, 0.7]], np.float32)


def draw_dermoscopy(
    shape: Shape, positive: bool, anatomy: np.random.Generator, view: np.random.Generator
) -> Phantom:
    """Draw one skin lesion; ``anatomy`` belongs to the lesion. See ``draw_xray`` for the arguments."""
    skin = _SKINS[anatomy.integers(len(_SKINS))] * anatomy.uniform(0.92, 1.06)
    lines = ridge(fractal(shape, view, 34, 2), 0.12)
    shade = 1 + 0.03 * fractal(shape, view, 3) - 0.035 * lines + 0.015 * noise(shape, view, 70)
    flush = np.array([0.006, -0.013, -0.008], np.float32) * fractal(shape, view, 4)[..., None]
    ground = skin * shade[..., None] + flush
    away = _outline(shape, positive, anatomy, view)
    cover = step(-away, anatomy.uniform(0.03, 0.1) if positive else anatomy.uniform(0.06, 0.16))
    pigment = _pigment(shape, away, positive, anatomy, view)
    strength = anatomy.uniform(0.7, 0.96) * cover[..., None]
    pixels = ground * (1 - strength) + pigment * strength
    return Phantom(pixels.clip(0, 1).astype(np.float32), away < 0)


def _outline(shape: Shape, positive: bool, anatomy: np.random.Generator, view: np.random.Generator) -> Field:
    """Signed distance from the lesion's edge, negative inside, about in coordinate units."""
    x, y = grid(shape)
    middle = view.uniform(-0.14, 0.14, 2).astype(np.float32)
    x, y = x - middle[0], y - middle[1]
    angle = np.arctan2(y, x) + np.float32(view.uniform(0, 2 * np.pi))
    size = anatomy.uniform(0.36, 0.62) if positive else anatomy.uniform(0.28, 0.56)
    edge = np.ones(shape, np.float32)
    edge += anatomy.uniform(0.03, 0.16) * np.cos(2 * angle)
    raggedness = anatomy.uniform(0.05, 0.13) if positive else anatomy.uniform(0.005, 0.05)
    for waves in range(3, 10):
        height = raggedness * anatomy.uniform(0.2, 1.0) / np.sqrt(waves / 3)
        edge += float(height) * np.cos(waves * angle + anatomy.uniform(0, 6.3))
    rough = (0.035 if positive else 0.02) * fractal(shape, anatomy, 9, 2)
    away: Field = np.hypot(x, y) - size * edge + rough
    return away


def _pigment(
    shape: Shape, away: Field, positive: bool, anatomy: np.random.Generator, view: np.random.Generator
) -> Field:
    """Colours inside the lesion, float32 (H, W, 3)."""
    brown = _BROWNS[anatomy.integers(len(_BROWNS))] * anatomy.uniform(0.85, 1.15)
    network = ridge(noise(shape, view, 30), 0.35)
    depth = step(-away, 0.5)
    tone = 1.12 - 0.28 * depth - 0.15 * network + 0.1 * fractal(shape, anatomy, 7)
    pigment: Field = brown * tone[..., None]
    # Some moles have a second colour too, and some melanomas only one: not every case is plain.
    count = (
        anatomy.choice([1, 2, 3], p=[0.2, 0.45, 0.35]) if positive else anatomy.choice([0, 1], p=[0.85, 0.15])
    )
    for colour in anatomy.permutation(len(_PATCHES))[:count]:
        level = anatomy.uniform(0.1, 0.6)
        patch = step(fractal(shape, anatomy, 5, 3) - level, 1.1)[..., None]
        pigment = pigment * (1 - 0.8 * patch) + _PATCHES[colour] * tone[..., None] * patch * 0.8
    return pigment
