"""Trying a decoder out in a process of its own.

GDCM ends the whole process on some damaged JPEG-LS and lossless JPEG files. An import of thousands
of files must name such a file and go on, so each is tried in a child process first.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import BinaryIO

from fedlens.errors import DataError, UnreadableImageError
from fedlens.imaging import dicom

_LENGTH = struct.Struct(">Q")
_DONE = b"\n"
_PATIENCE = 300.0


class DecoderTrial:
    """A child process that decodes DICOM files; started when first needed, replaced when it dies.

    Safe to call from several threads, one file at a time. Use as a context manager.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DecoderTrial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            _end(self._child)

    def check(self, data: bytes, name: str) -> None:
        """Have the child decode a file's bytes; returns if the child outlives that.

        Raises:
            UnreadableImageError: The decoder crashed, or was not done after five minutes.
            DataError: The child cannot be started.
        """
        with self._turn:
            child = self._child or _start()
            self._child = child
            if not _answers(child, data):
                _end(child)
                self._child = None
                raise UnreadableImageError(name, "damaged DICOM: its pixels crash the decoder")


def _start() -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert child.stdout is not None
    if child.stdout.read(1) != _DONE:
        _end(child)
        raise DataError("The process that tries out DICOM decoders does not start.")
    return child


def _answers(child: subprocess.Popen[bytes], data: bytes) -> bool:
    assert child.stdin is not None and child.stdout is not None
    clock = threading.Timer(_PATIENCE, child.kill)
    clock.start()
    try:
        child.stdin.write(_LENGTH.pack(len(data)))
        child.stdin.write(data)
        child.stdin.flush()
        return child.stdout.read(1) == _DONE
    except BrokenPipeError:
        return False
    finally:
        clock.cancel()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The child: answer once at the start, then once for each file decoded or refused."""
    answers.write(_DONE)
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        data = requests.read(_LENGTH.unpack(head)[0])
        with contextlib.suppress(UnreadableImageError):
            dataset = dicom.parse(data, "")
            for frame in range(dicom.frame_count(dataset)):
                dicom.pixels(dataset, frame, "")
        answers.write(_DONE)


if __name__ == "__main__":
    # Decoders that print must not be taken for answers.
    with os.fdopen(os.dup(1), "wb", buffering=0) as own_answers:
        os.dup2(2, 1)
        _serve(sys.stdin.buffer, own_answers)
