"""Run within a network namespace of its own: image into Orthanc, out again, predicted, results in and out.

Started by ``test_orthanc.py`` as ``python -m tests.pacs.round_trip FOLDER IMAGE...``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from highdicom import sr
from highdicom.seg import segread
from pydicom import Dataset, dcmread

from fedlens.dicom_results.writing import write_results
from fedlens.errors import PacsError
from fedlens.pacs import dimse, web
from fedlens.pacs.settings import DimseServer, Wanted, WebServer
from tests.pacs import orthanc
from tests.untrained_run import save_untrained

CLEAR = DimseServer("127.0.0.1", orthanc.DICOM_PORT, orthanc.TITLE, timeout=30)
MOVING = DimseServer("127.0.0.1", orthanc.DICOM_PORT, orthanc.TITLE, move_port=orthanc.MOVE_PORT, timeout=30)
WEB = WebServer(f"{orthanc.URL}/dicom-web", orthanc.USER, orthanc.PASSWORD, timeout=30)


def round_trip(folder: Path, images: list[Path]) -> None:
    """Everything that a hospital does with its PACS, by each of the three ways out of it."""
    originals = {str(dcmread(image).SOPInstanceUID): dcmread(image) for image in images}
    pushed = dimse.push(CLEAR, images[:-1])
    pushed_web = web.push(WEB, images[-1:])
    assert not pushed.failed + pushed_web.failed, pushed.failed + pushed_web.failed
    studies = sorted({str(original.StudyInstanceUID) for original in originals.values()})

    for study in studies:
        pulled = web.pull(WEB, Wanted(study=study), folder / "pulled")
        assert pulled.pulled
        assert not pulled.failed
    for file in sorted((folder / "pulled").rglob("*.dcm")):
        same(dcmread(file), originals[file.stem])

    written = write_results(
        save_untrained(folder / "run", ("NORMAL", "PNEUMONIA")), [folder / "pulled"], folder / "results"
    )
    results = [file for item in written for file in item.files]
    assert len(written) == len(images)
    assert not web.push(WEB, results[::2]).failed
    assert not dimse.push(CLEAR, results[1::2]).failed

    known = {str(dcmread(file).SOPInstanceUID): file for file in results}
    for way, server in (("get", CLEAR), ("move", MOVING)):
        for study in studies:
            assert not dimse.pull(server, Wanted(study=study), folder / way).failed
        came = {file.stem: file for file in (folder / way).rglob("*.dcm")}
        assert came.keys() == originals.keys() | known.keys()
        for uid, original in originals.items():
            same(dcmread(came[uid]), original)
        for uid, file in known.items():
            read_back(came[uid], file)
    for study in studies:
        again = web.pull(WEB, Wanted(study=study), folder / "get")
        assert not again.pulled
        assert again.there == again.found
    refusals(folder, studies[0])


def same(found: Dataset, original: Dataset) -> None:
    """An image came back as it was, encoded pixels included."""
    assert found.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    assert found.PixelData == original.PixelData
    assert str(found.get("PatientID", "")) == str(original.get("PatientID", ""))


def read_back(found: Path, written: Path) -> None:
    """A result came back, and says the same to a reader of its kind."""
    mine, theirs = dcmread(written), dcmread(found)
    if mine.Modality == "SEG":
        assert np.array_equal(segread(found).pixel_array, segread(written).pixel_array)
        assert theirs.SegmentSequence[0].TrackingUID == mine.SegmentSequence[0].TrackingUID
    elif mine.Modality == "SR":
        [group] = sr.srread(found).content.get_planar_roi_measurement_groups()
        [other] = sr.srread(written).content.get_planar_roi_measurement_groups()
        assert [item.value for item in group.get_measurements()] == [
            item.value for item in other.get_measurements()
        ]
    else:
        assert np.array_equal(theirs.pixel_array, mine.pixel_array)
        source = theirs.SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == mine.SourceImageSequence[0].ReferencedSOPInstanceUID


def refusals(folder: Path, study: str) -> None:
    """Wrong titles and passwords are told as such, and a limit holds."""
    stranger = DimseServer("127.0.0.1", orthanc.DICOM_PORT, "NOBODY", timeout=10)
    with pytest.raises(PacsError, match="does not let FEDLENS in"):
        dimse.pull(stranger, Wanted(study=study), folder / "none")
    with pytest.raises(PacsError, match="401"):
        web.pull(WebServer(WEB.url, orthanc.USER, "guess", timeout=10), Wanted(study=study), folder / "none")
    with pytest.raises(PacsError, match="More than 1 objects"):
        web.pull(WEB, Wanted(study=study, limit=1), folder / "none")
    assert not (folder / "none").exists()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with orthanc.running(place / "orthanc"):
        round_trip(place, [Path(argument) for argument in sys.argv[2:]])
    print("round trip done")
