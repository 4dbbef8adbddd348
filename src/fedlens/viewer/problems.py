"""What went wrong, as a page for people and as JSON for scripts."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from fedlens.viewer.pages import render


def wants_page(request: Request) -> bool:
    """Whether a person waits for the answer, and not a script."""
    return "text/html" in request.headers.get("accept", "")


def problem(request: Request, status: int, what: str, why: str = "", fix: str = "") -> Response:
    """An answer in three voices; nothing of the request's own words stands in it."""
    if not wants_page(request):
        return JSONResponse({"problem": what, "why": why, "fix": fix}, status)
    title = HTTPStatus(status).phrase
    return render(request, "error.html.j2", status=status, title=title, what=what, why=why, fix=fix)
