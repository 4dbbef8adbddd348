"""The overlay as a Secondary Capture image (PS3.3 A.8), for every viewer there is."""

from __future__ import annotations

from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from fedlens.dicom_results.finding import MANUFACTURER, Finding, new_uid, orientation, reference, spacing
from fedlens.explain.overlay import overlay


def secondary_capture(finding: Finding, *, series_uid: str, series_number: int, number: int) -> Dataset:
    """The image with its heat map painted over it.

    Args:
        finding: What to show.
        series_uid: Series to put it in; one of the source's study.
        series_number: That series' number.
        number: Instance number.

    Returns:
        RGB, 8 bits, of the source's rows and columns, in its study, referring to it as source image.
    """
    from highdicom.sc import SCImage

    source, saliency = finding.source, finding.saliency
    # Its own annotation says whole numbers, which few spacings are.
    step: Any = spacing(source)
    image: Any = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=overlay(finding.pixels, saliency.values),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=series_uid,
        series_number=series_number,
        sop_instance_uid=new_uid(),
        instance_number=number,
        manufacturer=MANUFACTURER,
        pixel_spacing=step,
        # Only a placeholder: highdicom takes no empty one, and many sources have none.
        patient_orientation=("L", "P"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    image.PatientOrientation = orientation(source)
    # Type 2C, and whether the body part is a paired one is not always known.
    image.Laterality = source.get("Laterality")
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.SeriesDescription = f"FedLens heat map, {saliency.method}"[:64]
    image.DerivationDescription = (
        f"Heat map of what network {finding.model} looked at for {saliency.target_name}, "
        f"probability {finding.probability:.3f}. Brightest where it mattered most. Not a diagnosis."
    )
    item = reference(source, finding.frame if finding.multi_frame else None)
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.PurposeOfReferenceCodeSequence = Sequence([purpose])
    image.SourceImageSequence = Sequence([item])
    for keyword in ("BurnedInAnnotation", "PatientIdentityRemoved", "DeidentificationMethod"):
        if keyword in source:
            image[keyword] = source[keyword]
    if "DeidentificationMethodCodeSequence" in source:
        image.DeidentificationMethodCodeSequence = source.DeidentificationMethodCodeSequence
    return image  # type: ignore[no-any-return]
