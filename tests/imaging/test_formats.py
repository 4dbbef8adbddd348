"""Decoding of every awkward kind of image file."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedlens.errors import UnreadableImageError
from fedlens.imaging.formats import decode, decode_mask, locate, read_image, read_mask, read_record
from fedlens.imaging.manifest import ImageRecord, Manifest


def ramp(height: int = 20, width: int = 30) -> npt.NDArray[np.uint8]:
    return np.add.outer(np.arange(height) * 4, np.arange(width) * 5).astype(np.uint8)


def colours(height: int = 20, width: int = 30) -> npt.NDArray[np.uint8]:
    grey = ramp(height, width)
    return np.dstack([grey, grey[::-1], grey[:, ::-1]])


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_grey_and_colour_come_back_exactly(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "grey.png")
    Image.fromarray(colours()).save(tmp_path / "colour.bmp")
    assert np.array_equal(read_image(tmp_path / "grey.png"), ramp())
    assert np.array_equal(read_image(tmp_path / "colour.bmp"), colours())


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_16_bit_grey_is_scaled_by_the_bits_in_use(top: int) -> None:
    values = np.linspace(0, top, 600).reshape(20, 30).astype(np.uint16)
    _, png = cv2.imencode(".png", values)
    image = decode(png.tobytes(), "a.png")
    assert image.pixels.dtype == np.uint8
    assert (image.pixels.min(), image.pixels.max()) == (0, 255)
    assert np.abs(image.pixels - values / top * 255).max() <= 0.51
    assert "8 bits" in image.notes[0]


def test_16_bit_colour_is_named() -> None:
    _, png = cv2.imencode(".png", colours()[..., ::-1].astype(np.uint16) * 257)
    image = decode(png.tobytes(), "a.png")
    assert np.array_equal(image.pixels, colours())
    assert image.notes == ("scaled from 16 to 8 bits",)


def test_float_tiff_is_stretched_and_survives_nan() -> None:
    values = np.linspace(-1.5, 3, 600, dtype=np.float32).reshape(20, 30)
    values[0, 5] = np.nan
    image = decode(encoded(Image.fromarray(values), "TIFF"), "a.tif")
    assert (image.pixels[0, 0], image.pixels[-1, -1]) == (0, 255)


def test_palette_becomes_rgb() -> None:
    palette = Image.fromarray(colours()).quantize(16)
    image = decode(encoded(palette, "PNG"), "a.png")
    assert np.array_equal(image.pixels, np.asarray(palette.convert("RGB")))
    assert "palette" in image.notes[0]


def test_cmyk_becomes_rgb() -> None:
    image = decode(encoded(Image.fromarray(colours()).convert("CMYK"), "JPEG", quality=95), "a.jpg")
    assert image.pixels.shape == (20, 30, 3)
    assert np.abs(image.pixels.astype(int) - colours()).mean() < 6
    assert "CMYK" in image.notes[0]


def test_transparent_parts_are_black_not_what_hides_there() -> None:
    layered = np.dstack([colours(), np.full((20, 30), 255, np.uint8)])
    layered[:10, :, 3] = 0
    image = decode(encoded(Image.fromarray(layered), "PNG"), "a.png")
    assert not image.pixels[:10].any()
    assert np.array_equal(image.pixels[10:], colours()[10:])
    assert "transparency" in image.notes[0]


def test_grey_with_alpha_stays_grey() -> None:
    layered = np.dstack([ramp(), np.full((20, 30), 255, np.uint8)])
    assert np.array_equal(decode(encoded(Image.fromarray(layered), "PNG"), "a.png").pixels, ramp())


def test_one_bit_image_is_black_and_white() -> None:
    image = decode(encoded(Image.fromarray(ramp() > 100), "PNG"), "a.png")
    assert np.array_equal(image.pixels, (ramp() > 100) * np.uint8(255))


@pytest.mark.parametrize(("orientation", "turns"), [(6, 3), (8, 1), (3, 2)])
def test_exif_rotation_is_applied(orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = encoded(Image.fromarray(ramp()), "JPEG", quality=95)
    turned = decode(encoded(Image.fromarray(ramp()), "JPEG", quality=95, exif=exif), "a.jpg")
    assert np.array_equal(turned.pixels, np.rot90(decode(plain, "a.jpg").pixels, turns))
    assert "EXIF" in turned.notes[0]


def test_jpeg_named_png_is_read_and_named() -> None:
    image = decode(encoded(Image.fromarray(ramp()), "JPEG"), "a.png")
    assert image.notes == ("is a JPEG despite its name",)


def test_first_page_of_several_is_named() -> None:
    pages = [Image.fromarray(ramp()), Image.fromarray(ramp()[::-1].copy())]
    image = decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "a.tif")
    assert np.array_equal(image.pixels, ramp())
    assert "several pages" in image.notes[0]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.999])
def test_truncated_jpeg_is_refused(progressive: bool, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
    cut = whole[: int(len(whole) * kept)]
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode(cut, "a.jpg")
    # A download that stopped may also leave the rest of the file as zeros.
    with pytest.raises(UnreadableImageError, match=r"truncated|damaged"):
        decode(cut + bytes(len(whole) - len(cut)), "a.jpg")


def test_truncated_and_flipped_png_are_refused() -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)), "PNG")
    with pytest.raises(UnreadableImageError, match=r"truncated|damaged"):
        decode(whole[: len(whole) // 2], "a.png")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    with pytest.raises(UnreadableImageError, match=r"truncated|damaged"):
        decode(bytes(flipped), "a.png")


def test_empty_missing_and_foreign_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no pixels at all")
    for name, reason in [("empty.png", "empty"), ("text.png", "not an image"), ("gone.png", "No such file")]:
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert name in caught.value.file


def test_formats_that_would_start_programs_are_not_opened() -> None:
    with pytest.raises(UnreadableImageError, match="not an image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a.eps")


def test_reading_from_many_threads_gives_the_same_pixels() -> None:
    forms = ["PNG", "TIFF", "WEBP", "JPEG2000", "BMP"] * 8
    options = {"WEBP": {"lossless": True}}
    files = [encoded(Image.fromarray(colours()), form, **options.get(form, {})) for form in forms]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda data: decode(data, "a").pixels, files))
    assert all(np.array_equal(pixels, colours()) for pixels in read)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"]))
    content = bytearray(encoded(Image.fromarray(colours()), form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(content), "a").pixels
    except UnreadableImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim in (2, 3)


@pytest.mark.parametrize("inside", [1, 255])
def test_mask_of_any_two_values(tmp_path: Path, inside: int) -> None:
    wanted = ramp() > 90
    Image.fromarray(wanted.astype(np.uint8) * np.uint8(inside)).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, wanted)


def test_masks_of_one_bit_of_parts_of_palettes_and_of_jpeg() -> None:
    wanted = np.zeros((64, 64), bool)
    wanted[16:48, 16:48] = True
    parts = wanted.astype(np.uint8)
    parts[16:32][wanted[16:32]] = 2
    numbered = Image.fromarray(parts)
    numbered.putpalette([200, 0, 0, 0, 0, 0, 0, 0, 9] + [0] * 759)
    layered = np.dstack([wanted * np.uint8(255)] * 3 + [np.full((64, 64), 255, np.uint8)])
    assert np.array_equal(decode_mask(encoded(Image.fromarray(wanted), "PNG"), "a"), wanted)
    assert np.array_equal(decode_mask(encoded(Image.fromarray(parts), "PNG"), "a"), wanted)
    assert np.array_equal(decode_mask(encoded(numbered, "PNG"), "a"), wanted)
    assert np.array_equal(decode_mask(encoded(Image.fromarray(layered), "PNG"), "a"), wanted)
    noisy = decode_mask(encoded(Image.fromarray(wanted * np.uint8(255)), "JPEG", quality=30), "a")
    assert (noisy != wanted).mean() < 0.02


def test_hash_in_a_file_name_is_no_frame(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "scan#3", "PNG")
    record = ImageRecord("s/scan#3", "scan#3", "a", "g", "other", "s", "00", 30, 20)
    manifest = Manifest(tmp_path, (record,))
    assert locate(manifest, record) == (tmp_path / "scan#3", 0)
    assert np.array_equal(read_record(manifest, record), ramp())
