"""Decoding what strangers send: each file in a process of its own that has limits and ends afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError, UnreadableImageError
from fedlens.imaging.greys import Greys
from fedlens.viewer.decoding_child import HEAD, JOB, READY
from fedlens.viewer.recent import Recent
from fedlens.viewer.settings import ViewerSettings

_SPARES = 2
_AT_ONCE = 2
_START_SECONDS = 60.0
_LONGEST_HEAD = 1 << 16
_LONGEST_TEXT = 300
_MEBIBYTE = 2**20
_OWN_MEMORY = 768 * _MEBIBYTE
"""Bytes of address space of a process that has decoded nothing yet, with room for libraries."""

_FOR_EACH_BYTE, _FOR_EACH_PIXEL = 4, 64
"""Bytes of memory that decoding takes beyond that, by the file's length and its pixels, at most."""

_KEPT_IMAGES = 4
_KEPT_BYTES = 64 * _MEBIBYTE


@dataclass(frozen=True, eq=False)
class Decoded:
    """One frame of a file. The arrays are shared and cannot be written to.

    Attributes:
        pixels: uint8, (H, W) grey or (H, W, 3) RGB, as ``imaging.formats.decode`` gives them.
        modality: From a DICOM header, ``other`` where it does not say; empty for other files.
        patient: Name and number from a DICOM header; empty without.
        frames: Of the file.
        window: Greys of a DICOM image; None for those in colour and for other files.
    """

    pixels: npt.NDArray[np.uint8]
    modality: str = ""
    patient: str = ""
    frames: int = 1
    window: Greys | None = None


class Decoder:
    """Decodes files in child processes, of which some wait ready. Safe to call from several threads.

    Args:
        settings: Largest file and image, and time for decoding.
    """

    def __init__(self, settings: ViewerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._spares: list[_Child] = []
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._recent: Recent[tuple[str, int], Decoded] = Recent(_KEPT_IMAGES)
        self._closed = False

    def warm(self) -> None:
        """Start processes now, so that the first file need not wait for one."""
        with self._lock:
            while len(self._spares) < _SPARES and not self._closed:
                self._spares.append(_Child())

    def close(self) -> None:
        """End the processes that wait; files that are being decoded are finished."""
        with self._lock:
            self._closed = True
            spares, self._spares = self._spares, []
        for child in spares:
            child.end()

    def decode(self, data: bytes, name: str, frame: int = 0) -> Decoded:
        """Decode one frame; the last few images are kept, as a page asks for one several times.

        Args:
            data: The file's bytes.
            name: What errors call it.
            frame: Of a multi-frame DICOM file.

        Raises:
            UnreadableImageError: Too large, too many pixels, took too long, crashed its decoder, or no image.
            DataError: No process can be started.
        """
        if len(data) > self._settings.largest_upload:
            most = self._settings.largest_upload / _MEBIBYTE
            raise UnreadableImageError(name, f"larger than the {most:.3g} MiB that the viewer takes")
        key = (hashlib.sha256(data).hexdigest(), frame)
        known = self._recent.get(key)
        if known is not None:
            return known
        with self._turns, self._child() as child:
            found = child.decode(data, name, frame, self._settings)
        if found.pixels.nbytes + (found.window.values.nbytes if found.window else 0) <= _KEPT_BYTES:
            self._recent.keep(key, found)
        return found

    @contextlib.contextmanager
    def _child(self) -> Iterator[_Child]:
        """A process for one file; another one waits in its place afterwards."""
        with self._lock:
            child = self._spares.pop(0) if self._spares else _Child()
        try:
            yield child
        finally:
            child.end()
            self.warm()


class _Child:
    """One process of :mod:`fedlens.viewer.decoding_child`."""

    def __init__(self) -> None:
        # Absolute, as the process works elsewhere.
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fedlens.viewer.decoding_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            # Nothing of the environment: a stranger's file has no use for it.
            env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def decode(self, data: bytes, name: str, frame: int, settings: ViewerSettings) -> Decoded:
        """Send the file and read the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._killed_after(_START_SECONDS):
            if self._process.stdout.read(1) != READY:
                raise DataError("The process that decodes images does not start.")
        seconds = settings.decode_seconds
        memory = _OWN_MEMORY + _FOR_EACH_BYTE * len(data) + _FOR_EACH_PIXEL * settings.largest_image
        job = JOB.pack(len(data), frame, settings.largest_image, memory, seconds)
        with self._killed_after(seconds) as late:
            try:
                self._process.stdin.write(job)
                self._process.stdin.write(data)
                self._process.stdin.flush()
                return read_answer(self._process.stdout, name, settings.largest_image)
            except (BrokenPipeError, EOFError) as error:
                slow = late.is_set() or self._process.wait() == -signal.SIGXCPU
                reason = (
                    f"took longer than {seconds:g} s to decode" if slow else "damaged: crashed its decoder"
                )
                raise UnreadableImageError(name, reason) from error

    def end(self) -> None:
        """Kill the process, whatever it is at."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Iterator[threading.Event]:
        """Kill the process unless the block ends in time; the event says whether that came to pass."""
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        clock = threading.Timer(seconds, kill)
        clock.daemon = True
        clock.start()
        try:
            yield late
        finally:
            clock.cancel()


def read_answer(stream: IO[bytes], name: str, largest: int) -> Decoded:
    """Read a child's answer, trusted no more than the file that it comes from.

    Args:
        stream: What the child writes.
        name: What errors call the file.
        largest: Pixels that an image may have.

    Raises:
        UnreadableImageError: The file cannot be decoded, or the answer is none.
        EOFError: The process ended before it was through.
    """
    (length,) = HEAD.unpack(_exactly(stream, HEAD.size))
    if length > _LONGEST_HEAD:
        raise _senseless(name)
    text = _exactly(stream, length)
    try:
        told = json.loads(text)
        if "reason" in told:
            raise UnreadableImageError(name, _plain(told["reason"]))
        shape = _shape(told["shape"], largest)
        greys = [float(number) for number in told.get("greys", ())]
        facts = _plain(told["modality"]), _plain(told["patient"]), int(told["frames"])
        if len(greys) not in (0, 4) or not all(map(math.isfinite, greys)) or not 1 <= facts[2] <= largest:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _senseless(name) from error
    pixels: npt.NDArray[np.uint8] = _array(stream, shape, "u1")
    window = Greys(_array(stream, shape[:2], "<u2"), *greys) if greys else None
    return Decoded(pixels, *facts, window)


def _plain(told: Any) -> str:
    return "".join(letter for letter in str(told)[:_LONGEST_TEXT] if letter.isprintable())


def _shape(told: Any, largest: int) -> tuple[int, ...]:
    shape = tuple(int(side) for side in told)
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or min(shape) < 1:
        raise ValueError
    if shape[0] * shape[1] > largest:
        raise ValueError
    return shape


def _array(stream: IO[bytes], shape: tuple[int, ...], kind: str) -> npt.NDArray[Any]:
    size = math.prod(shape) * np.dtype(kind).itemsize
    return np.frombuffer(_exactly(stream, size), kind).reshape(shape)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _senseless(name: str) -> UnreadableImageError:
    return UnreadableImageError(name, "damaged: its decoder gave no image")
