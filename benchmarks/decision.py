"""Is advice worth following? Calibration, coverage and referral on the test images of a finished run.

Fits advice on the run's training and validation images where it was not fitted yet, and holds it against
the predictions on test images. Bars: calibration error (15 bins of equal width) after temperature scaling at
most 0.03, sets at a promised coverage of 90 % cover 88 to 92 %, and with 20 % of images referred the rest's
error is at least 35 % lower, relative.

Give the run folder, and the study file with its image folder where the run kept no study.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from _figures import write_figures

import fedlens
from fedlens.decision.bundle import has_bundle, load_bundle
from fedlens.decision.fitting import fit_decisions
from fedlens.models.checkpoint import read_contract
from fedlens.preparation import prepare
from fedlens.reports.decision import decision_results, flat_figures
from fedlens.reports.predictions import PREDICTIONS_NAME, load_predictions
from fedlens.run_folder import find_model, kept_study
from fedlens.study import Study

BAR_ECE = 0.03
BAR_COVERAGE = (0.88, 0.92)
BAR_REDUCTION = 0.35


def main() -> int:
    """Fit, measure, write; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run or arm")
    parser.add_argument("--arm", default="federated")
    parser.add_argument("--study", type=Path, help="study file, where the run kept none")
    parser.add_argument("--data", type=Path, help="another image folder than the study's")
    options = parser.parse_args()
    model = find_model(options.run, options.arm)
    contract = read_contract(model)
    if not has_bundle(model):
        fit_decisions(model, prepare(study_of(options, model)), progress=told).save(model)
    bundle = load_bundle(model, weights_sha256=contract.weights_sha256, classes=contract.classes)
    figures = flat_figures(decision_results(bundle, load_predictions(model.parent / PREDICTIONS_NAME)))
    write_figures(options.json, figures)
    missed = misses(figures)
    print("bars missed: " + ", ".join(missed) if missed else "all bars held")
    return 1 if missed else 0


def study_of(options: argparse.Namespace, model: Path) -> Study:
    """The settings that the run was made with, over the given images."""
    study = fedlens.load_study(options.study) if options.study else kept_study(model)
    if study is None:
        sys.exit(f"{options.run} kept no study.json: give --study")
    content = study.model_dump(mode="json")
    if options.data:
        content["data"]["folder"] = str(options.data.resolve())
    return Study.model_validate(content)


def misses(figures: Mapping[str, float]) -> list[str]:
    """Names of bars that are missed."""
    low, high = BAR_COVERAGE
    held = {
        "ECE": figures["ece_after"] <= BAR_ECE,
        "coverage": low <= figures["coverage"] <= high,
        # Where nothing was wrong there is nothing to lower.
        "referral": figures.get("error_reduction", 1.0) >= BAR_REDUCTION,
    }
    return [name for name, holds in held.items() if not holds]


def told(step: str, done: int, total: int) -> None:
    """Progress on a line now and then."""
    if done == total:
        print(f"{step}: {done:,} images", flush=True)


if __name__ == "__main__":
    sys.exit(main())
