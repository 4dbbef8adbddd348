"""A sealed study against the same study in the clear: accuracy, bytes and seconds on real images.

Ten rounds over the three public data sets at four hospitals, 128 px, two passes, as in
``examples/three_modalities.toml``; the same seeds in both. Give a study folder made by ``fedlens data
import`` and ``fedlens data audit``.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _figures import write_figures

import fedlens
from fedlens.coordinator.history import read_history
from fedlens.study import Study

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "three_modalities.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="study folder, imported and audited")
    parser.add_argument("--out", type=Path, default=Path("runs/sealed-study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--passes", type=float, default=2.0)
    parser.add_argument("--bits", type=int, default=16)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for seed in options.seeds:
        for mode in ("off", "on"):
            study = study_of(options, seed, mode)
            shutil.rmtree(study.output or options.out, ignore_errors=True)
            result = fedlens.run(study)
            name = f"seed_{seed}_{'sealed' if mode == 'on' else 'plain'}"
            figures |= {f"{name}_{key}": value for key, value in outcome(result.folder, seed).items()}
            figures[f"{name}_accuracy"] = result.metrics["accuracy"]
    differences = [
        100 * (figures[f"seed_{seed}_sealed_accuracy"] - figures[f"seed_{seed}_plain_accuracy"])
        for seed in options.seeds
    ]
    figures["accuracy_difference_points_mean"] = float(np.mean(differences))
    figures["accuracy_difference_points_largest"] = float(np.abs(differences).max())
    write_figures(options.json, figures)


def study_of(options: argparse.Namespace, seed: int, mode: str) -> Study:
    """The example, short, over the given images, sealed or not."""
    content = fedlens.load_study(EXAMPLE).model_dump(mode="json")
    changes: Mapping[str, Mapping[str, Any]] = {
        "data": {"folder": str(options.data.resolve())},
        "training": {"passes": options.passes},
        "federation": {"rounds": options.rounds, "evaluate_every": options.rounds},
        "sealing": {"mode": mode, "value_bits": options.bits},
        "explanation": {"measures": "none"},
    }
    for table, values in changes.items():
        content[table] |= values
    content |= {"seed": seed, "output": str((options.out / f"{mode}-{seed}").resolve())}
    return Study.model_validate(content)


def outcome(folder: Path, seed: int) -> dict[str, float]:
    """Bytes and seconds of a finished run, means over rounds."""
    events = read_history(folder / f"seed-{seed}" / "federated")
    rounds = [event for event in events if event["event"] == "round"]
    up = [said["bytes_up"] for event in rounds for said in event["hospitals"].values()]
    spent = {"round_seconds": [sum(event["seconds"].values()) for event in rounds]}
    for key in ("sealing", "training", "opening"):
        values = [event["sealing"]["seconds"][key] for event in rounds if "sealing" in event]
        if values:
            spent[f"{key}_seconds_of_all"] = values
    clipped = [event["sealing"]["saturated"] for event in rounds if "sealing" in event]
    return {
        "megabytes_up": float(np.mean(up)) / 1e6,
        **{name: float(np.mean(values)) for name, values in spent.items()},
        **({"values_clipped": float(sum(clipped))} if clipped else {}),
    }


if __name__ == "__main__":
    main()
