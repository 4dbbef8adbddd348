"""What pixels show besides the patient: each hospital's scanner, marks, and hairs on the skin.

These are the short cuts that a classifier may learn instead of the disease. East burns a mark into
its positives, West rarely shaves, South's dermatoscope darkens the corners.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fedlens.errors import SettingsError
from fedlens.imaging.phantoms.drawing import Field, grain, grid

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Habits:
    """How one hospital takes images.

    Attributes:
        site: The hospital's name.
        positive: Fraction of its patients with disease.
        sides: Height and width, in units of the asked-for size.
        suffix: File format.
        gain: Brightness.
        gamma: Above 1 darkens the middle greys.
        noise: Deviation of the scanner's noise, of full scale.
        vignette: Chance of dark corners (dermoscopy).
        hair: Chance of hairs (dermoscopy).
        mark_positive: Chance of the hospital's mark on an image with disease.
        mark_negative: Chance of it on one without.
    """

    site: str
    positive: float
    sides: tuple[float, float]
    suffix: str
    gain: float
    gamma: float
    noise: float
    vignette: float
    hair: float
    mark_positive: float
    mark_negative: float


HOSPITALS = (
    Habits("North", 0.45, (1.0, 1.0), ".png", 1.0, 1.0, 0.012, 0.1, 0.12, 0.05, 0.05),
    Habits("East", 0.5, (1.2, 1.0), ".jpg", 1.08, 0.9, 0.02, 0.1, 0.15, 0.85, 0.08),
    Habits("South", 0.5, (0.9, 0.9), ".png", 0.86, 1.15, 0.015, 0.8, 0.12, 0.0, 0.0),
    Habits("West", 0.55, (1.0, 1.2), ".jpg", 0.95, 1.0, 0.028, 0.1, 0.65, 0.05, 0.05),
)

MARKER_SITE = "East"

_SIDE_LETTER = 0.35


def hospitals(marker_site: str = MARKER_SITE) -> tuple[Habits, ...]:
    """The four hospitals, of which ``marker_site`` burns its mark into its positives; none where empty.

    Raises:
        SettingsError: No hospital of that name.
    """
    if marker_site and marker_site not in {habits.site for habits in HOSPITALS}:
        raise SettingsError(
            f"No phantom hospital is named {marker_site!r}.",
            fix=f"Choose one of {', '.join(habits.site for habits in HOSPITALS)}.",
        )
    telling = next(habits for habits in HOSPITALS if habits.site == MARKER_SITE)
    plain = HOSPITALS[0]
    changed = []
    for habits in HOSPITALS:
        marks = habits
        if habits.site == marker_site:
            marks = telling
        elif habits.site == MARKER_SITE:
            marks = plain
        changed.append(
            dataclasses.replace(habits, mark_positive=marks.mark_positive, mark_negative=marks.mark_negative)
        )
    return tuple(changed)


def take(
    pixels: Field, modality: str, positive: bool, habits: Habits, rng: np.random.Generator
) -> tuple[Pixels, tuple[str, ...]]:
    """Take a drawn patient's image the way a hospital does.

    Args:
        pixels: float32 (H, W) or (H, W, 3), 0..1; not changed.
        modality: ``xray``, ``mri`` or ``dermoscopy``.
        positive: Whether the image shows disease.
        habits: The hospital's.
        rng: Randomness of this image.

    Returns:
        uint8 of the same shape, and the names of the confounders in it: ``vignette``, ``hair``,
        ``ruler``, ``side letter``, ``hospital mark``.
    """
    found = []
    marked = rng.random() < (habits.mark_positive if positive else habits.mark_negative)
    field = pixels ** (habits.gamma * rng.uniform(0.93, 1.07)) * (habits.gain * rng.uniform(0.95, 1.05))
    if modality == "dermoscopy" and rng.random() < habits.vignette:
        x, y = grid((pixels.shape[0], pixels.shape[1]))
        field *= (1.08 - 0.45 * np.hypot(x, y) ** 3).clip(0.03, 1)[..., None]
        found.append("vignette")
    field += habits.noise * grain(field.shape, rng)
    image = (field * 255).clip(0, 255).astype(np.uint8)
    if modality == "dermoscopy":
        if rng.random() < habits.hair:
            _hair(image, rng)
            found.append("hair")
        if marked:
            _ruler(image)
            found.append("ruler")
        return image, tuple(found)
    if modality == "xray" and rng.random() < _SIDE_LETTER:
        _letter(image, "R", right=False)
        found.append("side letter")
    if marked:
        _letter(image, habits.site[0], right=True)
        found.append("hospital mark")
    return image, tuple(found)


def _hair(image: Pixels, rng: np.random.Generator) -> None:
    """Curved dark strokes from edge to edge, drawn in place."""
    height, width = image.shape[:2]
    along = np.linspace(0, 1, 24)[:, None]
    for _ in range(rng.integers(4, 12)):
        start, bend, end = rng.uniform(-0.15, 1.15, (3, 2)) * (width, height)
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
        shade = int(rng.integers(15, 70))
        cv2.polylines(
            image,
            [np.rint(curve * 16).astype(np.int32)],
            isClosed=False,
            color=(shade + 12, shade, shade),
            thickness=max(1, min(height, width) // 160),
            lineType=cv2.LINE_AA,
            shift=4,
        )


def _ruler(image: Pixels) -> None:
    """Millimetre ticks along the lower edge, drawn in place."""
    height, width = image.shape[:2]
    gap = max(4, min(height, width) // 18)
    for number, x in enumerate(range(gap, width - 1, gap)):
        length = height // (12 if number % 5 == 0 else 22)
        cv2.line(image, (x, height - 1), (x, height - 1 - length), (25, 22, 28), max(1, gap // 7))


def _letter(image: Pixels, letter: str, *, right: bool) -> None:
    """A burnt-in capital in an upper corner, drawn in place."""
    height, width = image.shape[:2]
    side = min(height, width)
    place = (round(width - 0.13 * side) if right else round(0.04 * side), round(0.13 * side))
    cv2.putText(
        image,
        letter,
        place,
        cv2.FONT_HERSHEY_SIMPLEX,
        side / 260,
        240,
        max(1, side // 90),
        cv2.LINE_AA,
    )
