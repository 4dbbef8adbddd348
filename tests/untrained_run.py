"""A run folder as training leaves it, over phantoms of three kinds; its network has untrained weights."""

from __future__ import annotations

from pathlib import Path

import fedlens
from fedlens.imaging.preprocess import digest
from fedlens.models.checkpoint import Contract, save_checkpoint
from fedlens.models.fingerprint import fingerprint
from fedlens.models.registry import build_network
from fedlens.preparation import prepare
from fedlens.run_folder import hold_images, keep_study
from fedlens.study import DataSettings, HospitalSettings, ModelSettings, PreprocessSettings, Study

SIZE = 32


def make_run(home: Path, *, images: int = 120) -> Path:
    """Draw, import and audit phantoms below ``home``; returns the run folder."""
    fedlens.draw_phantoms(home / "phantoms", images=images, seed=1, size=48)
    fedlens.import_images([home / "phantoms"], home / "images")
    fedlens.audit(home / "images")
    run = home / "run"
    study = Study(
        name="tiny",
        output=run,
        data=DataSettings(folder=home / "images", validation=0.3),
        preprocess=PreprocessSettings(size=SIZE),
        hospitals=HospitalSettings(by="site"),
    )
    prepared = prepare(study)
    keep_study(study, run)
    hold_images(run, prepared.manifest)
    return save_untrained(run, prepared.classes)


def save_untrained(run: Path, classes: tuple[str, ...]) -> Path:
    """Put a network with untrained weights into a run folder; returns the folder."""
    model, settings = ModelSettings(), PreprocessSettings(size=SIZE)
    network = build_network(model, classes=len(classes), channels=3, image_size=SIZE, seed=0)
    contract = Contract(
        model=model,
        classes=classes,
        preprocess=settings,
        preprocess_digest=digest(settings),
        fingerprint=fingerprint(network),
    )
    save_checkpoint(run / "seed-0" / "federated" / "model", network, contract)
    return run
