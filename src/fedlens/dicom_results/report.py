"""The finding as a Structured Report: an imaging measurement report (PS3.16 TID 1500)."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from pydicom import Dataset

from fedlens.dicom_results.finding import MANUFACTURER, SCHEME, Finding, class_code, new_uid

_PROCEDURES = {
    "MR": ("113091000", "Magnetic resonance imaging"),
    "CT": ("77477000", "Computed tomography"),
    "CR": ("168537006", "Plain radiography"),
    "DX": ("168537006", "Plain radiography"),
}
_ANY_PROCEDURE = ("363679005", "Imaging")


def structured_report(
    finding: Finding,
    segmentation: Dataset | None,
    *,
    series_uid: str,
    series_number: int,
    number: int,
) -> Dataset:
    """What the network found: the likeliest class, the probability of each, by which algorithm, and where.

    It is complete and not verified: a person has to do that.

    Args:
        finding: What to report.
        segmentation: Where it looked, as ``segmentation`` made it; None where the map is empty.
        series_uid: Series to put it in; one of the source's study.
        series_number: That series' number.
        number: Instance number.

    Returns:
        A Comprehensive SR that refers to the source image and to the segmentation.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    tracking = sr.TrackingIdentifier(
        uid=finding.region_uid, identifier=f"Region for {finding.saliency.target_name}"[:64]
    )
    common: dict[str, Any] = {
        "tracking_identifier": tracking,
        "finding_type": class_code(finding.saliency.ranked()[0][0]),
        "algorithm_id": sr.AlgorithmIdentification(
            name=f"FedLens {finding.model}"[:64],
            version=finding.version,
            parameters=[f"{name}: {value}" for name, value in finding.parameters().items()],
            family=codes.DCM.ArtificialIntelligence,
            manufacturer=MANUFACTURER,
        ),
        "measurements": _probabilities(finding),
        "qualitative_evaluations": [
            sr.QualitativeEvaluation(
                name=sr.CodedConcept("EXPLAINED", SCHEME, "Class that the region speaks for"),
                value=class_code(finding.saliency.target_name),
            )
        ],
    }
    frames = [finding.frame + 1] if finding.multi_frame else None
    group: Any
    if segmentation is None:
        image = sr.SourceImageForMeasurementGroup(
            finding.source.SOPClassUID, finding.source.SOPInstanceUID, frames
        )
        group = sr.MeasurementsAndQualitativeEvaluations(source_images=[image], **common)
    else:
        region = sr.ReferencedSegmentationFrame(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            frame_number=1,
            segment_number=1,
            source_image=sr.SourceImageForSegmentation(
                finding.source.SOPClassUID, finding.source.SOPInstanceUID, frames
            ),
        )
        for item in region:
            # The frame says which segment; PS3.3 C.18.4 allows one of the two.
            item.ReferencedSOPSequence[0].pop("ReferencedSegmentNumber", None)
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=region, **common)
    code, meaning = _PROCEDURES.get(str(finding.source.get("Modality")), _ANY_PROCEDURE)
    content = sr.MeasurementReport(
        observation_context=_observer(finding),
        procedure_reported=sr.CodedConcept(code, "SCT", meaning),
        imaging_measurements=[group],
    )
    made: Any = sr.ComprehensiveSR(
        evidence=[finding.source] if segmentation is None else [finding.source, segmentation],
        content=content[0],
        series_instance_uid=series_uid,
        series_number=series_number,
        sop_instance_uid=new_uid(),
        instance_number=number,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    made.SeriesDescription = "FedLens report"
    return made  # type: ignore[no-any-return]


def _probabilities(finding: Finding) -> list[Any]:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return [
        sr.Measurement(
            name=sr.CodedConcept(f"P-{class_code(name).value}"[:16], SCHEME, f"Probability of {name}"[:64]),
            value=round(chance, 6),
            unit=codes.UCUM.NoUnits,
        )
        for name, chance in finding.saliency.ranked()
    ]


def _observer(finding: Finding) -> Any:
    """The network as the observer; the same weights are the same device."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    digest = hashlib.sha256(f"{finding.saliency.fingerprint} {finding.version}".encode()).digest()
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}",
        name="FedLens",
        manufacturer_name=MANUFACTURER,
        model_name=finding.model,
        serial_number=finding.version,
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )
