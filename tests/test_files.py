"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens import files
from fedlens.files import remove_parts, whole_file, write_bytes, write_json, write_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_new_file_appears_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"

    write_text(path, "grüße")

    assert path.read_bytes() == "grüße".encode()
    assert [child.name for child in path.parent.iterdir()] == ["b.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "No space left")])
def test_an_exception_keeps_the_old_content_and_leaves_no_part(
    tmp_path: Path, error: BaseException | type[BaseException]
) -> None:
    path = tmp_path / "model.bin"
    write_bytes(path, b"old")

    with pytest.raises(error if isinstance(error, type) else type(error)), whole_file(path) as part:
        part.write_bytes(b"half of the n")
        raise error

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_at_the_sync_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.bin"
    write_bytes(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_bytes(path, b"old")
    writer = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from fedlens.files import whole_file
        with whole_file(Path(sys.argv[1])) as part:
            part.write_bytes(b"half of the n")
            os.kill(os.getpid(), signal.SIGKILL)
    """)

    done = subprocess.run([sys.executable, "-c", writer, str(path)], check=False, timeout=60)

    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_ever_sees_a_part_under_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"

    with whole_file(path) as part:
        part.write_bytes(b"new")
        assert not path.exists()
        assert part.parent == path.parent
        assert part.name.startswith(".")

    assert path.read_bytes() == b"new"


@settings(max_examples=20, deadline=None)
@given(VALUES)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"

    write_json(path, value)

    assert json.loads(path.read_bytes()) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_that_no_reader_could_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "value.json", {"loss": float("nan")})

    assert not list(tmp_path.iterdir())
