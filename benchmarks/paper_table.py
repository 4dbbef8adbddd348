"""The paper's own experiment: its arms, its settings, on three data sets in eleven classes.

    python benchmarks/paper_table.py --data three --out runs/paper
    python benchmarks/paper_table.py --data three --make-pack three.pack       (under 60 MB, for a GPU host)
    python benchmarks/paper_table.py --pack three.pack --out runs/paper --seeds 0,1,2
    python benchmarks/paper_table.py --data three --scale small --out runs/small

``full``: 224 px, batch 32, Adam 0.001, constant rate, 50 image passes, 50 rounds, the paper's shares.
``small``: 96 px and 4 passes, for two cores. Finished arms and rounds are kept: run it again to go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _figures import write_figures

from fedlens import Study, compare, load_manifest
from fedlens.cli.progress import shown
from fedlens.errors import FedLensError
from fedlens.imaging.audit import audit
from fedlens.imaging.manifest import MANIFEST_NAME
from fedlens.imaging.packing import pack_study, unpack_study
from fedlens.reports.comparison import compare as measure
from fedlens.reports.comparison import load_arms

TUMOUR = {"glioma": "tumor", "meningioma": "tumor", "pituitary": "tumor"}
SCALES = {"full": (224, 50.0, 50), "small": (96, 4.0, 4)}


def paper_study(data: Path, out: Path, scale: str, seeds: tuple[int, ...]) -> Study:
    """The paper's settings (sections 4 and 5) as a study."""
    size, passes, rounds = SCALES[scale]
    return Study.model_validate(
        {
            "name": f"paper-{scale}",
            "output": out,
            "data": {"folder": data, "relabel": TUMOUR},
            "hospitals": {"by": "paper"},
            "preprocess": {"size": size},
            "training": {"passes": passes, "batch_size": 32, "learning_rate": 0.001},
            "federation": {"rounds": rounds, "evaluate_every": 5},
            "compare": {"seeds": seeds},
        }
    )


def main() -> None:
    """Pack, or run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="study folder made by fedlens data import")
    source.add_argument("--pack", type=Path, help="file made by --make-pack")
    parser.add_argument("--make-pack", type=Path, metavar="FILE")
    parser.add_argument("--megabytes", type=float, default=60.0)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = options.data or options.out / "data"
    try:
        with shown() as progress:
            if options.pack and not (data / MANIFEST_NAME).exists():
                unpack_study(options.pack, data)
            if not all(record.cluster for record in load_manifest(data)):
                audit(data, progress=progress)
            if options.make_pack:
                size = SCALES[options.scale][0]
                quality = pack_study(
                    load_manifest(data),
                    options.make_pack,
                    size=size,
                    megabytes=options.megabytes,
                    progress=progress,
                )
                print(f"{options.make_pack}: {options.make_pack.stat().st_size / 1e6:.1f} MB, WebP {quality}")
                return
            seeds = tuple(int(seed) for seed in options.seeds.split(","))
            result = compare(paper_study(data, options.out, options.scale, seeds), progress=progress)
    except FedLensError as error:
        raise SystemExit(str(error)) from error
    print(result.table)
    comparison = measure(load_arms(result.folder))
    figures = {
        f"{entry.arm}_{entry.scope}_{entry.metric}": entry.mean
        for entry in comparison.summaries
        if entry.scope in ("pooled", "own") and np.isfinite(entry.mean)
    }
    write_figures(options.json, figures)


if __name__ == "__main__":
    main()
