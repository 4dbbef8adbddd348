"""``fedlens pacs pull`` and ``push``: the same two calls, whatever protocol the archive speaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlens.pacs import dimse, web
from fedlens.pacs.instances import PullReport, PushReport
from fedlens.pacs.settings import DimseServer, Server, Wanted
from fedlens.progress import Progress, silent


def pull_images(server: Server, wanted: Wanted, out: Path, *, progress: Progress = silent) -> PullReport:
    """Pull what matches into ``out/STUDY/SERIES/INSTANCE.dcm``; what is there already is not pulled.

    Args:
        server: As ``fedlens.pacs.settings.parse_server`` makes it of an address.
        wanted: What to look for.
        out: Made if missing. The files are as the archive has them, patients' names included.
        progress: Called with step ``pull``.

    Raises:
        PacsError: Out of reach, refused, or more matches than the limit. What came before stays.
        DataError: ``out`` cannot be written.
        SettingsError: Certificates that cannot be used.
    """
    if isinstance(server, DimseServer):
        return dimse.pull(server, wanted, out, progress=progress)
    return web.pull(server, wanted, out, progress=progress)


def push_images(server: Server, paths: Sequence[Path], *, progress: Progress = silent) -> PushReport:
    """Store DICOM files, each in the encoding that it has.

    Args:
        server: As ``fedlens.pacs.settings.parse_server`` makes it of an address.
        paths: Files, or folders of them.
        progress: Called with step ``push``.

    Raises:
        PacsError: Out of reach or refused altogether; single files that are refused are in the report.
        DataError: Nothing to push, or a file that is no DICOM file.
        SettingsError: Certificates that cannot be used.
    """
    if isinstance(server, DimseServer):
        return dimse.push(server, paths, progress=progress)
    return web.push(server, paths, progress=progress)
