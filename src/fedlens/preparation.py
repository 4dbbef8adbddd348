"""From a study file to images ready for training: load, relabel, split, share out, prepare pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.errors import DataError, SettingsError
from fedlens.hospital.images import HospitalImages, select_images
from fedlens.imaging.audit import audit
from fedlens.imaging.cache import build_cache
from fedlens.imaging.labels import relabel
from fedlens.imaging.manifest import Manifest, load_manifest
from fedlens.imaging.partition import limit, share_out
from fedlens.imaging.splits import split
from fedlens.progress import Progress, silent
from fedlens.study import DataSettings, HospitalSettings, Study

_RESIDENT = 0.15
"""Fraction of the machine's memory up to which prepared images are held in it."""


@dataclass(frozen=True)
class PreparedStudy:
    """A study's images, split, shared out and prepared.

    Attributes:
        study: The settings.
        manifest: Images in use, with split and hospital.
        pixels: uint8 (images, size, size, channels), read-only, in manifest order.
        classes: Label order of the network's outputs.
        hospitals: Hospital names in roster order.
    """

    study: Study
    manifest: Manifest
    pixels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    hospitals: tuple[str, ...]

    def images(self, split_name: str, hospital: str = "") -> HospitalImages:
        """Images of one split at one hospital, or at all of them together."""
        return select_images(self.manifest, self.pixels, self.classes, split=split_name, hospital=hospital)


def plan_images(study: Study, *, progress: Progress = silent) -> Manifest:
    """The study's manifest with relabelled, split and shared-out images; excluded ones are left out.

    Splits and shares follow from the settings alone, so two runs of one study see the same ones.
    An import that was never audited is audited first: without its clusters, copies would cross splits.
    """
    manifest = _load_audited(study.data.folder, progress)
    manifest = _draw_and_split(relabel(manifest, study.data.relabel), study.data)
    return _in_use(share_out(manifest, study.hospitals))


def prepare(study: Study, *, progress: Progress = silent) -> PreparedStudy:
    """Everything training needs; pixels come from the cache where they were prepared before.

    Raises:
        DataError: The study folder, its images or the asked-for splits and shares are not usable.
        SettingsError: ``data.classes`` and the labels disagree.
    """
    manifest = plan_images(study, progress=progress)
    classes = agreed_classes(study, manifest)
    pixels = _prepare_pixels(study, manifest, progress)
    return PreparedStudy(study, manifest, pixels, classes, roster(study, manifest))


def prepare_hospital(study: Study, folder: Path, name: str, *, progress: Progress = silent) -> PreparedStudy:
    """Everything one hospital needs that is a machine of its own, from its own images alone.

    Where every image in use has a split already, as in a folder that
    :func:`~fedlens.sharing.share_images` or ``fedlens data split`` made, splits stay as they are.
    Elsewhere the folder is audited if it never was, and limited and split as the study says. A class
    of the study may have no image here.

    Args:
        study: The settings that every hospital holds; its ``data.folder`` plays no part.
        folder: The hospital's own study folder; prepared pixels are kept in its ``cache``.
        name: The hospital's; all its images become this hospital's.
        progress: Called with the step, and how far it is.

    Returns:
        The hospital's images; its only hospital is ``name``.

    Raises:
        SettingsError: ``data.classes`` is empty, or an image has a label that is not in it.
        DataError: The folder holds another hospital's images, or is not usable as asked.
    """
    classes = study.named_classes()
    manifest = _plan_hospital(study.data, folder, name, progress)
    pixels = _prepare_pixels(study, manifest, progress)
    return PreparedStudy(study, manifest, pixels, classes, (name,))


def agreed_classes(study: Study, manifest: Manifest) -> tuple[str, ...]:
    """Label order of the network's outputs, for a study whose images are all in ``manifest``.

    Raises:
        SettingsError: ``data.classes`` and the labels disagree.
    """
    classes = study.data.classes or manifest.labels()
    missing = set(manifest.labels()) ^ set(classes)
    if missing:
        raise SettingsError(
            f"data.classes and the images' labels disagree about {sorted(missing)}.",
            why=f"The images have {list(manifest.labels())}.",
            fix="Mend data.classes or data.relabel.",
        )
    return classes


def roster(study: Study, manifest: Manifest) -> tuple[str, ...]:
    """Hospitals that hold images: in the study file's order, then others by name."""
    names = sorted({record.hospital for record in manifest})
    named = [name for name in study.hospitals.names if name in names]
    return (*named, *(name for name in names if name not in named))


def cache_folder(data: Path) -> Path:
    """Where prepared pixels of a study folder are kept; shared by all runs over it."""
    return data / "cache"


def _load_audited(folder: Path, progress: Progress) -> Manifest:
    manifest = load_manifest(folder)
    if all(record.cluster for record in manifest):
        return manifest
    audit(folder, progress=progress)
    return load_manifest(folder)


def _draw_and_split(manifest: Manifest, data: DataSettings) -> Manifest:
    if data.limit:
        manifest = limit(manifest, data.limit, seed=data.split_seed)
    return split(manifest, validation=data.validation, test=data.test, seed=data.split_seed)


def _in_use(manifest: Manifest) -> Manifest:
    return manifest.where(lambda record: bool(record.split and record.hospital))


def _plan_hospital(data: DataSettings, folder: Path, name: str, progress: Progress) -> Manifest:
    """The images in use of a hospital's own folder, with split and hospital."""
    # Before the audit, which takes long: a wrong folder is refused at once.
    manifest = _own_images(load_manifest(folder), data, name)
    if not all(record.split for record in manifest if not record.excluded):
        manifest = _draw_and_split(_own_images(_load_audited(folder, progress), data, name), data)
    return _in_use(share_out(manifest, HospitalSettings(by="equal", names=(name,))))


def _own_images(manifest: Manifest, data: DataSettings, name: str) -> Manifest:
    """A hospital's manifest with the study's labels."""
    dealt = sorted({record.hospital for record in manifest} - {""})
    if set(dealt) - {name}:
        raise DataError(
            f"{manifest.folder} holds images of hospital {', '.join(dealt)}, and this is {name}.",
            why="A hospital trains on its own images alone.",
            fix="Give the folder that was dealt to it, or the name that this folder was dealt to.",
        )
    # Dealt images were relabelled when they were dealt; doing it again would follow chains.
    if not dealt:
        # What one hospital has no image of, another may have.
        known = manifest.labels()
        manifest = relabel(manifest, {old: new for old, new in data.relabel.items() if old in known})
    unknown = sorted(set(manifest.labels()) - set(data.classes))
    if unknown:
        raise SettingsError(
            f"Labels {unknown} of {manifest.folder} are not in data.classes.",
            why=f"The study's classes are {list(data.classes)}.",
            fix="Mend data.classes or data.relabel, alike at every hospital.",
        )
    return manifest


def _prepare_pixels(study: Study, manifest: Manifest, progress: Progress) -> npt.NDArray[np.uint8]:
    """uint8 (images, size, size, channels), read-only: in memory where they fit, else memory-mapped."""
    pixels = build_cache(manifest, study.preprocess, cache_folder(manifest.folder), progress=progress)
    # Random reads from a cold disk cost more than the training itself; what fits is read once.
    if pixels.nbytes < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _RESIDENT:
        pixels = np.array(pixels)
        pixels.flags.writeable = False
    return pixels
