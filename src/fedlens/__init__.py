"""FedLens: federated, explainable image classification for hospitals that may not share images.

Everything the command line does is one of these calls. Names are looked up on first use, so that
``import fedlens`` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlens.comparing import CompareResult, compare
    from fedlens.demo import DemoResult, run_demo
    from fedlens.describing import Card, write_card
    from fedlens.dicom_results.writing import write_results
    from fedlens.errors import FedLensError
    from fedlens.explain.saliency import SaliencyMap
    from fedlens.explaining import explain_images
    from fedlens.exporting import export_run
    from fedlens.imaging.audit import AuditReport, audit
    from fedlens.imaging.deidentified_folder import deidentify_folder
    from fedlens.imaging.import_report import ImportReport
    from fedlens.imaging.importer import import_images
    from fedlens.imaging.manifest import ImageRecord, Manifest, load_manifest
    from fedlens.imaging.phantoms import draw_phantoms
    from fedlens.imaging.splits import split
    from fedlens.pacs.transfer import pull_images, push_images
    from fedlens.predicting import PredictResult, predict_images
    from fedlens.preparation import plan_images
    from fedlens.progress import Progress, silent
    from fedlens.reporting import write_report
    from fedlens.running import RunResult, run
    from fedlens.sharing import share_images
    from fedlens.status import RunStatus, run_status
    from fedlens.study import Study, load_study
    from fedlens.study_template import new_study

__version__ = "0.1.0"

_HOMES = {
    "AuditReport": "imaging.audit",
    "Card": "describing",
    "CompareResult": "comparing",
    "DemoResult": "demo",
    "FedLensError": "errors",
    "ImageRecord": "imaging.manifest",
    "ImportReport": "imaging.import_report",
    "Manifest": "imaging.manifest",
    "PredictResult": "predicting",
    "Progress": "progress",
    "RunResult": "running",
    "RunStatus": "status",
    "SaliencyMap": "explain.saliency",
    "Study": "study",
    "audit": "imaging.audit",
    "compare": "comparing",
    "deidentify_folder": "imaging.deidentified_folder",
    "draw_phantoms": "imaging.phantoms",
    "explain_images": "explaining",
    "export_run": "exporting",
    "import_images": "imaging.importer",
    "load_manifest": "imaging.manifest",
    "load_study": "study",
    "new_study": "study_template",
    "plan_images": "preparation",
    "predict_images": "predicting",
    "pull_images": "pacs.transfer",
    "push_images": "pacs.transfer",
    "run": "running",
    "run_demo": "demo",
    "run_status": "status",
    "share_images": "sharing",
    "silent": "progress",
    "split": "imaging.splits",
    "write_card": "describing",
    "write_report": "reporting",
    "write_results": "dicom_results.writing",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedlens' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fedlens.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
