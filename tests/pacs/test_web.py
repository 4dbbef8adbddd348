"""DICOMweb against a small archive in this process, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from fedlens.cli.main import app
from fedlens.cli.pacs import PASSWORD, TOKEN
from fedlens.errors import PacsError
from fedlens.pacs import web
from fedlens.pacs.settings import Wanted, WebServer

STUDY, SERIES = "1.2.4", "1.2.5"
TOKEN_VALUE = "let me in"


class Archive(ThreadingHTTPServer):
    """QIDO-RS, WADO-RS and STOW-RS for one series, page by page."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.held: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.refuses = False
        self.sent: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Root of the services."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Requests(BaseHTTPRequestHandler):
    """One request to an ``Archive``."""

    server: Archive

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        steps = parts.path.strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN_VALUE}":
            self._answer(401, b"", "text/plain")
        elif steps == ["studies"]:
            self._page([{"0020000D": {"vr": "UI", "Value": [STUDY]}}])
        elif steps[-1] == "series":
            self._page([{"0020000E": {"vr": "UI", "Value": [SERIES]}}])
        elif steps[-1] == "instances":
            self._page([{"00080018": {"vr": "UI", "Value": [uid]}} for uid in sorted(self.server.held)])
        elif steps[-1] in self.server.broken:
            self._answer(500, b"", "text/plain")
        else:
            self.server.sent.append(steps[-1])
            part = (
                b"--b\r\nContent-Type: application/dicom\r\n\r\n" + self.server.held[steps[-1]] + b"\r\n--b--"
            )
            self._answer(200, part, 'multipart/related; type="application/dicom"; boundary=b')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        start = body.index(b"DICM") - 128
        dataset = dcmread(BytesIO(body[start : body.rindex(b"\r\n--")]))
        item = Dataset()
        item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
        answer = Dataset()
        if self.server.refuses:
            item.FailureReason = 0xA700
            answer.FailedSOPSequence = [item]
        else:
            self.server.held[str(dataset.SOPInstanceUID)] = body[start : body.rindex(b"\r\n--")]
            answer.ReferencedSOPSequence = [item]
        self._answer(200, json.dumps(answer.to_json_dict()).encode(), "application/dicom+json")

    def _page(self, items: list[dict[str, object]]) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        first, limit = int(asked.get("offset", ["0"])[0]), int(asked.get("limit", ["100"])[0])
        self._answer(200, json.dumps(items[first : first + limit]).encode(), "application/dicom+json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive() as made:
        yield made
        made.shutdown()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three slices of one series."""
    (tmp_path / "scans").mkdir()
    for number in range(3):
        dataset = dcmread(get_testdata_file("MR_small_RLE.dcm", download=False))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(tmp_path / "scans" / f"{number}.dcm")
    return tmp_path / "scans"


def to(archive: Archive) -> WebServer:
    return WebServer(archive.url, token=TOKEN_VALUE, timeout=10)


def test_what_is_pushed_is_pulled_once_and_is_the_same(
    archive: Archive, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pages smaller than the series, so that several are fetched.
    monkeypatch.setattr(web, "_PAGE", 2)
    assert len(web.push(to(archive), [scans]).stored) == 3

    report = web.pull(to(archive), Wanted(study=STUDY), tmp_path / "out")

    assert (report.found, len(report.pulled), report.failed) == (3, 3, [])
    for number in range(3):
        mine = dcmread(scans / f"{number}.dcm")
        theirs = dcmread(tmp_path / "out" / STUDY / SERIES / f"1.2.3.{number}.dcm")
        assert theirs.PixelData == mine.PixelData
        assert theirs.file_meta.TransferSyntaxUID == mine.file_meta.TransferSyntaxUID
    (tmp_path / "out" / STUDY / SERIES / "1.2.3.1.dcm").unlink()
    archive.sent.clear()
    again = web.pull(to(archive), Wanted(study=STUDY), tmp_path / "out")
    assert (again.there, archive.sent) == (2, ["1.2.3.1"])


def test_one_object_that_does_not_come_does_not_stop_the_others(
    archive: Archive, scans: Path, tmp_path: Path
) -> None:
    web.push(to(archive), [scans])
    archive.broken = {"1.2.3.0"}
    report = web.pull(to(archive), Wanted(study=STUDY), tmp_path / "out")
    assert len(report.pulled) == 2
    assert report.failed[0][0] == "1.2.3.0"
    assert "500" in report.failed[0][1]


def test_a_file_sent_for_another_is_not_kept(archive: Archive, scans: Path, tmp_path: Path) -> None:
    web.push(to(archive), [scans])
    archive.held["1.2.3.0"] = archive.held["1.2.3.2"]
    with pytest.raises(PacsError, match=r"sent 1\.2\.3\.2 for 1\.2\.3\.0"):
        web.pull(to(archive), Wanted(study=STUDY), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_refusals_limits_and_silence(archive: Archive, scans: Path, tmp_path: Path) -> None:
    archive.refuses = True
    assert "0xa700" in web.push(to(archive), [scans / "0.dcm"]).failed[0][1]
    archive.refuses = False
    web.push(to(archive), [scans])
    with pytest.raises(PacsError, match="401"):
        web.pull(WebServer(archive.url, token="guess"), Wanted(study=STUDY), tmp_path / "out")
    with pytest.raises(PacsError, match="More than 2 objects"):
        web.pull(to(archive), Wanted(study=STUDY, limit=2), tmp_path / "out")
    with pytest.raises(PacsError, match="cannot be reached"):
        web.pull(WebServer("http://127.0.0.1:1", timeout=2), Wanted(study=STUDY), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_commands_take_secrets_from_the_environment(
    archive: Archive, scans: Path, tmp_path: Path
) -> None:
    runner = CliRunner(env={TOKEN: TOKEN_VALUE})
    assert runner.invoke(app, ["pacs", "push", archive.url, str(scans)]).exit_code == 0
    pull = ["pacs", "pull", archive.url, "--out", str(tmp_path / "out"), "--study", STUDY]
    assert json.loads(runner.invoke(app, [*pull, "--json"]).stdout)["pulled"] == 3
    denied = CliRunner(env={TOKEN: ""}).invoke(app, pull)
    assert denied.exit_code == PacsError.exit_code
    unset = CliRunner(env={PASSWORD: ""}).invoke(app, [*pull, "--user", "me"])
    assert unset.exit_code == 2
    assert PASSWORD in unset.output
