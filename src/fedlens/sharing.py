"""``fedlens data share``: one study's images dealt into one folder per hospital.

For rehearsing a federation of separate machines with one data set: each folder is a study folder of its
own, which :func:`fedlens.preparation.prepare_hospital` takes as it is. Weights trained over the folders are
those that ``fedlens run`` trains over the pooled images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedlens.errors import DataError, SettingsError
from fedlens.imaging.formats import locate, read_bytes
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.staging import staged_folder
from fedlens.imaging.store import Store
from fedlens.preparation import agreed_classes, plan_images, roster
from fedlens.progress import Progress, silent
from fedlens.study import Study


def share_images(
    study: Study, out: Path, *, copy: bool = False, progress: Progress = silent
) -> dict[str, Manifest]:
    """Deal a study's images over its hospitals as ``fedlens run`` would, into one folder for each.

    Each ``out/<hospital>/manifest.parquet`` lists that hospital's images in the pooled order, with split,
    hospital, cluster and the study's labels. Images that the study leaves out are in none; copies with
    conflicting labels are among those, so the audit's copy groups need not come along.

    Args:
        study: The settings; originals are in its ``data.folder``.
        out: Where the folders go; may hold others already.
        copy: Copy images and outlines into each folder's store, so that it can be carried elsewhere,
            instead of referring to the originals.
        progress: Told of every image.

    Returns:
        Each hospital's manifest, in roster order.

    Raises:
        SettingsError: ``data.classes`` and the labels disagree, or a hospital's name cannot be a folder's.
        DataError: A hospital's folder exists, an original is missing or was changed since its import, the
            disk is full, or images cannot be dealt as asked. No folder is made then.
    """
    manifest = plan_images(study, progress=progress)
    agreed_classes(study, manifest)
    names = roster(study, manifest)
    _check_names(names)
    dealt = {
        name: manifest.with_records(record for record in manifest if record.hospital == name)
        for name in names
    }
    try:
        with contextlib.ExitStack() as stack:
            # All folders are claimed before the first is filled, and appear after the last is.
            parts = {name: stack.enter_context(_new_folder(out / name)) for name in names}
            for name, part in parts.items():
                records = _records(dealt[name], part, f"share {name}", progress, copy=copy)
                dealt[name] = Manifest(out / name, tuple(records))
                Manifest(part, dealt[name].records).save()
    except OSError as error:
        raise DataError(
            f"Cannot write {out}: {error.strerror or error}.",
            why="Nothing unfinished was left behind.",
            fix="Free some space or choose another folder for --out.",
        ) from error
    return dealt


def _check_names(names: tuple[str, ...]) -> None:
    # Hospitals may be named by a data set's site column.
    for name in names:
        if name.startswith(".") or "/" in name or "\0" in name:
            raise SettingsError(
                f"Hospital {name!r} cannot have a folder of its name.",
                fix="Use names that do not start with '.' and have no '/'.",
            )


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target``, which must not be there yet."""
    with staged_folder(target) as part:
        # Within the writer's lock, so that of two writers the second sees what the first has made.
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(
                f"{target} exists already.",
                why="Hospitals' folders are never overwritten.",
                fix="Remove it, or choose another folder for --out.",
            )
        yield part


def _records(
    manifest: Manifest, part: Path, step: str, progress: Progress, *, copy: bool
) -> Iterator[ImageRecord]:
    """The images of one hospital as its own manifest lists them, in the same order."""
    progress(step, 0, len(manifest))
    for done, record in enumerate(_copied(manifest, part) if copy else _referred(manifest), start=1):
        yield record
        progress(step, done, len(manifest))


def _referred(manifest: Manifest) -> Iterator[ImageRecord]:
    # The folder alone is resolved: an image may be a link to a file of a name without an extension.
    folder = manifest.folder.resolve()
    for record in manifest:
        mask = str(folder / record.mask) if record.mask else ""
        yield dataclasses.replace(record, file=str(folder / record.file), mask=mask)


def _copied(manifest: Manifest, part: Path) -> Iterator[ImageRecord]:
    """Copy on all cores, in order."""
    store = Store(part)

    # Frames of one file share its copy.
    @functools.cache
    def keep(path: Path, sha256: str = "") -> str:
        content = read_bytes(path)
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{path} was changed since its import.", fix="Import the images again.")
        return store.add(content, path.suffix)

    def copied(record: ImageRecord) -> ImageRecord:
        path, frame = locate(manifest, record)
        mark = "" if path == manifest.path(record) else f"#{frame}"
        mask = manifest.mask_path(record)
        return dataclasses.replace(
            record, file=keep(path, record.sha256) + mark, mask=keep(mask) if mask else ""
        )

    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="share")
    try:
        yield from pool.map(copied, manifest)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    store.sync()
