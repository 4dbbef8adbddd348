"""Own images from a folder to a report, in the calls that the command line makes.

    python examples/own_images.py FOLDER [OUT]

FOLDER holds one folder per class, or any other layout that ``fedlens data import`` knows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fedlens


def main(source: Path, out: Path) -> None:
    """Import, audit, train at four hospitals, compare, explain the first test images."""
    report = fedlens.import_images([source], out / "images")
    print(report.summary())
    print(fedlens.audit(out / "images").text())

    study = fedlens.load_study(fedlens.new_study(out / "study.toml", out / "images"))
    plan = fedlens.plan_images(study)
    comparison = fedlens.compare(study)
    print(comparison.table)

    tests = [plan.path(record) for record in plan if record.split == "test"][:8]
    for saliency in fedlens.explain_images(comparison.folder, tests):
        name, probability = saliency.ranked()[0]
        print(f"{saliency.file}: {name} {probability:.0%}")
    print(f"Open {comparison.report}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "own-study"))
