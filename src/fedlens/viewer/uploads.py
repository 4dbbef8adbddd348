"""Files that people drop into a page: decoded, kept and judged."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from fedlens.errors import FedLensError, UnreadableImageError
from fedlens.files import write_bytes
from fedlens.viewer.case import Case, new_case_id
from fedlens.viewer.case_view import headline
from fedlens.viewer.decoding import Decoded
from fedlens.viewer.pages import render
from fedlens.viewer.problems import wants_page
from fedlens.viewer.services import Services

_LONGEST_TITLE = 120
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that are not seen, or turn the direction of what follows."""


@dataclass(frozen=True)
class Received:
    """What became of one file.

    Attributes:
        name: As the browser called it.
        case_id: Of its case, its first one where it has several frames; empty where it was not taken.
        frames: Cases that it made.
        kind: As :class:`fedlens.viewer.case_view.Headline`.
        said: The advice in words.
        problem: Why it was not taken; empty where it was.
    """

    name: str
    case_id: str = ""
    frames: int = 0
    kind: str = ""
    said: str = ""
    problem: str = ""

    def description(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "case": self.case_id,
            "frames": self.frames,
            "kind": self.kind,
            "said": self.said,
            "problem": self.problem,
        }


def title_of(name: str) -> str:
    """What lists call an uploaded file: its name without folders and unseen characters."""
    shown = _CONTROL.sub("", PurePosixPath(name.replace("\\", "/")).name).strip()
    return shown[:_LONGEST_TITLE] or "unnamed"


def receive(services: Services, data: bytes, name: str, reviewer: str) -> Received:
    """Take one file in: a case for each of its frames, the first one judged at once.

    Args:
        services: Store, decoder and network.
        data: The file's bytes.
        name: As the browser called it.
        reviewer: Who dropped it in.
    """
    title = title_of(name)
    library = services.library
    with library.undisturbed() if library else contextlib.nullcontext():
        try:
            found = services.decoder.decode(data, title)
        except UnreadableImageError as error:
            services.audit.record(reviewer, "upload", detail="refused")
            return Received(title, problem=error.reason)
        case = _kept(services, data, title, found)
        services.audit.record(reviewer, "upload", case.case_id)
        prediction = case.prediction
        if prediction is None and library is not None:
            prediction = library.judge(case, found.pixels, found.modality)
    said = headline(prediction)
    words = " ".join(filter(None, (said.title, said.chance)))
    return Received(title, case.case_id, found.frames, said.kind, words)


def _kept(services: Services, data: bytes, title: str, found: Decoded) -> Case:
    """The case of a file's first frame, the same as before where the file was dropped in before."""
    case_id = new_case_id()
    file = services.uploads / case_id
    first = Case(
        case_id=case_id,
        title=title,
        origin="upload",
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        patient=found.patient,
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    rest = (dataclasses.replace(first, case_id=new_case_id(), frame=n) for n in range(1, found.frames))
    write_bytes(file, data, mode=0o600)
    try:
        kept = services.store.add([first, *rest])[0]
    except FedLensError:
        file.unlink()
        raise
    if kept == case_id:
        return first
    file.unlink()
    return services.known(kept)


def upload_router(services: Services) -> APIRouter:
    """``POST /upload``."""
    router = APIRouter()

    @router.post("/upload")
    def upload(request: Request, files: Annotated[list[UploadFile], File()]) -> Response:
        """Take files in; JSON for scripts, a page for browsers without."""
        reviewer = request.state.reviewer
        received = [receive(services, file.file.read(), file.filename or "", reviewer) for file in files]
        if wants_page(request):
            return render(request, "uploaded.html.j2", received=received)
        return JSONResponse({"files": [one.description() for one in received]})

    return router
