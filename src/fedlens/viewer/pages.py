"""Pages from templates; all text that enters one is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from fedlens.reports.page import environment

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"

_environment = environment(_TEMPLATES)


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page.

    ``request.state`` brings what the guard found: ``reviewer`` (empty where nobody is logged in), ``csrf``
    (token that every form sends back) and ``login`` (whether people log in at all).
    """
    state = request.state
    page = _environment.get_template(template).render(
        reviewer=state.reviewer, csrf=state.csrf, login=state.login, path=request.url.path, **context
    )
    # JSON can bring half a surrogate pair, which no answer can hold.
    return HTMLResponse(page.encode("utf-8", "replace"), status)
