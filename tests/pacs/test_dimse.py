"""DICOM's own protocol against a small archive in this process, on loopback."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, evt
from typer.testing import CliRunner

from fedlens.cli.main import app
from fedlens.errors import DataError, PacsError
from fedlens.pacs import dimse
from fedlens.pacs.settings import DimseServer, Tls, Wanted

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


class Archive:
    """What a PACS does, for a handful of data sets; knows one destination for C-MOVE."""

    def __init__(self, destination: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.held: dict[str, Dataset] = {}
        self.sent: list[str] = []
        self.withheld: set[str] = set()
        self.refused = 0x0000
        self.destination = destination
        ae = AE(ae_title="ARCHIVE")
        ae.require_called_aet = True
        for service in (FIND, MOVE, GET):
            ae.add_supported_context(service)
        for context in StoragePresentationContexts:
            ae.add_supported_context(
                str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True
            )
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_C_MOVE, self._move),
        ]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
        self.port = int(self.server.server_address[1])

    def _store(self, event: Any) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        if not self.refused:
            self.held[str(dataset.SOPInstanceUID)] = dataset
        return self.refused

    def _matching(self, query: Dataset) -> list[Dataset]:
        keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality")

        def fits(dataset: Dataset) -> bool:
            for keyword in keys:
                wanted = query.get(keyword)
                values = [wanted] if isinstance(wanted, str) else list(wanted or [])
                if any(values) and str(dataset.get(keyword)) not in [str(value) for value in values]:
                    return False
            return True

        return [dataset for dataset in self.held.values() if fits(dataset)]

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = KEYS[event.identifier.QueryRetrieveLevel]
        distinct = {str(dataset[level].value): dataset for dataset in self._matching(event.identifier)}
        for dataset in distinct.values():
            answer = Dataset()
            for element in event.identifier:
                if element.keyword == "QueryRetrieveLevel":
                    answer.add(element)
                elif element.keyword in dataset:
                    answer.add(dataset[element.keyword])
            yield 0xFF00, answer

    def _send(self, event: Any) -> Iterator[Any]:
        matching = self._matching(event.identifier)
        yield len(matching)
        for dataset in matching:
            if str(dataset.SOPInstanceUID) in self.withheld:
                continue
            self.sent.append(str(dataset.SOPInstanceUID))
            yield 0xFF00, dataset

    def _get(self, event: Any) -> Iterator[Any]:
        yield from self._send(event)

    def _move(self, event: Any) -> Iterator[Any]:
        if not self.destination or event.move_destination != "FEDLENS":
            yield None, None
            return
        yield "127.0.0.1", self.destination, {"contexts": StoragePresentationContexts[:100]}
        yield from self._send(event)


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.server.shutdown()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two slices of a patient's MR study, plain and JPEG 2000, and a CT of another patient."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, name in enumerate(["MR_small.dcm", "MR_small_jp2klossless.dcm", "CT_small.dcm"]):
        dataset = dcmread(get_testdata_file(name, download=False))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.4.{number // 2}", f"1.2.5.{number // 2}"
        dataset.PatientID = "4711" if number < 2 else "4712"
        dataset.save_as(folder / f"{number}.dcm")
    return folder


def to(archive: Archive, **options: Any) -> DimseServer:
    return DimseServer("127.0.0.1", archive.port, "ARCHIVE", timeout=10, **options)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_pushed_is_pulled_once_and_is_the_same(archive: Archive, scans: Path, tmp_path: Path) -> None:
    pushed = dimse.push(to(archive), [scans])
    assert (len(pushed.stored), pushed.failed) == (3, [])

    calls: list[tuple[str, int, int]] = []
    wanted, out = Wanted(patient="4711"), tmp_path / "out"
    report = dimse.pull(to(archive), wanted, out, progress=lambda *call: calls.append(call))

    assert (report.found, len(report.pulled), report.there, report.failed) == (2, 2, 0, [])
    assert names(out) == ["1.2.4.0/1.2.5.0/1.2.3.0.dcm", "1.2.4.0/1.2.5.0/1.2.3.1.dcm"]
    assert calls[-1] == ("pull", 2, 2)
    for number in range(2):
        mine, theirs = dcmread(scans / f"{number}.dcm"), dcmread(out / f"1.2.4.0/1.2.5.0/1.2.3.{number}.dcm")
        assert theirs.PixelData == mine.PixelData
        assert theirs.file_meta.TransferSyntaxUID == mine.file_meta.TransferSyntaxUID
    (out / "1.2.4.0/1.2.5.0/1.2.3.0.dcm").unlink()
    archive.sent.clear()
    again = dimse.pull(to(archive), wanted, out)
    assert (len(again.pulled), again.there) == (1, 1)
    assert archive.sent == ["1.2.3.0"]


def test_modality_study_and_limit_narrow_the_search(archive: Archive, scans: Path, tmp_path: Path) -> None:
    dimse.push(to(archive), [scans])
    assert dimse.pull(to(archive), Wanted(study="1.2.4.1"), tmp_path / "a").found == 1
    assert dimse.pull(to(archive), Wanted(patient="4711", modality="CT"), tmp_path / "b").found == 0
    with pytest.raises(PacsError, match="More than 1 objects"):
        dimse.pull(to(archive), Wanted(patient="4711", limit=1), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_images_sent_to_a_port_of_ours(scans: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    archive = Archive(destination=port)
    try:
        dimse.push(to(archive), [scans])
        report = dimse.pull(to(archive, move_port=port), Wanted(patient="4712"), tmp_path / "out")
        assert (len(report.pulled), report.failed) == (1, [])
        with pytest.raises(PacsError, match="does not know where to send"):
            dimse.pull(
                to(archive, move_port=port, own_title="STRANGER"), Wanted(patient="4711"), tmp_path / "x"
            )
    finally:
        archive.server.shutdown()


def test_what_does_not_come_is_named(archive: Archive, scans: Path, tmp_path: Path) -> None:
    dimse.push(to(archive), [scans])
    archive.withheld = {"1.2.3.1"}
    report = dimse.pull(to(archive), Wanted(patient="4711"), tmp_path / "out")
    assert [uid for uid, _ in report.failed] == ["1.2.3.1"]
    assert len(report.pulled) == 1


def test_what_was_not_asked_for_is_not_written(archive: Archive, scans: Path, tmp_path: Path) -> None:
    dimse.push(to(archive), [scans])
    stranger = archive.held["1.2.3.2"]
    # The archive answers for slice 0 with another patient's image.
    archive._send = lambda event: iter([1, (0xFF00, stranger)])  # type: ignore[method-assign]
    report = dimse.pull(to(archive), Wanted(patient="4711"), tmp_path / "out")
    assert report.pulled == []
    assert len(report.failed) == 2
    assert names(tmp_path) == [f"scans/{number}.dcm" for number in range(3)]


def test_a_file_that_is_refused_is_named_with_its_status(archive: Archive, scans: Path) -> None:
    archive.refused = 0xA700
    report = dimse.push(to(archive), [scans / "0.dcm"])
    assert report.stored == []
    assert "0xa700" in report.failed[0][1]
    with pytest.raises(DataError, match="no DICOM file"):
        (scans / "a.txt").write_text("x")
        dimse.push(to(archive), [scans / "a.txt"])


def test_nobody_there_and_not_let_in_are_told_apart(archive: Archive, scans: Path) -> None:
    with pytest.raises(PacsError, match="does not let FEDLENS in"):
        dimse.push(DimseServer("127.0.0.1", archive.port, "OTHER", timeout=5), [scans])
    with pytest.raises(PacsError, match="cannot be reached"):
        dimse.push(DimseServer("127.0.0.1", 1, "ARCHIVE", timeout=5), [scans])


def test_over_tls_only_to_who_is_trusted(scans: Path, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    archive = Archive(tls=context)
    try:
        report = dimse.push(to(archive, tls=Tls(authority=certificate)), [scans / "0.dcm"])
        assert len(report.stored) == 1
        with pytest.raises(PacsError, match="cannot be reached"):
            dimse.push(to(archive, tls=Tls()), [scans / "0.dcm"])
    finally:
        archive.server.shutdown()


def test_the_commands(archive: Archive, scans: Path, tmp_path: Path) -> None:
    address = f"dicom://ARCHIVE@127.0.0.1:{archive.port}"
    pushed = CliRunner().invoke(app, ["pacs", "push", address, str(scans), "--json"])
    assert pushed.exit_code == 0, pushed.output
    assert json.loads(pushed.stdout)["stored"] == 3
    pull = ["pacs", "pull", address, "--out", str(tmp_path / "out"), "--patient"]
    pulled = CliRunner().invoke(app, [*pull, "4711", "--json"])
    assert json.loads(pulled.stdout)["pulled"] == 2
    nothing = CliRunner().invoke(app, [*pull, "nobody"])
    assert nothing.exit_code == PacsError.exit_code
    archive.withheld = {"1.2.3.2"}
    assert CliRunner().invoke(app, [*pull, "4712"]).exit_code == PacsError.exit_code


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "archive")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths
