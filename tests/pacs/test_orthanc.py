"""The round trip through a real Orthanc (Debian packages orthanc and orthanc-dicomweb).

Orthanc binds all interfaces whatever its settings say, so it runs in a network namespace that nobody else can
reach, and so does what talks to it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from tests.pacs import orthanc

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.full
def test_image_in_out_predicted_results_in_out_and_read_back(tmp_path: Path) -> None:
    data = ROOT.parent / "shared" / "data" / "dicom"
    images = [Path(get_testdata_file(name, download=False)) for name in ("MR_small_RLE.dcm", "CT_small.dcm")]
    if data.is_dir():
        images += [
            data / name for name in ("RG1_J2KI.dcm", "gdcm-CR-MONO1-10-chest.dcm", "bbmri-53323131.dcm")
        ]
    if orthanc.PROGRAM is None or orthanc.plugin() is None:
        pytest.skip("Orthanc is not installed (packages orthanc and orthanc-dicomweb)")
    prefix = orthanc.namespace()
    if prefix is None:
        pytest.skip(
            "no network namespace may be made here (unshare -n), and Orthanc would bind all interfaces"
        )

    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.pacs.round_trip", str(tmp_path), *map(str, images)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert "round trip done" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
