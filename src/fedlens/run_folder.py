"""Finding one's way in a run folder.

::

    runs/NAME/
      study.json                  the settings as they were run, paths made absolute
      images.json                 digest of which image is in which split at which hospital
      seed-0/federated/model/     weights.safetensors, contract.json
      seed-0/federated/           history.jsonl, rounds/, predictions.parquet
      explanations/               saliency maps drawn afterwards
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from fedlens.errors import HistoryError, SettingsError
from fedlens.files import write_json, write_text
from fedlens.imaging.manifest import Manifest
from fedlens.study import Study

STUDY_NAME = "study.json"
IMAGES_NAME = "images.json"
MODEL_NAME = "model"
HOSPITALS_NAME = "hospitals"


def run_folder(study: Study) -> Path:
    """The study's output folder.

    Raises:
        SettingsError: The study was not read from a file and names none.
    """
    if study.output is None:
        raise SettingsError(
            f"Study {study.name} has no output folder.", fix="Set output, or read the study with load_study."
        )
    return study.output


def keep_study(study: Study, folder: Path) -> Path:
    """Write the settings that a run folder was made with; returns the file."""
    path = folder / STUDY_NAME
    write_text(path, study.model_dump_json(indent=2) + "\n")
    return path


def kept_study(folder: Path) -> Study | None:
    """The settings of the run that ``folder`` is, or is part of; None where nothing was kept.

    Raises:
        HistoryError: The kept file is damaged or of another version.
    """
    for place in _around(folder):
        path = place / STUDY_NAME
        if path.is_file():
            try:
                return Study.model_validate_json(path.read_bytes())
            except ValidationError as error:
                raise HistoryError(
                    f"Cannot read {path}: {error.errors()[0]['msg']}.",
                    fix="Use the version of FedLens that wrote it, or run the study again.",
                ) from error
    return None


def check_images(folder: Path, manifest: Manifest) -> None:
    """Hold images to those of the run that ``folder`` is part of, as ``hold_images`` noted them.

    Args:
        folder: A checkpoint's or an arm's.
        manifest: The images in use, with split and hospital.

    Raises:
        HistoryError: The run is over other images, splits or shares.
    """
    for place in _around(folder):
        if (place / IMAGES_NAME).is_file():
            hold_images(place, manifest)


def _around(folder: Path) -> tuple[Path, ...]:
    """The folder, and those above it that may be the run that it belongs to."""
    return (folder, *folder.resolve().parents[:4])


def hold_images(folder: Path, manifest: Manifest) -> None:
    """Bind a run folder to its images, splits and shares: noted at first, checked from then on.

    Settings alone do not fix them. After another import or audit, images that one arm was trained on
    could be another's test images.

    Args:
        folder: The run folder.
        manifest: The images in use, with split and hospital.

    Raises:
        HistoryError: The folder holds a run over other images, splits or shares.
    """
    rows = sorted(
        (record.sha256, record.image_id, record.label, record.split, record.hospital) for record in manifest
    )
    found = {"images": len(rows), "digest": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
    path = folder / IMAGES_NAME
    if not path.exists():
        write_json(path, found)
        return
    held = json.loads(path.read_bytes())
    if held != found:
        raise HistoryError(
            f"{folder} holds a run over other images, splits or shares.",
            why=f"It was made with {held['images']:,} images and now there are {found['images']:,}. Where "
            "the number is the same, labels, copies or the way of splitting have changed.",
            fix="Choose another output in the study file, or remove the folder.",
        )


def find_model(run: Path, arm: str) -> Path:
    """The checkpoint folder that is meant by a run, arm or checkpoint folder.

    With several seeds it is the first one's.

    Raises:
        HistoryError: There is none; names the arms that have one.
    """
    # Here, so that exported networks can find images by this module's help without torch.
    from fedlens.models.checkpoint import CONTRACT_NAME

    seeds = sorted(run.glob("seed-*"))
    places = [run, run / MODEL_NAME, *(seed / arm / MODEL_NAME for seed in (run, *seeds))]
    for place in places:
        if (place / CONTRACT_NAME).is_file():
            return place
    arms = sorted({path.parent.parent.name for path in run.glob(f"**/{MODEL_NAME}/{CONTRACT_NAME}")})
    raise HistoryError(
        f"No trained network of arm {arm!r} in {run}.",
        why=f"It has {', '.join(arms)}." if arms else "It has none at all.",
        fix="Choose one with --arm." if arms else "Give the output folder of a finished run.",
    )
