"""DICOM's own network services (PS3.7): C-FIND to find, C-GET or C-MOVE to retrieve, C-STORE to store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from fedlens.errors import FedLensError, PacsError
from fedlens.pacs.instances import (
    Instance,
    PullReport,
    PushReport,
    files_to_push,
    missing,
    read_file,
    save_instance,
    within,
)
from fedlens.pacs.settings import DimseServer, Wanted
from fedlens.progress import Progress, silent

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.association import Association

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_COMPRESSED = [
    JPEGLosslessSV1,
    JPEG2000Lossless,
    JPEG2000,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    JPEGExtended12Bit,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
]
# Image classes that hospitals have most of, for a PACS that does not tell the class of what it finds.
_USUAL = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.77.1.4",
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.88.33",
)
# At most 128 contexts go into one association (PS3.8 9.3.2).
_CONTEXTS = 128
# The PACS takes one encoding of each context, and should find the one that an image is in.
_CLASSES = (_CONTEXTS - 1) // len(_UNCOMPRESSED + _COMPRESSED)
_PENDING = (0xFF00, 0xFF01)
_WARNINGS = (0xB000, 0xB006, 0xB007)
_NO_SERVICE = 0xA801


def pull(server: DimseServer, wanted: Wanted, out: Path, *, progress: Progress = silent) -> PullReport:
    """Find instances and retrieve those that are not in ``out`` yet.

    Raises:
        PacsError: Out of reach, refused, or more matches than the limit. What came before stays.
        DataError: ``out`` cannot be written.
    """
    report = PullReport(out)
    ae = _entity(server)
    todo = missing(within(_find(ae, server, wanted), wanted.limit), report)
    arrivals = _Arrivals(todo, report, progress)
    progress("pull", 0, len(todo))
    if todo and server.move_port is None:
        _get(server, todo, arrivals)
    elif todo:
        _move(ae, server, todo, arrivals)
    arrivals.settle()
    return report


def push(server: DimseServer, paths: Sequence[Path], *, progress: Progress = silent) -> PushReport:
    """Store files over as few associations as their kinds allow; each in the encoding that it has.

    Raises:
        PacsError: Out of reach or refused altogether.
        DataError: Nothing to push, or a file that is no DICOM file.
    """
    report, files = PushReport(), files_to_push(paths)
    kinds: dict[Path, tuple[str, str]] = {}
    for file in files:
        try:
            dataset = read_file(file)
            kinds[file] = (str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID))
        except (FedLensError, AttributeError) as error:
            report.failed.append((str(file), str(error)))
    distinct = sorted(set(kinds.values()))
    done = len(report.failed)
    for first in range(0, len(distinct), _CONTEXTS):
        batch = set(distinct[first : first + _CONTEXTS])
        ae = _entity(server)
        for sop_class, syntax in sorted(batch):
            ae.add_requested_context(sop_class, UID(syntax))
        with _associated(ae, server) as association:
            for file in (file for file in files if kinds.get(file) in batch):
                progress("push", done, len(files))
                reason = _store(association, file)
                done += 1
                if reason:
                    report.failed.append((str(file), reason))
                else:
                    report.stored.append(file)
    progress("push", len(files), len(files))
    return report


class _Arrivals:
    """Takes in what a PACS sends: only what was asked for, each once; safe from several threads."""

    def __init__(self, todo: Sequence[Instance], report: PullReport, progress: Progress) -> None:
        self._waiting = {instance.uid: instance for instance in todo}
        self._total = len(todo)
        self._report, self._progress = report, progress
        self._lock = threading.Lock()
        self.reason = "it was not sent"

    def take(self, event: Any) -> int:
        """Handle a C-STORE request; returns its status (PS3.7 C.4.1.1.4)."""
        with self._lock:
            instance = self._waiting.get(str(event.request.AffectedSOPInstanceUID))
            if instance is None:
                # Nobody may fill the disk with what was not asked for.
                return 0xA900
            try:
                dataset = event.dataset
                dataset.file_meta = event.file_meta
                self._report.pulled.append(save_instance(dataset, instance, self._report.folder))
            except FedLensError as error:
                self.reason = error.what
                return 0xA700
            except (ValueError, AttributeError, KeyError, TypeError) as error:
                self.reason = f"it cannot be read: {error}"
                return 0xC000
            del self._waiting[instance.uid]
            self._progress("pull", self._total - len(self._waiting), self._total)
            return 0x0000

    def settle(self) -> None:
        """Put what did not come into the report."""
        with self._lock:
            self._report.failed += [(uid, self.reason) for uid in self._waiting]


def _entity(server: DimseServer) -> ApplicationEntity:
    from pynetdicom.ae import ApplicationEntity

    ae = ApplicationEntity(ae_title=server.own_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = server.timeout
    ae.connection_timeout = min(server.timeout, 30.0)
    return ae


@contextmanager
def _associated(ae: ApplicationEntity, server: DimseServer, **options: Any) -> Iterator[Association]:
    """An open association, released at the end.

    Raises:
        PacsError: Nobody there, or we are not let in.
    """
    where = f"{server.title} at {server.host}:{server.port}"
    if server.tls is not None:
        options["tls_args"] = (server.tls.context(), server.host)
    association = ae.associate(server.host, server.port, ae_title=server.title, **options)
    if not association.is_established:
        if association.is_rejected:
            raise PacsError(
                f"{where} does not let {ae.ae_title} in.",
                fix="Have both AE titles entered in the PACS, with this machine's address.",
            )
        if association.acceptor.primitive is not None:
            raise PacsError(
                f"{where} offers none of the services asked for.", fix="Ask whoever runs the PACS."
            )
        raise PacsError(f"{where} cannot be reached.", fix="Check address, port, encryption and network.")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _find(ae: ApplicationEntity, server: DimseServer, wanted: Wanted) -> list[Instance]:
    """All matching instances, or one more than the limit; level by level, as PS3.4 C.4.1.3.1.1 wants it."""
    ae.add_requested_context(_FIND, _UNCOMPRESSED)
    found: list[Instance] = []
    with _associated(ae, server) as association:
        for study in _ask(association, "STUDY", wanted.study_keys(), ["StudyInstanceUID"]):
            keys = {"StudyInstanceUID": str(study.StudyInstanceUID), **wanted.series_keys()}
            for series in _ask(association, "SERIES", keys, ["SeriesInstanceUID", "Modality"]):
                if wanted.modality and str(series.get("Modality", wanted.modality)) != wanted.modality:
                    continue
                place = (str(study.StudyInstanceUID), str(series.SeriesInstanceUID))
                where = dict(zip(("StudyInstanceUID", "SeriesInstanceUID"), place, strict=True))
                for item in _ask(association, "IMAGE", where, ["SOPInstanceUID", "SOPClassUID"]):
                    uid, sop_class = str(item.SOPInstanceUID), str(item.get("SOPClassUID") or "")
                    found.append(Instance(*place, uid, sop_class))
                    if len(found) > wanted.limit:
                        return found
    return found


def _ask(
    association: Association, level: str, keys: dict[str, str], returned: Sequence[str]
) -> list[Dataset]:
    """One C-FIND."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword in returned:
        setattr(query, keyword, "")
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    answers = []
    for status, answer in association.send_c_find(query, _FIND):
        code = _code(status)
        if code in _PENDING and answer is not None:
            answers.append(answer)
        elif code != 0x0000 and code not in _PENDING:
            raise PacsError(f"The PACS could not search: {_meaning(status)}.")
    return answers


def _get(server: DimseServer, todo: Sequence[Instance], arrivals: _Arrivals) -> None:
    """C-GET, series by series, over associations that take the classes of these instances."""
    from pynetdicom import evt
    from pynetdicom.presentation import build_role

    classes = sorted({instance.sop_class for instance in todo if instance.sop_class}) or list(_USUAL)
    for first in range(0, len(classes), _CLASSES):
        batch = classes[first : first + _CLASSES]
        ae = _entity(server)
        ae.add_requested_context(_GET, _UNCOMPRESSED)
        for sop_class in batch:
            for syntax in _UNCOMPRESSED + _COMPRESSED:
                ae.add_requested_context(sop_class, syntax)
        roles = [build_role(UID(sop_class), scp_role=True) for sop_class in batch]
        handlers = [(evt.EVT_C_STORE, arrivals.take)]
        mine = [item for item in todo if not item.sop_class or item.sop_class in batch]
        with _associated(ae, server, ext_neg=roles, evt_handlers=handlers) as association:
            for query in _series_queries(mine):
                _watch(association.send_c_get(query, _GET), arrivals)


def _move(ae: ApplicationEntity, server: DimseServer, todo: Sequence[Instance], arrivals: _Arrivals) -> None:
    """C-MOVE to a port of ours, open only meanwhile, and only to what calls us by our name."""
    from pynetdicom import evt

    receiver = _entity(server)
    receiver.require_called_aet = True
    receiver.require_calling_aet = [server.title]
    for sop_class in sorted({item.sop_class for item in todo if item.sop_class}) or _USUAL:
        receiver.add_supported_context(sop_class, _UNCOMPRESSED + _COMPRESSED)
    receiver.add_supported_context("1.2.840.10008.1.1")
    assert server.move_port is not None
    try:
        listening = receiver.start_server(
            ("", server.move_port), block=False, evt_handlers=[(evt.EVT_C_STORE, arrivals.take)]
        )
    except OSError as error:
        raise PacsError(
            f"Port {server.move_port} cannot be opened: {error.strerror or error}.",
            fix="Choose a free one for --move-port, and have it entered in the PACS.",
        ) from error
    try:
        ae.requested_contexts = []
        ae.add_requested_context(_MOVE, _UNCOMPRESSED)
        with _associated(ae, server) as association:
            for query in _series_queries(todo):
                _watch(association.send_c_move(query, server.own_title, _MOVE), arrivals)
    finally:
        listening.shutdown()  # type: ignore[union-attr]


def _series_queries(todo: Sequence[Instance]) -> Iterator[Dataset]:
    """One retrieval for each series, naming its missing instances."""

    def place(item: Instance) -> tuple[str, str]:
        return item.study, item.series

    for (study, series), items in groupby(sorted(todo, key=place), key=place):
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID = study, series
        query.SOPInstanceUID = [item.uid for item in items]
        yield query


def _watch(answers: Iterator[tuple[Dataset, Dataset | None]], arrivals: _Arrivals) -> None:
    for status, _ in answers:
        code = _code(status)
        if code == _NO_SERVICE:
            raise PacsError(
                "The PACS does not know where to send the images.",
                fix="Have our AE title entered in it with this machine's address and --move-port.",
            )
        if code not in _PENDING and code != 0x0000:
            arrivals.reason = f"the PACS did not send it: {_meaning(status)}"


def _store(association: Association, file: Path) -> str:
    """Send one file; returns why not, or nothing."""
    if not association.is_established:
        return "the PACS closed the connection"
    try:
        status = association.send_c_store(read_file(file))
    except (ValueError, RuntimeError, AttributeError, FedLensError) as error:
        return str(error).splitlines()[0]
    return "" if _code(status) in (0x0000, *_WARNINGS) else _meaning(status)


def _code(status: Dataset) -> int:
    return int(status.Status) if "Status" in status else -1


def _meaning(status: Dataset) -> str:
    code = _code(status)
    if code < 0:
        return "no answer, or the connection broke"
    comment = str(status.get("ErrorComment") or "").strip()
    return f"status {code:#06x}{f', {comment}' if comment else ''}"
