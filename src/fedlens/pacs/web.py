"""DICOMweb (PS3.18): QIDO-RS to find, WADO-RS to retrieve, STOW-RS to store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from pydicom import Dataset

from fedlens.errors import DataError, PacsError
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
from fedlens.pacs.settings import Wanted, WebServer
from fedlens.progress import Progress, silent

_PAGE = 500
_AS_STORED = (("application/dicom", "*"),)


def pull(server: WebServer, wanted: Wanted, out: Path, *, progress: Progress = silent) -> PullReport:
    """Find instances and retrieve those that are not in ``out`` yet.

    Raises:
        PacsError: Out of reach, refused, or more matches than the limit. What came before stays.
        DataError: ``out`` cannot be written.
    """
    report = PullReport(out)
    with _client(server) as client:
        todo = missing(within(_find(client, wanted), wanted.limit), report)
        for done, instance in enumerate(todo):
            progress("pull", done, len(todo))
            try:
                dataset = client.retrieve_instance(
                    instance.study, instance.series, instance.uid, media_types=_AS_STORED
                )
            except requests.HTTPError as error:
                report.failed.append((instance.uid, _status(error)))
                continue
            report.pulled.append(save_instance(dataset, instance, out))
        progress("pull", len(todo), len(todo))
    return report


def push(server: WebServer, paths: Sequence[Path], *, progress: Progress = silent) -> PushReport:
    """Store files, one request for each.

    Raises:
        PacsError: Out of reach or refused altogether.
        DataError: Nothing to push, or a file that is no DICOM file.
    """
    report, files = PushReport(), files_to_push(paths)
    with _client(server) as client:
        for done, file in enumerate(files):
            progress("push", done, len(files))
            try:
                answer = client.store_instances([read_file(file)])
            except (requests.HTTPError, DataError) as error:
                report.failed.append((str(file), _status(error)))
                continue
            refused = answer.get("FailedSOPSequence")
            if refused:
                report.failed.append(
                    (str(file), f"refused, reason {refused[0].get('FailureReason', 0):#06x}")
                )
            else:
                report.stored.append(file)
        progress("push", len(files), len(files))
    return report


@contextmanager
def _client(server: WebServer) -> Iterator[Any]:
    """A client of dicomweb-client; what goes wrong below it becomes one clear error."""
    from dicomweb_client.api import DICOMwebClient

    with requests.Session() as session:
        # Credentials of a .netrc or a proxy of the environment would go along unseen.
        session.trust_env = False
        if server.tls.authority is not None:
            session.verify = str(server.tls.authority)
        if server.tls.certificate is not None and server.tls.key is not None:
            session.cert = (str(server.tls.certificate), str(server.tls.key))
        if server.user:
            session.auth = (server.user, server.password)
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else None
        client = DICOMwebClient(url=server.url, session=session, headers=headers)
        client.set_http_retry_params(retry=False)
        session.request = _with_timeout(session.request, server.timeout)  # type: ignore[method-assign]
        try:
            yield client
        except requests.HTTPError as error:
            raise PacsError(
                f"{server.url} refuses: {_status(error)}.", fix="Check address, user and rights."
            ) from error
        except requests.exceptions.SSLError as error:
            raise PacsError(
                f"{server.url} does not show a certificate to be trusted.",
                why=str(error),
                fix="Give the authority that signed it with --ca.",
            ) from error
        except requests.RequestException as error:
            raise PacsError(
                f"{server.url} cannot be reached: {type(error).__name__}.",
                why=str(error),
                fix="Check address and network.",
            ) from error


def _find(client: Any, wanted: Wanted) -> list[Instance]:
    """All matching instances, or one more than the limit."""
    found: list[Instance] = []
    for study in _pages(client.search_for_studies, search_filters=wanted.study_keys()):
        uid = str(study.StudyInstanceUID)
        for series in _pages(client.search_for_series, uid, search_filters=wanted.series_keys()):
            inner = str(series.SeriesInstanceUID)
            for item in _pages(client.search_for_instances, uid, inner):
                sop_class = str(item.get("SOPClassUID") or "")
                found.append(Instance(uid, inner, str(item.SOPInstanceUID), sop_class))
                if len(found) > wanted.limit:
                    return found
    return found


def _pages(search: Any, *where: str, **filters: Any) -> Iterator[Dataset]:
    """All answers to a search, page by page; a server may give fewer than asked for."""
    offset, last = 0, ""
    while True:
        page = search(*where, limit=_PAGE, offset=offset, **filters)
        # A server that knows no offset would give the same page for ever.
        if not page or str(page[0]) == last:
            return
        last = str(page[0])
        for item in page:
            yield Dataset.from_json(item)
        if len(page) < _PAGE:
            return
        offset += len(page)


def _with_timeout(request: Any, seconds: float) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("timeout", seconds)
        return request(*args, **kwargs)

    return timed


def _status(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    return str(error)
