"""Shapes and textures that the phantoms are drawn with.

Coordinates are in halves of the shorter side: the middle is (0, 0), y points down.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Phantom:
    """One drawn image.

    Attributes:
        pixels: float32 (H, W) or (H, W, 3) RGB, 0..1.
        lesion: bool (H, W), the lesion's outline; None where there is none.
    """

    pixels: Field
    lesion: npt.NDArray[np.bool_] | None


@functools.lru_cache(maxsize=16)
def grid(shape: Shape) -> tuple[Field, Field]:
    """x and y of every pixel's middle, float32 (H, W), read-only."""
    height, width = shape
    half = min(shape) / 2
    x = np.arange(width, dtype=np.float32) + 0.5 - width / 2
    y = np.arange(height, dtype=np.float32) + 0.5 - height / 2
    fields = np.meshgrid(x / half, y / half)
    for field in fields:
        field.flags.writeable = False
    return fields[0], fields[1]


def placed(
    shape: Shape, rng: np.random.Generator, *, shift: float, turn: float, zoom: float
) -> tuple[Field, Field]:
    """A grid as a patient lies on it: shifted, turned (degrees) and zoomed at random within limits."""
    x, y = grid(shape)
    angle = np.radians(rng.uniform(-turn, turn))
    scale = np.float32(1 / rng.uniform(1 - zoom, 1 + zoom))
    cosine, sine = np.float32(np.cos(angle)) * scale, np.float32(np.sin(angle)) * scale
    right, down = rng.uniform(-shift, shift, 2).astype(np.float32)
    x, y = x - right, y - down
    return cosine * x - sine * y, sine * x + cosine * y


def step(distance: Field, softness: float) -> Field:
    """0 where ``distance`` is well below zero, 1 well above; ``softness`` wide between."""
    ramp: Field = np.clip(distance * (0.5 / softness) + 0.5, 0, 1)
    smooth: Field = ramp * ramp * (3 - 2 * ramp)
    return smooth


def ridge(distance: Field, width: float) -> Field:
    """1 on a line, falling to 0 about ``width`` away from it."""
    line: Field = np.exp(-np.square(distance * (1 / width)))
    return line


def radius(x: Field, y: Field, centre: tuple[float, float], axes: tuple[float, float], turn: float) -> Field:
    """Distance from an ellipse's middle in units of its axes; 1 on its outline. ``turn`` in degrees."""
    cosine, sine = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    along = (cosine * x + sine * y) * np.float32(1 / axes[0])
    across = (cosine * y - sine * x) * np.float32(1 / axes[1])
    return np.sqrt(along * along + across * across)


def ellipse(
    x: Field,
    y: Field,
    centre: tuple[float, float],
    axes: tuple[float, float],
    turn: float = 0.0,
    softness: float = 0.2,
) -> Field:
    """1 inside an ellipse, 0 outside; ``softness`` in units of its axes."""
    return step(1 - radius(x, y, centre, axes, turn), softness)


def noise(shape: Shape, rng: np.random.Generator, cells: float) -> Field:
    """Smooth noise with about ``cells`` bumps along the shorter side; mean 0, deviation about 0.6."""
    rows, columns = (max(2, round(cells * side / min(shape))) for side in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def fractal(shape: Shape, rng: np.random.Generator, cells: float, octaves: int = 3) -> Field:
    """Noise over several octaves, each half as strong and twice as fine."""
    field = noise(shape, rng, cells)
    for octave in range(1, octaves):
        field += noise(shape, rng, cells * 2**octave) * 0.5**octave
    return field


def grain(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """White noise of deviation 1."""
    return rng.standard_normal(shape, dtype=np.float32)
