"""The process that decodes one stranger's file and ends.

It has no secrets in its environment, may open no file and start no program once it has the bytes, and has
limited memory and time. Whatever takes it over can do little more than send a wrong picture.
"""

from __future__ import annotations

import codecs
import json
import os
import resource
import struct
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.charset import python_encoding

from fedlens.errors import UnreadableImageError
from fedlens.imaging import dicom, formats
from fedlens.imaging.greys import Greys
from fedlens.viewer.patient import patient_text

READY = b"\n"
JOB = struct.Struct(">QQQQd")
"""Length of the file, frame, most pixels, most bytes of memory, most seconds of processor time."""

HEAD = struct.Struct(">I")
"""Length of the JSON that describes an answer; the arrays' bytes come after it."""

Answer = tuple[dict[str, Any], tuple[npt.NDArray[Any], ...]]


def answer(data: bytes, frame: int, largest: int) -> Answer:
    """Decode a file.

    Args:
        data: Its bytes.
        frame: Of a multi-frame DICOM file.
        largest: Pixels that all its frames may have.

    Returns:
        What ``decoding.Decoder`` reads, and the arrays that it speaks of; ``reason`` alone where the file
        cannot be decoded.
    """
    try:
        if dicom.is_dicom(data):
            return _dicom(data, frame, largest)
        Image.MAX_IMAGE_PIXELS = None
        _admit(formats.pixel_count(data, ""), largest)
        return _described(formats.decode(data, "").pixels, None, {})
    except UnreadableImageError as error:
        return {"reason": error.reason}, ()
    except MemoryError:
        return {"reason": "decoding it takes more memory than the viewer gives"}, ()


def confine(memory: int, seconds: float) -> None:
    """Take from this process, for good, what decoding does not need.

    Args:
        memory: Bytes of address space.
        seconds: Of processor time from now on.
    """
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: int(_time_used() + seconds) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _dicom(data: bytes, frame: int, largest: int) -> Answer:
    dataset = dicom.parse(data, "")
    _admit(dicom.pixel_count(dataset, ""), largest)
    pixels, greys = dicom.pixels_and_greys(dataset, frame, "")
    facts = {
        "modality": dicom.modality(dataset),
        "patient": patient_text(dataset),
        "frames": dicom.frame_count(dataset),
    }
    return _described(pixels, greys, facts)


def _admit(count: int, largest: int) -> None:
    """Refuse an image whose header says too much, and have Pillow refuse those that lie in theirs."""
    if count > largest:
        raise UnreadableImageError(
            "", f"has {count:,} pixels, more than the {largest:,} that the viewer takes"
        )
    # Pillow raises at twice this number.
    Image.MAX_IMAGE_PIXELS = max(1, largest // 2)


def _described(pixels: npt.NDArray[np.uint8], greys: Greys | None, facts: Mapping[str, Any]) -> Answer:
    told: dict[str, Any] = {"modality": "", "patient": "", "frames": 1, **facts, "shape": pixels.shape}
    if greys is None:
        return told, (pixels,)
    told["greys"] = [greys.offset, greys.scale, greys.centre, greys.width]
    return told, (pixels, greys.values.astype("<u2"))


def _warm() -> None:
    """Load now what reading a header would load from files when first needed: later no file can be opened."""
    for encoding in python_encoding.values():
        codecs.lookup(encoding)


def _time_used() -> float:
    """Seconds of processor time of this process until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    answers.write(READY)
    answers.flush()
    head = requests.read(JOB.size)
    if len(head) < JOB.size:
        return
    length, frame, largest, memory, seconds = JOB.unpack(head)
    data = requests.read(length)
    confine(memory, seconds)
    told, arrays = answer(data, frame, largest)
    text = json.dumps(told).encode()
    answers.write(HEAD.pack(len(text)) + text)
    for array in arrays:
        answers.write(np.ascontiguousarray(array).data)
    answers.flush()


if __name__ == "__main__":
    # Decoders that print must not be taken for answers.
    with os.fdopen(os.dup(1), "wb") as own_answers:
        os.dup2(2, 1)
        _warm()
        _serve(sys.stdin.buffer, own_answers)
