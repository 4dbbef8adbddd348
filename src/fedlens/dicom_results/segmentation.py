"""The thresholded map as a Segmentation (PS3.3 A.51) on the source's own pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

import fedlens
from fedlens.dicom_results.finding import MANUFACTURER, SCHEME, Finding, new_uid, orientation


def segmentation(
    finding: Finding, *, series_uid: str, series_number: int, number: int, fractional: bool = False
) -> Dataset:
    """The region that the network looked at, in the rows and columns of its source.

    Args:
        finding: Whose region.
        series_uid: Series to put it in; one of the source's study.
        series_number: That series' number.
        number: Instance number.
        fractional: Keep the heat within the region, as shares of its maximum in 255 steps; a plain region
            otherwise.

    Returns:
        One segment, one frame: that of the explained frame. It has the source's frame of reference, if any.

    Raises:
        ValueError: The region is empty, or the source's geometry contradicts itself.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    region = finding.region()
    if not region.any():
        raise ValueError("the map is empty")
    values = np.where(region, finding.heat(), 0).astype(np.float32) if fractional else region
    # Only enhanced images say of each frame where it is.
    enhanced = "SharedFunctionalGroupsSequence" in finding.source
    stack = np.zeros((finding.frames if enhanced else 1, *finding.shape), values.dtype)
    stack[finding.frame if enhanced else 0] = values
    described = SegmentDescription(
        segment_number=1,
        segment_label=f"Looked at for {finding.saliency.target_name}"[:64],
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=CodedConcept(
            value="SALIENCY", scheme_designator=SCHEME, meaning="Region salient to a classifier"
        ),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"FedLens {finding.model}"[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=finding.version,
            source=MANUFACTURER,
            parameters=finding.parameters(),
        ),
        tracking_uid=finding.region_uid,
        tracking_id=f"Region for {finding.saliency.target_name}"[:64],
    )
    made: Any = Segmentation(
        source_images=[finding.source if enhanced else _one_frame(finding)],
        pixel_array=stack,
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
        segment_descriptions=[described],
        series_instance_uid=series_uid,
        series_number=series_number,
        sop_instance_uid=new_uid(),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=finding.model,
        software_versions=fedlens.__version__,
        device_serial_number="none",
        fractional_type="OCCUPANCY" if fractional else "PROBABILITY",
        content_description="Where a classifier looked; not a diagnosis",
        content_label="SALIENCY",
    )
    made.SeriesDescription = f"FedLens region, {finding.saliency.method}"[:64]
    if finding.multi_frame and not enhanced:
        made.walk(lambda inner, _: _name_frame(inner, finding))
    if "FrameOfReferenceUID" not in made:
        # Type 2C: without orientation in space that of the source's rows and columns has to be told.
        made.PatientOrientation = orientation(finding.source)
    return made  # type: ignore[no-any-return]


def _one_frame(finding: Finding) -> Dataset:
    """The header as if it were of a plain image: highdicom takes no frames that do not say where they are."""
    if not finding.multi_frame:
        return finding.source
    header = Dataset()
    header.update(finding.source)
    header.file_meta = finding.source.file_meta
    # A new element: setting the value would change it in the source too, which shares its elements.
    header.add_new("SOPClassUID", "UI", SecondaryCaptureImageStorage)
    for keyword in ("NumberOfFrames", "FrameOfReferenceUID"):
        header.pop(keyword, None)
    return header


def _name_frame(item: Dataset, finding: Finding) -> None:
    """Make a reference to the plain image one to the explained frame of the real source."""
    if item.get("ReferencedSOPInstanceUID") != finding.source.SOPInstanceUID:
        return
    item.ReferencedSOPClassUID = finding.source.SOPClassUID
    if "PurposeOfReferenceCodeSequence" in item:
        item.ReferencedFrameNumber = finding.frame + 1
