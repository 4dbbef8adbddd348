"""``fedlens demo``: the whole path on drawn images, by the calls that anyone makes.

Nothing here knows that the images are drawn; replace ``draw_phantoms`` by a folder of one's own and
the rest stays as it is.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlens.comparing import compare
from fedlens.errors import DataError
from fedlens.explaining import explain_images
from fedlens.files import write_json, write_text
from fedlens.imaging.audit import audit
from fedlens.imaging.importer import import_images
from fedlens.imaging.manifest import MANIFEST_NAME, load_manifest
from fedlens.imaging.phantoms import MANIFEST_CSV, draw_phantoms
from fedlens.preparation import plan_images
from fedlens.progress import Progress, silent
from fedlens.study import Study, load_study

MARKER_NAME = "demo.json"
_IMAGES = 1200
_SEED = 0
_PARTS = ("phantoms", "images", "runs", "explanations")

STUDY_TEXT = """\
# The study of `fedlens demo`: four hospitals, three kinds of image, six classes.
# `fedlens study new FILE --data DIR` writes one with every key explained.
name = "demo"

[data]
folder = "images"

[hospitals]
by = "site"

[preprocess]
size = 96

[training]
passes = 16
batch_size = 32
learning_rate = 0.002
schedule = "cosine"

[federation]
rounds = 32
batch_size = 16
evaluate_every = 4

[explanation]
every = 8
"""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        folder: Holds everything.
        study: The study file.
        run: Output folder of the comparison.
        report: To be opened in a browser.
        table: The comparison, Markdown.
        explanations: Folder of heat maps.
    """

    folder: Path
    study: Path
    run: Path
    report: Path
    table: str
    explanations: Path

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {name: str(value) for name, value in vars(self).items()}

    def next_steps(self) -> str:
        """What to open, and what to run with images of one's own."""
        home = self.folder.resolve()
        # As the folder was given, like the path below it.
        inside = self.report.is_relative_to(home)
        report = self.folder / self.report.relative_to(home) if inside else self.report
        return "\n".join(
            [
                "",
                "Open",
                f"  {report}    the comparison, figures and heat maps",
                f"  {self.explanations}    heat maps of single images",
                f"  fedlens view {report.parent}    one case after the other, and the study, in a browser",
                "Next, with your own images",
                "  fedlens data import FOLDER --out images",
                "  fedlens data audit images",
                "  fedlens study new study.toml --data images",
                "  fedlens compare study.toml",
            ]
        )


def run_demo(out: Path, *, progress: Progress = silent) -> DemoResult:
    """Draw phantoms, import, audit, compare all arms, explain, report.

    Interrupted, the same call goes on; finished, it starts afresh.

    Args:
        out: Folder to make. An earlier demo's is reused; any other that is not empty is refused.
        progress: Called by every step.

    Raises:
        DataError: ``out`` holds something else than a demo.
    """
    _make_room(out)
    phantoms, images, file = (out / name for name in ("phantoms", "images", "study.toml"))
    if not (phantoms / MANIFEST_CSV).is_file():
        draw_phantoms(phantoms, images=_IMAGES, seed=_SEED, progress=progress)
    if not (images / MANIFEST_NAME).is_file():
        import_images([phantoms], images, progress=progress)
    if not all(record.cluster for record in load_manifest(images)):
        audit(images, progress=progress)
    write_text(file, STUDY_TEXT)
    study = load_study(file)
    compared = compare(study, progress=progress)
    explanations = out / "explanations"
    explain_images(compared.folder, _examples(study), out=explanations, progress=progress)
    write_json(out / MARKER_NAME, _marker(finished=True))
    return DemoResult(out, file, compared.folder, compared.report, compared.table, explanations)


def _make_room(out: Path) -> None:
    """Claim ``out``; what a finished demo, or one of other settings, left there is removed."""
    marker = out / MARKER_NAME
    if not marker.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} is not empty and holds no demo.", fix="Choose a new folder with --out.")
    elif json.loads(marker.read_bytes()) != _marker(finished=False):
        for part in filter(Path.is_dir, (out / name for name in _PARTS)):
            shutil.rmtree(part)
    write_json(marker, _marker(finished=False))


def _examples(study: Study) -> list[Path]:
    """The first test image of each class."""
    manifest = plan_images(study)
    tests = {record.label: record for record in reversed(manifest.records) if record.split == "test"}
    return [manifest.path(tests[label]) for label in sorted(tests)]


def _marker(*, finished: bool) -> dict[str, Any]:
    # The digest changes with defaults too, and rounds of other settings cannot be gone on with.
    digest = Study.model_validate(tomllib.loads(STUDY_TEXT)).digest()
    return {"finished": finished, "images": _IMAGES, "seed": _SEED, "settings": digest}
