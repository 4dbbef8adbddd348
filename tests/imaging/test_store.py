"""The content-addressed store."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedlens.errors import DataError
from fedlens.imaging import store as store_module
from fedlens.imaging.store import Store, damaged_files


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_bytes_come_back_under_their_digest(tmp_path: Path, content: bytes) -> None:
    place = Store(tmp_path).add(content, ".PNG")
    digest = hashlib.sha256(content).hexdigest()
    assert place == f"store/{digest[:2]}/{digest}.png"
    assert (tmp_path / place).read_bytes() == content


def test_same_bytes_are_kept_once_also_from_many_threads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda _: store.add(b"pixels", ".png"), range(50)))
    store.sync()
    assert len(places) == 1
    assert files_of(tmp_path) == [tmp_path / places.pop()]


def test_damaged_copy_is_found_and_mended_by_adding_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    place = tmp_path / store.add(b"pixels", ".png")
    store.add(b"others", ".png")
    assert damaged_files(tmp_path) == ()
    place.write_bytes(b"pixelz")
    assert damaged_files(tmp_path) == (place,)
    store.add(b"pixels", ".png")
    assert damaged_files(tmp_path) == ()


def test_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Store(tmp_path).add(b"pixels", ".png")
    assert files_of(tmp_path) == []


def test_disk_that_lies_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "digest_of", lambda path: "0" * 64)
    with pytest.raises(DataError, match="reads back differently"):
        Store(tmp_path).add(b"pixels", ".png")
    assert files_of(tmp_path) == []
