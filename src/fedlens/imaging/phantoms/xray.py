"""Chest radiograph phantoms: ``NORMAL``, or ``PNEUMONIA`` with soft opacities in a lung."""

from __future__ import annotations

import numpy as np

from fedlens.imaging.phantoms.drawing import (
    Field,
    Phantom,
    Shape,
    ellipse,
    fractal,
    placed,
    radius,
    ridge,
    step,
)


def draw_xray(
    shape: Shape, positive: bool, anatomy: np.random.Generator, view: np.random.Generator
) -> Phantom:
    """Draw one frontal chest radiograph.

    Args:
        shape: Height and width, pixels.
        positive: With pneumonia.
        anatomy: Randomness that all images of a patient share.
        view: Randomness of this image alone.
    """
    x, y = placed(shape, view, shift=0.05, turn=3, zoom=0.05)
    x = x / anatomy.uniform(0.9, 1.08)
    y = y / anatomy.uniform(0.94, 1.06)
    side = np.abs(x)
    heart = ellipse(x, y, (anatomy.uniform(0.1, 0.17), 0.24), (anatomy.uniform(0.26, 0.36), 0.33), 35, 0.25)
    lungs = _lungs(x, y, anatomy) * (1 - 0.9 * heart) * step(side - 0.14, 0.08)
    width = 0.3 + 0.72 * step(y + 0.82, 0.16)
    body = step(width - side, 0.07)
    film = 0.05 + body * (0.54 + 0.06 * y) - lungs * anatomy.uniform(0.36, 0.42)
    film += 0.09 * heart + 0.06 * body * ridge(x, 0.2)
    film += body * _bones(x, y, side, lungs, anatomy)
    hila = np.exp(-5 * np.minimum(radius(side, y, (0.24, 0.02), (1, 1.3), 0), 1))
    vessels = ridge(fractal(shape, anatomy, 9, 2), 0.25)
    film += lungs * (0.24 * vessels * hila + 0.05 * hila + 0.03 * fractal(shape, view, 5))
    lesion = None
    if positive:
        opacity = _opacity(shape, x, y, lungs, view)
        film += opacity * (0.75 - film).clip(0) * 1.1
        lesion = opacity > 0.22
    return Phantom(film.clip(0, 1).astype(np.float32), lesion)


def _lungs(x: Field, y: Field, anatomy: np.random.Generator) -> Field:
    lungs = np.zeros_like(x)
    floor = anatomy.uniform(0.42, 0.56)
    for side, dome in ((-1.0, 0.0), (1.0, 0.07)):
        u = (x * side - 0.43) / (0.31 + 0.08 * y)
        v = (y + 0.03) / 0.72
        lung = step(1 - np.abs(u) ** 2.4 - v**2, 0.16)
        diaphragm = (floor + dome) + 0.11 * (u + 0.25) ** 2
        lungs += lung * step(diaphragm - y, 0.04)
    return lungs.clip(0, 1)


def _bones(x: Field, y: Field, side: Field, lungs: Field, anatomy: np.random.Generator) -> Field:
    """Spine, ribs (seen best against the lungs) and collar bones."""
    spine = ridge(x, 0.075) * (1 + 0.25 * np.cos(y * np.float32(2 * np.pi / 0.15)))
    spacing, phase = anatomy.uniform(0.15, 0.175), anatomy.uniform(0, 1)
    cage = step(0.78 - side, 0.1) * step(0.75 - np.abs(y + 0.12), 0.15)
    back = (y - 1.15 * np.square(side - 0.3)) / spacing + phase
    front = (y + 0.5 * side) / (spacing * 1.25) + phase
    ribs = ridge(back - np.floor(back) - 0.5, 0.2) * cage * (0.05 + 0.1 * lungs)
    ribs += ridge(front - np.floor(front) - 0.5, 0.16) * cage * 0.035 * lungs
    slope = anatomy.uniform(0.12, 0.24)
    collar = ridge(y + 0.6 + slope * (side - 0.1), 0.032)
    bones: Field = 0.13 * spine + ribs + 0.13 * collar * step(side - 0.1, 0.05) * step(0.8 - side, 0.1)
    return bones


def _opacity(shape: Shape, x: Field, y: Field, lungs: Field, view: np.random.Generator) -> Field:
    """Patchy soft clouds inside one or both lungs, 0..1."""
    cloud = np.zeros_like(x)
    home = view.choice([-1.0, 1.0])
    for _ in range(view.integers(2, 4)):
        side = home if view.random() < 0.75 else -home
        centre = (side * view.uniform(0.3, 0.52), view.uniform(-0.35, 0.35))
        axes = (view.uniform(0.16, 0.27), view.uniform(0.17, 0.32))
        cloud = np.maximum(cloud, ellipse(x, y, centre, axes, view.uniform(0, 180), 1.1))
    texture = (0.85 + 0.4 * fractal(shape, view, 8)).clip(0.2, 1.3)
    strength = view.uniform(0.6, 1.05)
    opacity: Field = (cloud * texture * step(lungs - 0.3, 0.3) * strength).clip(0, 1)
    return opacity
