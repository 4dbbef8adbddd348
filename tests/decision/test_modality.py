"""Images of kinds that a network never learnt from are refused, in words."""

from __future__ import annotations

import numpy as np
import pytest

from fedlens.decision.modality import COLOURED, MODALITIES, KnownModalities, colour_histogram, colour_of
from fedlens.imaging.preprocess import PROFILES


def known(*names: str, colour: float = 60.0) -> KnownModalities:
    kinds = np.array([MODALITIES.index(name) for name in names for _ in range(100)], np.int64)
    colours = np.array([colour if MODALITIES[kind] in COLOURED else 0.0 for kind in kinds])
    return KnownModalities.fit(colour_histogram(colours, kinds))


def test_kinds_are_those_that_preparation_knows() -> None:
    assert set(MODALITIES) == set(PROFILES)
    assert {name for name, profile in PROFILES.items() if profile.colour} == COLOURED


@pytest.mark.parametrize(
    ("trained", "stated", "colour", "likely"),
    [
        (("dermoscopy",), "", 50, ("dermoscopy",)),
        (("dermoscopy",), "dermoscopy", 50, ("dermoscopy",)),
        (("dermoscopy",), "", 0, ()),
        (("dermoscopy",), "xray", 0, ()),
        (("mri",), "", 0, ("mri",)),
        (("mri",), "", 5, ("mri",)),
        (("mri",), "", 60, ()),
        (("mri",), "ct", 0, ()),
        (("mri",), "other", 0, ("mri",)),
        (("xray", "mri", "dermoscopy"), "", 0, ("xray", "mri")),
        (("xray", "mri", "dermoscopy"), "", 60, ("dermoscopy",)),
        (("xray", "mri", "dermoscopy"), "mri", 0, ("mri",)),
        (("other",), "", 0, ("other",)),
        (("other",), "xray", 0, ("other",)),
    ],
)
def test_which_kind_an_image_may_be(
    trained: tuple[str, ...], stated: str, colour: float, likely: tuple[str, ...]
) -> None:
    kinds = known(*trained)
    assert kinds.likely(stated, colour) == likely
    assert bool(kinds.refusal(stated, colour)) == (not likely)


def test_refusals_name_what_was_given_and_what_was_learnt() -> None:
    skin = known("dermoscopy")
    assert skin.refusal("xray", 0) == (
        "this is an X-ray film, and the network learnt from dermoscopic images only"
    )
    assert "grey" in skin.refusal("", 0)
    both = known("xray", "mri").refusal("", 80)
    assert "in colour" in both and "X-ray films and magnetic resonance images" in both


def test_grey_lesions_are_no_reason_where_some_were_learnt_from() -> None:
    assert known("dermoscopy", colour=0.0).likely("", 0.0) == ("dermoscopy",)


def test_colour() -> None:
    grey = np.full((300, 400), 90, np.uint8)
    assert colour_of(grey) == colour_of(grey[:, :, None]) == colour_of(np.dstack([grey] * 3)) == 0
    assert colour_of(np.dstack([grey + 40, grey, grey])) == 40
    assert colour_histogram(np.array([300.0]), np.zeros(1, np.int64))[0, 255] == 1
