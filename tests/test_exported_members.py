"""The public API is this list, and nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fedlens

MEMBERS = [
    "AuditReport",
    "Card",
    "CompareResult",
    "DemoResult",
    "FedLensError",
    "ImageRecord",
    "ImportReport",
    "Manifest",
    "PredictResult",
    "Progress",
    "RunResult",
    "RunStatus",
    "SaliencyMap",
    "Study",
    "__version__",
    "audit",
    "compare",
    "deidentify_folder",
    "draw_phantoms",
    "explain_images",
    "export_run",
    "import_images",
    "load_manifest",
    "load_study",
    "new_study",
    "plan_images",
    "predict_images",
    "pull_images",
    "push_images",
    "run",
    "run_demo",
    "run_status",
    "share_images",
    "silent",
    "split",
    "write_card",
    "write_report",
    "write_results",
]


def test_exactly_these_names_are_public() -> None:
    assert fedlens.__all__ == MEMBERS
    assert dir(fedlens) == sorted(MEMBERS)


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in ("__version__", "Progress")])
def test_every_name_is_there_and_documented(name: str) -> None:
    member = getattr(fedlens, name)

    assert member.__name__ == name
    assert member.__doc__


def test_public_functions_are_not_hidden_by_modules_of_their_name() -> None:
    code = "import fedlens.imaging.audit, fedlens.explain.grad_cam, fedlens; assert callable(fedlens.audit)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = fedlens.train  # type: ignore[attr-defined]


def test_importing_the_command_line_does_not_import_what_is_slow() -> None:
    code = (
        "import sys, fedlens.cli.main; "
        "slow = {'torch', 'monai', 'pyarrow', 'cv2', 'matplotlib', 'pydicom', 'numpy'}; "
        "slow |= {'highdicom', 'pynetdicom', 'dicomweb_client', 'dicomanonymizer', 'requests'}; "
        "slow &= set(sys.modules); "
        "assert not slow, slow"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
