"""From a study file to images ready for training: load, relabel, split, share out, prepare pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.errors import SettingsError
from fedlens.hospital.images import HospitalImages, select_images
from fedlens.imaging.audit import audit
from fedlens.imaging.cache import build_cache
from fedlens.imaging.labels import relabel
from fedlens.imaging.manifest import Manifest, load_manifest
from fedlens.imaging.partition import limit, share_out
from fedlens.imaging.splits import split
from fedlens.progress import Progress, silent
from fedlens.study import Study

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
    manifest = load_manifest(study.data.folder)
    if not all(record.cluster for record in manifest):
        audit(study.data.folder, progress=progress)
        manifest = load_manifest(study.data.folder)
    manifest = relabel(manifest, study.data.relabel)
    if study.data.limit:
        manifest = limit(manifest, study.data.limit, seed=study.data.split_seed)
    data = study.data
    manifest = split(manifest, validation=data.validation, test=data.test, seed=data.split_seed)
    manifest = share_out(manifest, study.hospitals)
    return manifest.where(lambda record: bool(record.split and record.hospital))


def prepare(study: Study, *, progress: Progress = silent) -> PreparedStudy:
    """Everything training needs; pixels come from the cache where they were prepared before.

    Raises:
        DataError: The study folder, its images or the asked-for splits and shares are not usable.
        SettingsError: ``data.classes`` and the labels disagree.
    """
    manifest = plan_images(study, progress=progress)
    classes = study.data.classes or manifest.labels()
    missing = set(manifest.labels()) ^ set(classes)
    if missing:
        raise SettingsError(
            f"data.classes and the images' labels disagree about {sorted(missing)}.",
            why=f"The images have {list(manifest.labels())}.",
            fix="Mend data.classes or data.relabel.",
        )
    names = sorted({record.hospital for record in manifest})
    roster = [name for name in study.hospitals.names if name in names]
    roster += [name for name in names if name not in roster]
    pixels = build_cache(manifest, study.preprocess, cache_folder(study.data.folder), progress=progress)
    # Random reads from a cold disk cost more than the training itself; what fits is read once.
    if pixels.nbytes < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _RESIDENT:
        pixels = np.array(pixels)
        pixels.flags.writeable = False
    return PreparedStudy(study, manifest, pixels, tuple(classes), tuple(roster))


def cache_folder(data: Path) -> Path:
    """Where prepared pixels of a study folder are kept; shared by all runs over it."""
    return data / "cache"
