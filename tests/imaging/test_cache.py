"""The cache of prepared pixels: right, shared, resumable, and never half a file."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from fedlens.errors import DataError, UnreadableImageError
from fedlens.imaging import cache
from fedlens.imaging.cache import build_cache, cache_key
from fedlens.imaging.manifest import ImageRecord, Manifest, load_manifest
from fedlens.imaging.preprocess import preprocess
from fedlens.study import PreprocessSettings

SETTINGS = PreprocessSettings(size=24)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Ten grey PNG files of different sizes."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(10):
        name = f"{number}.png"
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (30 + number, 40), dtype=np.uint8))
        records.append(ImageRecord(name, name, "x", name, "mri", "s", f"{number:064x}", 40, 30 + number))
    return Manifest(tmp_path, tuple(records))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _expected(manifest: Manifest) -> np.ndarray:
    images = [cv2.imread(str(manifest.path(record)), cv2.IMREAD_UNCHANGED) for record in manifest]
    return np.stack([preprocess(image, SETTINGS, "mri") for image in images])


def _names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_rows_follow_the_manifest_and_cannot_be_written(manifest: Manifest, folder: Path) -> None:
    pixels = build_cache(manifest, SETTINGS, folder)
    assert np.array_equal(pixels, _expected(manifest))
    assert pixels.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0
    assert _names(folder) == [".npy"]


def test_a_second_call_reads_no_image(manifest: Manifest, folder: Path) -> None:
    first = np.array(build_cache(manifest, SETTINGS, folder))
    for record in manifest:
        manifest.path(record).unlink()
    assert np.array_equal(build_cache(manifest, SETTINGS, folder), first)


def test_the_key_follows_content_frame_modality_order_and_settings_but_not_places(
    manifest: Manifest, tmp_path: Path
) -> None:
    def changed(**values: object) -> Manifest:
        first = dataclasses.replace(manifest.records[0], **values)
        return manifest.with_records((first, *manifest.records[1:]))

    key = cache_key(manifest, SETTINGS)
    others = [
        changed(sha256="f" * 64),
        changed(file="0.png#1"),
        changed(modality="xray"),
        manifest.with_records(reversed(manifest.records)),
        manifest.with_records(manifest.records[:-1]),
    ]
    keys = {cache_key(other, SETTINGS) for other in others}
    keys.add(cache_key(manifest, PreprocessSettings(size=25)))
    assert len(keys | {key}) == 7
    assert cache_key(changed(file="elsewhere.png", label="y", split="train", hospital="A"), SETTINGS) == key
    assert cache_key(Manifest(tmp_path / "moved", manifest.records), SETTINGS) == key


def test_progress_runs_from_none_to_all(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_BLOCK_IMAGES", 4)
    steps: list[tuple[str, int, int]] = []
    build_cache(manifest, SETTINGS, folder, lambda *step: steps.append(step))
    assert steps == [("prepare", done, 10) for done in (0, 4, 8, 10)]


def test_an_interrupted_writer_is_resumed(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_BLOCK_IMAGES", 4)
    expected = _expected(manifest)

    def interrupt(step: str, done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(manifest, SETTINGS, folder, interrupt)
    assert _names(folder) == [".partial"]
    for record in manifest.records[:8]:
        manifest.path(record).unlink()
    assert np.array_equal(build_cache(manifest, SETTINGS, folder), expected)
    assert _names(folder) == [".npy"]


def test_a_torn_partial_file_is_started_over(manifest: Manifest, folder: Path) -> None:
    folder.mkdir()
    (folder / f"{cache_key(manifest, SETTINGS)[:32]}.partial").write_bytes(b"torn" * 100)
    assert np.array_equal(build_cache(manifest, SETTINGS, folder), _expected(manifest))


def test_an_unreadable_image_is_named_and_a_mended_one_finishes(manifest: Manifest, folder: Path) -> None:
    path = manifest.path(manifest.records[6])
    good = path.read_bytes()
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"6\.png"):
        build_cache(manifest, SETTINGS, folder)
    assert ".npy" not in _names(folder)
    path.write_bytes(good)
    assert np.array_equal(build_cache(manifest, SETTINGS, folder), _expected(manifest))


def test_an_empty_manifest_is_refused(manifest: Manifest, folder: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        build_cache(manifest.with_records(()), SETTINGS, folder)


def test_a_damaged_cache_is_named(manifest: Manifest, folder: Path) -> None:
    build_cache(manifest, SETTINGS, folder)
    path = next(folder.glob("*.npy"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=path.name):
        build_cache(manifest, SETTINGS, folder)


def test_a_full_disk_is_an_error_that_says_so(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left"):
        patch.setattr(os, "fsync", full)
        build_cache(manifest, SETTINGS, folder)
    assert np.array_equal(build_cache(manifest, SETTINGS, folder), _expected(manifest))


def test_only_old_partial_files_without_a_writer_are_removed(manifest: Manifest, folder: Path) -> None:
    folder.mkdir()
    paths = {name: folder / f"{name}.partial" for name in ("old", "fresh", "busy")}
    for path in paths.values():
        path.write_bytes(b"")
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(paths["old"], (long_ago, long_ago))
    os.utime(paths["busy"], (long_ago, long_ago))
    with paths["busy"].open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        build_cache(manifest, SETTINGS, folder)
    assert [name for name, path in paths.items() if path.exists()] == ["fresh", "busy"]


_WRITER = """
import sys, time
from pathlib import Path
from fedlens.imaging import cache
from fedlens.imaging.manifest import load_manifest
from fedlens.study import PreprocessSettings

def slowly(step, done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[2]))

cache._BLOCK_IMAGES = 2
folder = Path(sys.argv[1])
cache.build_cache(load_manifest(folder), PreprocessSettings(size=24), folder / "cache", slowly)
"""


def _writer(manifest: Manifest, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(manifest.folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_writers_share_one_piece_of_work(manifest: Manifest, folder: Path) -> None:
    manifest.save()
    with _writer(manifest, 0.05) as first, _writer(manifest, 0.05) as second:
        outputs = [first.communicate()[0].split(), second.communicate()[0].split()]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(map(len, outputs)) == [0, 6]
    assert _names(folder) == [".npy"]
    assert np.array_equal(build_cache(load_manifest(manifest.folder), SETTINGS, folder), _expected(manifest))


def test_a_killed_writer_leaves_a_partial_file_that_the_next_one_finishes(
    manifest: Manifest, folder: Path
) -> None:
    manifest.save()
    with _writer(manifest, 0.3) as writer:
        assert writer.stdout is not None
        assert "6\n" in writer.stdout
        writer.send_signal(signal.SIGKILL)
    assert _names(folder) == [".partial"]
    done: list[int] = []
    pixels = build_cache(manifest, SETTINGS, folder, lambda step, number, total: done.append(number))
    assert done == [6, 10]
    assert np.array_equal(pixels, _expected(manifest))
