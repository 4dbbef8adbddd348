"""The study lead's pages: ``/study`` and what it asks for again and again, ``/study/live``."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import FileResponse, Response
from markupsafe import Markup

from fedlens.viewer.audit import AuditLog
from fedlens.viewer.pages import render
from fedlens.viewer.study_downloads import downloads
from fedlens.viewer.study_files import ArmFolder, StudyFiles
from fedlens.viewer.study_results import ResultsDesk
from fedlens.viewer.study_state import ArmState, Standing, standing
from fedlens.viewer.study_view import StudyView, study_view

Chosen = tuple[int, str]


@dataclass(frozen=True)
class Live:
    """The part of the page that changes.

    Attributes:
        html: Its text.
        tag: Equal for equal texts.
        title: The study's name.
        query: Names the arm in an address.
    """

    html: Markup
    tag: str
    title: str
    query: str


class StudyPage:
    """Renders the changing part anew only where some file has changed.

    Args:
        run: The run folder.
        now: Seconds since 1970.
    """

    def __init__(self, run: Path, now: Callable[[], float] = time.time) -> None:
        self._files = StudyFiles(run)
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[ArmFolder | None, tuple[object, Live]] = {}
        self.desk = ResultsDesk(self._files.root)

    def live(self, request: Request, chosen: Chosen | None) -> Live:
        """The changing part.

        Args:
            request: Whose answer it will be.
            chosen: Seed and name of the arm to look at; the current one where None.

        Raises:
            FedLensError: A file of the study is damaged.
        """
        with self._lock:
            study = self._files.study()
            where = standing(self._files, study, self._now())
            results = self.desk.results(self._files.arms(), study)
            states = tuple((arm.place, arm.state) for arm in where.arms)
            key = (self._files.stamp(), where.state, states, results.version, results.busy)
            arm = _find(where, chosen)
            place = arm.place if arm else None
            kept = self._kept.get(place)
            if kept is None or kept[0] != key:
                kept = (key, _rendered(request, study_view(self._files, study, where, results, arm)))
                self._kept[place] = kept
            return kept[1]

    def file(self, name: str, chosen: Chosen | None) -> FileResponse:
        """One of the study's files, to be kept.

        Raises:
            HTTPException: 404, there is none of that name.
        """
        with self._lock:
            where = standing(self._files, self._files.study(), self._now())
            for found in downloads(self._files, _find(where, chosen) or where.current):
                # By comparing names, no name can lead out of the folder.
                if found.name == name:
                    return FileResponse(found.path, media_type=found.kind, filename=found.name)
        raise HTTPException(404)


def study_router(run: Path, audit: AuditLog) -> APIRouter:
    """Routes of the study's page.

    Args:
        run: The run folder, of a study that runs or has ended.
        audit: Told who opened it.
    """
    router, page = APIRouter(), StudyPage(run)

    @router.get("/study")
    def study(request: Request, seed: int = 0, arm: str = "") -> Response:
        live = page.live(request, _chosen(seed, arm))
        audit.record(request.state.reviewer, "view study")
        return render(request, "study.html.j2", live=live)

    @router.get("/study/live")
    def study_live(
        request: Request,
        seed: int = 0,
        arm: str = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        live = page.live(request, _chosen(seed, arm))
        headers = {"ETag": live.tag}
        if if_none_match == live.tag:
            return Response(status_code=304, headers=headers)
        return Response(live.html, media_type="text/html", headers=headers)

    @router.get("/study/files/{name}")
    def study_file(request: Request, name: str, seed: int = 0, arm: str = "") -> Response:
        response = page.file(name, _chosen(seed, arm))
        audit.record(request.state.reviewer, "view study", detail=response.filename or "")
        return response

    return router


def _chosen(seed: int, arm: str) -> Chosen | None:
    return (seed, arm) if arm else None


def _find(where: Standing, chosen: Chosen | None) -> ArmState | None:
    """The arm of these words, among those that have begun."""
    return next((arm for arm in where.arms if (arm.seed, arm.arm) == chosen and arm.place is not None), None)


def _rendered(request: Request, view: StudyView) -> Live:
    content = bytes(render(request, "study_live.html.j2", view=view).body)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return Live(Markup(content.decode()), tag, view.title, view.query)
