"""Decoding of strangers' files: what comes out, and what files cannot do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from tests.imaging.test_dicom import made, ramp, written

from fedlens.errors import UnreadableImageError
from fedlens.imaging import formats
from fedlens.viewer.decoding import Decoder, read_answer
from fedlens.viewer.decoding_child import HEAD, answer
from fedlens.viewer.settings import ViewerSettings

MEBIBYTE = 2**20
PLAIN_DICOM = written(made(ramp()))


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """With the usual time, for images of up to a million pixels."""
    found = Decoder(ViewerSettings(largest_image=1_000_000, largest_upload=4 * MEBIBYTE))
    found.warm()
    yield found
    found.close()


def png(width: int, height: int, packed: bytes, extra: bytes = b"") -> bytes:
    """A grey 8-bit PNG file of these packed rows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", head) + extra + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros_packed(mebibytes: int) -> bytes:
    """That many MiB of zeros as a deflated stream without an end, made in an instant."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(16 * MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (mebibytes // 16)


def gif_of_endless_frames() -> bytes:
    """25 MB of frames of one pixel, all of which are visited to count them."""
    head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    return head + b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00" * 1_500_000 + b";"


def dicom_that_inflates(mebibytes: int) -> bytes:
    """A deflated DICOM data set of zeros."""
    syntax = b"\x02\x00\x10\x00UI" + struct.pack("<H", 22) + b"1.2.840.10008.1.2.1.99"
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(syntax))
    return bytes(128) + b"DICM" + length + syntax + zeros_packed(mebibytes)


def dicom_that_kills_its_decoder() -> bytes:
    """JPEG-LS pixels of half the rows that the header promises."""
    dataset = dcmread(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm")))
    dataset.Rows = 128
    return written(dataset)


def dicom_of(width: int, height: int) -> bytes:
    """A header that says so, above pixels that are none."""
    dataset = made(ramp())
    dataset.Rows, dataset.Columns = height, width
    return written(dataset)


def dicom_without_a_size() -> bytes:
    """Pixels, and no word of rows and columns."""
    dataset = made(ramp())
    del dataset.Rows
    return written(dataset)


def text_of_1_gib() -> bytes:
    """A PNG chunk whose text inflates to that."""
    return _chunk(b"zTXt", b"a\0\0\x78\x9c" + zeros_packed(1024))


def dicom_whose_image_is_larger_than_its_header() -> bytes:
    """A header of 64 x 64 around a JPEG file that says 60,000 x 60,000."""
    dataset = dcmread(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
    at = dataset.PixelData.index(b"\xff\xc0")
    data = bytearray(dataset.PixelData)
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    dataset.PixelData = bytes(data)
    return written(dataset)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG that claims 60,000 x 60,000": (
        lambda: png(60_000, 60_000, zlib.compress(bytes(10**6))),
        "has 3,600,000,000 pixels, more than the 1,000,000 that the viewer takes",
    ),
    "DICOM that claims 60,000 x 60,000": (
        lambda: dicom_of(60_000, 60_000),
        "has 3,600,000,000 pixels, more than the 1,000,000 that the viewer takes",
    ),
    "DICOM of countless frames": (
        lambda: written(made(ramp(), NumberOfFrames=10**9)),
        "has 600,000,000,000 pixels, more than the 1,000,000 that the viewer takes",
    ),
    "DICOM without a size": (dicom_without_a_size, "damaged DICOM: "),
    "DICOM around a larger JPEG": (
        dicom_whose_image_is_larger_than_its_header,
        "damaged DICOM: Image size (3600000000 pixels) exceeds limit of 1000000 pixels",
    ),
    "PNG with a text of 1 GiB": (lambda: png(9, 9, zlib.compress(bytes(90)), text_of_1_gib()), "damaged: "),
    "nothing": (lambda: b"", "the file is empty"),
    "shell script": (lambda: b"#!/bin/sh\nrm -rf /\n", "not an image of a known format"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    make, reason = HOSTILE[name]
    told, arrays = answer(make(), 0, 1_000_000)
    assert told["reason"].startswith(reason)
    assert not arrays


def test_refusal_reaches_the_one_who_asked(decoder: Decoder) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decoder.decode(b"no image", "../../etc/passwd")
    assert caught.value.file == "../../etc/passwd"
    assert caught.value.reason == "not an image of a known format"


def test_file_that_is_too_long_reaches_no_process(decoder: Decoder) -> None:
    with pytest.raises(UnreadableImageError, match="larger than the 4 MiB that the viewer takes"):
        decoder.decode(bytes(4 * MEBIBYTE + 1), "a")


def test_file_that_inflates_without_end_gets_no_more_memory(decoder: Decoder) -> None:
    with pytest.raises(UnreadableImageError, match="takes more memory than the viewer gives"):
        decoder.decode(dicom_that_inflates(4096), "a.dcm")


def test_file_that_takes_forever_is_given_up() -> None:
    decoder = Decoder(ViewerSettings(decode_seconds=0.3))
    try:
        with pytest.raises(UnreadableImageError, match=r"took longer than 0\.3 s to decode"):
            decoder.decode(gif_of_endless_frames(), "a.gif")
    finally:
        decoder.close()


def test_file_that_kills_its_process_stops_nothing_else(decoder: Decoder) -> None:
    with pytest.raises(UnreadableImageError, match="damaged: crashed its decoder"):
        decoder.decode(dicom_that_kills_its_decoder(), "a.dcm")
    assert decoder.decode(PLAIN_DICOM, "b.dcm").pixels.shape == ramp().shape


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b", "C:\\x.png", "-o/tmp/x", ""])
def test_name_leads_nowhere(decoder: Decoder, name: str) -> None:
    assert decoder.decode(PLAIN_DICOM, name).pixels.shape == ramp().shape


def test_ordinary_image_comes_out_as_everywhere_else(decoder: Decoder) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "PNG")
    found = decoder.decode(stream.getvalue(), "a")
    assert np.array_equal(found.pixels, colours)
    assert (found.modality, found.patient, found.frames, found.window) == ("", "", 1, None)


def test_every_encoding_is_decoded_without_opening_a_file(tmp_path: Path) -> None:
    names = ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]
    names += ["SC_rgb_jpeg_dcmtk.dcm", "examples_palette.dcm", "image_dfl.dcm"]
    files = [Path(str(get_testdata_file(name))) for name in names]
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    for form in ("png", "jpg", "tif", "bmp", "gif", "webp", "jp2"):
        files.append(tmp_path / f"a.{form}")
        colours.save(files[-1])
    program = (
        "import hashlib, sys, fedlens.viewer.decoding_child as child\n"
        "contents = [open(name, 'rb').read() for name in sys.argv[1:]]\n"
        "child.confine(2**32, 60)\n"
        "for data in contents:\n"
        "    told, arrays = child.answer(data, 0, 10**8)\n"
        "    print(told.get('reason') or hashlib.sha256(arrays[0].tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", program, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wanted = [formats.decode(file.read_bytes(), "").pixels for file in files]
    assert done.stdout.split("\n")[:-1] == [hashlib.sha256(one.tobytes()).hexdigest() for one in wanted]


def test_header_in_a_far_encoding_is_read_without_opening_a_file(decoder: Decoder) -> None:
    dataset = made(ramp(), SpecificCharacterSet="GB18030", PatientName="Wang^XiaoDong=王^小东")
    dataset.PatientID = "4711"
    found = decoder.decode(written(dataset), "a.dcm")
    assert "4711" in found.patient and "Wang" in found.patient


def test_dicom_tells_modality_patient_frames_and_greys(decoder: Decoder) -> None:
    frames = np.stack([ramp(), ramp()[::-1]])
    tags = {"Modality": "CT", "PatientName": "Doe^Jane", "PatientID": "4711"}
    data = written(made(frames, RescaleIntercept=-1000, RescaleSlope=1, **tags))
    first, second = decoder.decode(data, "a.dcm"), decoder.decode(data, "a.dcm", 1)

    assert (first.modality, first.frames) == ("ct", 2)
    assert "Doe" in first.patient and "4711" in first.patient
    assert first.window is not None and second.window is not None
    assert first.window.values.dtype == np.uint16
    assert np.array_equal(first.window.values + first.window.offset, ramp() - 1000.0)
    assert np.array_equal(second.window.values, first.window.values[::-1])
    with pytest.raises(UnreadableImageError):
        decoder.decode(data, "a.dcm", 2)


def test_same_file_is_decoded_once(decoder: Decoder) -> None:
    found = decoder.decode(PLAIN_DICOM, "a.dcm")
    assert decoder.decode(PLAIN_DICOM, "b.dcm") is found
    with pytest.raises(ValueError, match="read-only"):
        found.pixels[0, 0] = 1


def test_several_files_at_once(decoder: Decoder) -> None:
    found: dict[int, npt.NDArray[np.uint8]] = {}

    def one(number: int) -> None:
        data = written(made(np.full((4 + number, 5), 7, np.uint8), WindowCenter=7, WindowWidth=15))
        found[number] = decoder.decode(data, str(number)).pixels

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: pixels.shape for number, pixels in found.items()} == {n: (4 + n, 5) for n in range(3)}


def own_children() -> set[int]:
    """Decoding processes of this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"decoding_child" in stat.with_name("cmdline").read_bytes():
                found.add(int(stat.parent.name))
        except OSError:
            # It ended while we looked.
            continue
    return found


def begun(before: set[int], number: int) -> set[int]:
    """Decoding processes that have come, once there are so many; at first each looks like this one."""
    while len(found := own_children() - before) < number:
        time.sleep(0.01)
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


@needs_proc
def test_closing_leaves_no_process() -> None:
    before = own_children()
    decoder = Decoder(ViewerSettings())
    assert own_children() == before
    decoder.warm()
    assert len(begun(before, 2)) == 2
    decoder.decode(PLAIN_DICOM, "a.dcm")
    decoder.close()
    assert own_children() <= before


@needs_proc
def test_child_knows_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLENS_TEST_SECRET", "hunter2")
    before = own_children()
    decoder = Decoder(ViewerSettings())
    decoder.warm()
    child = begun(before, 1).pop()
    environment = Path(f"/proc/{child}/environ").read_bytes()
    decoder.close()
    assert b"OMP_NUM_THREADS" in environment
    assert b"hunter2" not in environment


@pytest.mark.parametrize(
    "deed",
    [
        "open('/etc/hostname')",
        "socket.create_connection(('127.0.0.1', 9))",
        "os.pipe()",
        "open(1, 'w', closefd=False).flush() or os.write(scratch, b'x')",
        "subprocess.run(['true'])",
        "bytearray(2**32)",
    ],
)
def test_confined_process_cannot(tmp_path: Path, deed: str) -> None:
    program = (
        "import os, socket, subprocess, signal\n"
        "from fedlens.viewer.decoding_child import confine\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"scratch = os.open({str(tmp_path / 'scratch')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "confine(2**32, 5)\n"
        f"try:\n    {deed}\nexcept (OSError, MemoryError) as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("OSError", "MemoryError"), done


TOLD = {"modality": "", "patient": "", "frames": 1, "shape": [2, 2]}
LIES = [
    b"[]",
    b"not JSON",
    b"{}",
    b"\xff\xfe",
    json.dumps(TOLD | {"shape": [2, 2, 4]}).encode(),
    json.dumps(TOLD | {"shape": [-2, -2]}).encode(),
    json.dumps(TOLD | {"shape": [10**9, 10**9]}).encode(),
    json.dumps(TOLD | {"shape": []}).encode(),
    json.dumps(TOLD | {"frames": 0}).encode(),
    json.dumps(TOLD | {"frames": 10**12}).encode(),
    json.dumps(TOLD | {"greys": [1, 2]}).encode(),
    json.dumps(TOLD | {"greys": [1, 2, 3, "x"]}).encode(),
    b'{"modality": "", "patient": "", "frames": 1, "shape": [2, 2], "greys": [NaN, 1, 1, 1]}',
]


@pytest.mark.parametrize("text", LIES)
def test_answer_of_a_child_that_was_taken_over_is_refused(text: bytes) -> None:
    stream = io.BytesIO(HEAD.pack(len(text)) + text + bytes(64))
    with pytest.raises(UnreadableImageError, match="damaged"):
        read_answer(stream, "a", 100)


def test_answer_without_end_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="damaged"):
        read_answer(io.BytesIO(HEAD.pack(2**32 - 1) + bytes(64)), "a", 100)
    text = json.dumps(TOLD).encode()
    with pytest.raises(EOFError):
        read_answer(io.BytesIO(HEAD.pack(len(text)) + text + bytes(3)), "a", 100)


def test_reason_of_a_child_is_short_and_plain() -> None:
    text = json.dumps({"reason": "\ud800\x1b[31m" + "x" * 5000}).encode()
    with pytest.raises(UnreadableImageError) as caught:
        read_answer(io.BytesIO(HEAD.pack(len(text)) + text), "a", 100)
    assert len(caught.value.reason) <= 300
    assert caught.value.reason.isprintable()
