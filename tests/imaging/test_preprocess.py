"""Preparation of one image: shapes, colour, contrast, and what it must leave alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlens.errors import DataError
from fedlens.imaging.preprocess import PROFILES, digest, preprocess, to_input
from fedlens.study import PreprocessSettings

PLAIN = PreprocessSettings(size=32, denoise="none", contrast="none", normalise="none")


def _noise(*shape: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    colour=st.booleans(),
    size=st.integers(16, 40),
    channels=st.sampled_from([1, 3]),
    modality=st.sampled_from(sorted(PROFILES)),
)
def test_any_image_becomes_a_square_of_the_right_shape_and_the_input_stays(
    height: int, width: int, colour: bool, size: int, channels: int, modality: str
) -> None:
    image = _noise(height, width, 3) if colour else _noise(height, width)
    before = image.copy()
    settings = PreprocessSettings(size=size, channels=channels)
    result = preprocess(image, settings, modality)
    assert result.shape == (size, size, channels)
    assert result.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(result, preprocess(image, settings, modality))


def test_without_any_step_an_image_of_the_right_size_passes_unchanged() -> None:
    image = _noise(32, 32, 3)
    assert np.array_equal(preprocess(image, PLAIN, "dermoscopy"), image)


def test_a_read_only_and_flipped_view_is_accepted() -> None:
    image = _noise(50, 40)[::-1, ::-1]
    image.flags.writeable = False
    assert np.array_equal(preprocess(image, PLAIN, "xray"), preprocess(image.copy(), PLAIN, "xray"))


def test_grey_is_repeated_over_three_channels() -> None:
    result = preprocess(_noise(40, 40), PreprocessSettings(size=32), "mri")
    assert np.array_equal(result[..., 0], result[..., 1])
    assert np.array_equal(result[..., 0], result[..., 2])


def test_colour_survives_in_dermoscopy_and_not_in_radiographs() -> None:
    image = np.full((40, 40, 3), (200, 120, 100), np.uint8)
    skin = preprocess(image, PLAIN, "dermoscopy")
    assert tuple(skin[16, 16]) == (200, 120, 100)
    film = preprocess(image, PLAIN, "xray")
    assert len(set(film[16, 16])) == 1
    assert 120 < film[16, 16, 0] < 160


def test_one_channel_takes_the_luminance_of_colour() -> None:
    image = np.full((40, 40, 3), (0, 255, 0), np.uint8)
    settings = PLAIN.model_copy(update={"channels": 1})
    assert preprocess(image, settings, "dermoscopy")[5, 5, 0] == 150


def test_percentiles_stretch_a_dull_image_to_full_range() -> None:
    image = np.tile(np.linspace(90, 130, 32).astype(np.uint8), (32, 1))
    settings = PLAIN.model_copy(update={"normalise": "percentile"})
    result = preprocess(image, settings, "xray")
    assert (result.min(), result.max()) == (0, 255)
    assert np.all(np.diff(result[0, :, 0].astype(int)) >= 0)


def test_the_stretch_is_not_fooled_by_a_few_burnt_in_pixels() -> None:
    image = np.tile(np.linspace(90, 130, 32).astype(np.uint8), (32, 1))
    image[0, :2], image[1, :2] = 255, 0
    settings = PLAIN.model_copy(update={"normalise": "percentile"})
    assert np.ptp(preprocess(image, settings, "xray")[2:]) == 255


def test_dermoscopy_is_not_stretched() -> None:
    image = _noise(32, 32, 3, low=90, high=130)
    settings = PLAIN.model_copy(update={"normalise": "percentile"})
    assert np.array_equal(preprocess(image, settings, "dermoscopy"), image)


@pytest.mark.parametrize("level", [0, 3, 100, 252])
@pytest.mark.parametrize("modality", sorted(PROFILES))
def test_the_noise_of_an_empty_image_is_not_blown_up(level: int, modality: str) -> None:
    image = level + _noise(100, 80, high=3)
    assert np.ptp(preprocess(image, PreprocessSettings(size=64), modality)) <= 16


def test_median_removes_salt_and_pepper() -> None:
    image = np.full((32, 32), 100, np.uint8)
    image[8::8, 8::8] = 255
    assert np.all(preprocess(image, PLAIN.model_copy(update={"denoise": "median"}), "xray") == 100)


@pytest.mark.parametrize("denoise", ["median", "bilateral", "nlm"])
@pytest.mark.parametrize("modality", ["mri", "dermoscopy"])
def test_every_denoiser_lowers_noise_and_keeps_an_edge(denoise: str, modality: str) -> None:
    clean = np.full((32, 32, 3), 60, np.uint8)
    clean[:, 16:] = 190
    noise = np.random.default_rng(1).normal(0, 6, (32, 32, 1))
    image = np.clip(clean + noise, 0, 255).astype(np.uint8)
    result = preprocess(image, PLAIN.model_copy(update={"denoise": denoise}), modality).astype(int)
    assert np.abs(result - clean)[:, 2:-2].mean() < 0.75 * np.abs(image.astype(int) - clean)[:, 2:-2].mean()
    assert result[:, 20:].mean() - result[:, :12].mean() > 120


def test_clahe_raises_local_contrast() -> None:
    image = np.clip(np.linspace(40, 200, 64)[None, :] + 6 * np.sin(np.arange(64))[:, None], 0, 255)
    settings = PLAIN.model_copy(update={"size": 64})
    plain = preprocess(image.astype(np.uint8), settings, "xray")[..., 0]
    raised = preprocess(image.astype(np.uint8), settings.model_copy(update={"contrast": "clahe"}), "xray")
    assert raised[..., 0].std(axis=0).mean() > 1.3 * plain.std(axis=0).mean()


def test_a_long_narrow_image_is_averaged_not_sampled() -> None:
    stripes = np.zeros((20, 640), np.uint8)
    stripes[:, ::2] = 200
    result = preprocess(stripes, PLAIN, "xray")
    assert np.all(np.abs(result.astype(int) - 100) <= 2)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="shape"):
        preprocess(image, PLAIN, "xray")


def test_an_unknown_modality_is_named_and_a_forced_profile_overrides_it() -> None:
    image = _noise(32, 32)
    with pytest.raises(DataError, match="'sonar'"):
        preprocess(image, PLAIN, "sonar")
    forced = PreprocessSettings(size=32, profile="mri")
    assert np.array_equal(preprocess(image, forced, "sonar"), preprocess(image, forced, "mri"))


def test_the_digest_follows_every_setting() -> None:
    settings = [
        PLAIN,
        PLAIN.model_copy(update={"size": 33}),
        PLAIN.model_copy(update={"channels": 1}),
        PLAIN.model_copy(update={"denoise": "median"}),
        PLAIN.model_copy(update={"contrast": "clahe"}),
        PLAIN.model_copy(update={"normalise": "percentile"}),
        PLAIN.model_copy(update={"profile": "mri"}),
    ]
    assert len({digest(each) for each in settings}) == len(settings)
    assert digest(PLAIN) == digest(PreprocessSettings(**PLAIN.model_dump()))


def test_network_input_is_channels_last_and_leaves_the_pixels_alone() -> None:
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    before = pixels.clone()
    inputs = to_input(pixels)
    assert inputs.shape == (2, 3, 5, 7)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(inputs[1, 2, 3, 4] * 64 + 127.5, pixels[1, 3, 4, 2].float())
    assert torch.equal(pixels, before)


@pytest.mark.real
def test_real_images_keep_their_structure(shared_data: Path) -> None:
    folders = {
        "xray": shared_data / "chest_xray" / "test" / "NORMAL",
        "mri": shared_data / "brain_mri" / "Testing" / "glioma",
        "dermoscopy": shared_data / "ham10000" / "images",
    }
    for modality, folder in folders.items():
        for path in sorted(folder.iterdir())[:5]:
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            result = preprocess(image, PreprocessSettings(size=96), modality)
            small = cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA)
            assert np.corrcoef(result.ravel(), small.ravel())[0, 1] > 0.8, path
            assert np.ptp(result) > 120, path
