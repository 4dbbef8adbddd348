"""``fedlens pacs results``: what a network says about DICOM images, as DICOM objects in their studies."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from fedlens.dicom_results.finding import Finding, new_uid, source_header
from fedlens.dicom_results.report import structured_report
from fedlens.dicom_results.secondary_capture import secondary_capture
from fedlens.dicom_results.segmentation import segmentation
from fedlens.errors import DataError, SettingsError
from fedlens.explain.methods import RECOMMENDED
from fedlens.explaining import explained
from fedlens.imaging import dicom
from fedlens.imaging.formats import read_bytes
from fedlens.progress import Progress, silent

THRESHOLD = 0.5
_SERIES_NUMBERS = {"SC": 9901, "SEG": 9902, "SR": 9903}


@dataclass(frozen=True, slots=True)
class WrittenResult:
    """What was written about one image.

    Attributes:
        image: The image file.
        predicted: The likeliest class.
        probability: Its probability, 0..1.
        files: The new files, Secondary Capture, Segmentation (unless the map is empty), report.
    """

    image: Path
    predicted: str
    probability: float
    files: tuple[Path, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "image": str(self.image),
            "predicted": self.predicted,
            "probability": self.probability,
            "files": [str(file) for file in self.files],
        }


def write_results(
    run: Path,
    images: Sequence[Path],
    out: Path,
    *,
    target: str = "",
    method: str = RECOMMENDED,
    arm: str = "federated",
    modality: str = "",
    threshold: float = THRESHOLD,
    fractional: bool = False,
    progress: Progress = silent,
) -> list[WrittenResult]:
    """Explain DICOM images and write the outcome as Secondary Capture, Segmentation and Structured Report.

    The objects belong to the study of their image and are in series of their own. Of a file with several
    frames the first one is explained.

    Args:
        run: Output folder of a run or comparison, one arm's folder, or a checkpoint folder.
        images: DICOM files, or folders of them.
        out: Where to write: ``sc-N.dcm``, ``seg-N.dcm`` and ``sr-N.dcm`` for image N; made if missing.
        target: Class to explain; each image's predicted class when empty.
        method: How to explain; ``fedlens.explain.methods`` lists what there is.
        arm: Whose network to take where ``run`` holds several.
        modality: Preparation profile; found from manifest or header when empty.
        threshold: Share of the map's maximum from which on a pixel belongs to the region, above 0, up to 1.
        fractional: Keep the heat within the region.
        progress: Called with step ``explain``.

    Returns:
        One for each image, in order.

    Raises:
        DataError: An image is no DICOM file, cannot be referred to, or ``out`` holds results already.
        SettingsError: No images, or a threshold out of range.
        FedLensError: As ``explain_images``.
    """
    if not 0 < threshold <= 1:
        raise SettingsError(
            f"A threshold of {threshold} is out of range.", fix="Choose one above 0, up to 1."
        )
    files = _files(images)
    if out.exists() and any(out.glob("*.dcm")):
        raise DataError(f"{out} holds DICOM files already.", fix="Choose a new folder for --out.")
    # All headers are read before the first image is explained, so that a bad one stops nothing halfway.
    headers = [_header(file) for file in files]
    series: dict[tuple[str, str, str], str] = {}
    written = []
    outcomes = explained(
        run, files, target=target, method=method, arm=arm, modality=modality, progress=progress
    )
    for number, (header, (image, saliency)) in enumerate(zip(headers, outcomes, strict=True), start=1):
        finding = Finding(
            source=header,
            pixels=image.pixels,
            saliency=saliency,
            threshold=threshold,
            model=saliency.reproduce.get("model", "network"),
        )
        made = _objects(finding, series, number, fractional)
        predicted, probability = saliency.ranked()[0]
        paths = tuple(dicom.save(out / f"{kind.lower()}-{number:04d}.dcm", made[kind]) for kind in made)
        written.append(WrittenResult(image.path, predicted, probability, paths))
    return written


def _objects(
    finding: Finding, series: dict[tuple[str, str, str], str], number: int, fractional: bool
) -> dict[str, Dataset]:
    """The objects about one image, by kind; one series for each study, frame of reference and kind."""
    source = finding.source
    place = (str(source.StudyInstanceUID), str(source.get("FrameOfReferenceUID") or ""))

    def where(kind: str) -> dict[str, Any]:
        uid = series.setdefault((*place, kind), new_uid())
        return {"series_uid": uid, "series_number": _SERIES_NUMBERS[kind], "number": number}

    try:
        with warnings.catch_warnings():
            # About names of patients that are not written FAMILY^GIVEN: results repeat them as they are.
            warnings.filterwarnings("ignore", message="The string .* is unlikely to represent")
            made = {"SC": secondary_capture(finding, **where("SC"))}
            region = None
            if not finding.saliency.empty:
                region = segmentation(finding, fractional=fractional, **where("SEG"))
                made["SEG"] = region
            made["SR"] = structured_report(finding, region, **where("SR"))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(
            f"No results can be written for {finding.saliency.file}.", why=f"Its header is unusual: {error}."
        ) from error
    return made


def _header(path: Path) -> Dataset:
    data = read_bytes(path)
    if not dicom.is_dicom(data):
        raise DataError(
            f"{path} is no DICOM file.",
            why="Results are written into the image's own study.",
            fix="For other images use `fedlens explain`.",
        )
    return source_header(dicom.parse(data, str(path)), str(path))


def _files(images: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for image in images:
        inside = sorted(path for path in image.rglob("*.dcm")) if image.is_dir() else [image]
        if not inside:
            raise DataError(f"No file in {image} ends in .dcm.")
        found += inside
    return found
