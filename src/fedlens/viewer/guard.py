"""The wall around all pages: who may ask, what a request must show, and what every answer says.

Each request passes, in this order: its host name, method and origin; how many came before it; who sent it;
its size; and, where it changes something, the token of its session. Only then does a route see it.
"""

from __future__ import annotations

import getpass
import hmac
import logging
import time
import traceback
from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fedlens.errors import SettingsError
from fedlens.viewer.accounts import Accounts
from fedlens.viewer.answers import Answer, cookie_name, is_secure, set_cookie, too_large
from fedlens.viewer.audit import AuditLog
from fedlens.viewer.problems import problem, wants_page
from fedlens.viewer.request_body import Body, first_value
from fedlens.viewer.request_rules import (
    METHODS,
    comes_from_elsewhere,
    host_name,
    is_own,
    is_static,
    own_names,
)
from fedlens.viewer.sessions import LONGEST, Session, Sessions
from fedlens.viewer.settings import ViewerSettings
from fedlens.viewer.throttle import Allowance

LOGIN = "/login"
UPLOAD = "/upload"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"

_ASKED_BY_ITSELF = frozenset({"/study/live", "/waiting"})
"""Addresses that an open page asks for again and again; they do not keep a session open."""

_FORM_BYTES = 1 << 17
"""What a form may hold beside its files."""

_AT_ONCE, _EACH_SECOND = 1000.0, 100.0
_LONGEST_NAME = 64
_LOG = logging.getLogger(__name__)


class Guard:
    """What stands before the routes, and remembers who is there.

    Routes find in ``request.state``: ``reviewer`` (empty where nobody is logged in), ``csrf``, ``login``
    (whether people log in at all) and ``session``.

    Args:
        settings: How the viewer is reached.
        accounts: Who may log in; None where everybody who reaches the address is the reviewer.
        audit: Where log-ins are noted.
        clock: Seconds that never go back.

    Raises:
        SettingsError: The certificate cannot be read.
    """

    def __init__(
        self,
        settings: ViewerSettings,
        accounts: Accounts | None,
        audit: AuditLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.accounts = accounts
        self.audit = audit
        self.clock = clock
        idle = settings.idle_minutes * 60
        self._names = own_names(settings)
        self._reviewer = settings.reviewer or user_name()
        self._members = Sessions(idle, clock=clock)
        # Kept apart, so that no crowd of strangers ends the sessions of those who are logged in. They may do
        # nothing that an idle limit would guard, and a form that stayed open for an hour should still work.
        self._visitors = Sessions(LONGEST, clock=clock)
        self._requests = Allowance(_AT_ONCE, _EACH_SECOND, clock)

    @classmethod
    def install(
        cls,
        app: FastAPI,
        settings: ViewerSettings,
        accounts: Accounts | None,
        audit: AuditLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> Guard:
        """Put a guard before all routes of an application; give it to ``login_router``, too."""
        guard = cls(settings, accounts, audit, clock)
        app.add_middleware(_Gate, guard=guard)
        return guard

    def begin(self, request: Request, response: Response, reviewer: str) -> None:
        """Log somebody in: a new session in place of the one that they came with.

        Args:
            request: The log-in form.
            response: Its answer, which takes the session's cookie along.
            reviewer: Whose password was right.
        """
        self._forget(request)
        token, _ = self._members.open(reviewer, self._mark(reviewer))
        set_cookie(response, request, token)

    def end(self, request: Request, response: Response) -> None:
        """Log somebody out."""
        self._forget(request)
        response.delete_cookie(
            cookie_name(request), secure=is_secure(request), httponly=True, samesite="strict"
        )

    def reviewer(self, session: Session | None) -> str:
        """Who sends a request; empty where nobody is logged in."""
        if self.accounts is None:
            return self._reviewer
        return session.reviewer if session else ""

    def session(self, request: Request) -> Session | None:
        """The session that a request belongs to."""
        token = request.cookies.get(cookie_name(request), "")
        use = request.scope["path"] not in _ASKED_BY_ITSELF
        session = self._members.find(token, use=use) or self._visitors.find(token, use=use)
        if session is None or not session.reviewer or self.accounts is None:
            return session
        # An account that was removed, or got another password, is logged out everywhere.
        if session.mark and hmac.compare_digest(self._mark(session.reviewer), session.mark):
            return session
        self._members.close(session)
        return None

    def visit(self, request: Request) -> str:
        """Open a session for whoever has none; returns the token of its cookie."""
        token, session = self._visitors.open()
        self.admit(request, session)
        return token

    def admit(self, request: Request, session: Session | None) -> None:
        """Tell routes and templates who sends a request."""
        request.state.session = session
        request.state.reviewer = self.reviewer(session)
        request.state.csrf = session.csrf if session else ""
        request.state.login = self.accounts is not None

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that no route is to see, for its head alone."""
        if not is_own(host_name(request.headers), self._names):
            return problem(
                request, 421, "The viewer is not called by this name.", fix="Use the address it printed."
            )
        if request.method not in METHODS:
            return problem(request, 405, "The viewer does not know this method.")
        if comes_from_elsewhere(request.headers, request.method, request.scope["scheme"]):
            return problem(request, 403, "Another site's page asked for this.", fix="Open the viewer itself.")
        session: Session | None = request.state.session
        # Sessions of strangers cost them nothing, so they are counted by where they come from.
        if not self._requests.take(session.key if session and session.reviewer else client(request)):
            return problem(request, 429, "Too many requests.", fix="Wait a few seconds.")
        if request.state.reviewer or is_static(request.scope["path"]) or request.scope["path"] == LOGIN:
            return None
        if wants_page(request):
            return RedirectResponse(LOGIN, 303)
        return JSONResponse({"problem": "Nobody is logged in.", "why": "", "fix": "Log in again."}, 401)

    def largest_body(self, request: Request) -> int:
        """Bytes that a request may bring."""
        return _FORM_BYTES + (self.settings.largest_upload if request.scope["path"] == UPLOAD else 0)

    async def forged(self, request: Request, body: Body) -> bool:
        """Whether a request that changes something lacks its session's token."""
        session: Session | None = request.state.session
        shown = request.headers.get(CSRF_HEADER, "")
        if session is None:
            return True
        if not shown:
            shown = first_value(request.headers.get("content-type", ""), await body.beginning(), CSRF_FIELD)
        return not hmac.compare_digest(shown.encode(), session.csrf.encode())

    def _mark(self, reviewer: str) -> str:
        try:
            return self.accounts.mark(reviewer) if self.accounts else ""
        except SettingsError as error:
            _LOG.error("%s", error)
            return ""

    def _forget(self, request: Request) -> None:
        session: Session | None = request.state.session
        if session is not None:
            self._members.close(session)
            self._visitors.close(session)


class _Gate:
    """The guard between server and application."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard, request = self._guard, Request(scope)
        session = guard.session(request)
        guard.admit(request, session)
        body = Body(receive, guard.largest_body(request))
        out = Answer(request, body, send)
        refused = guard.refusal(request)
        if refused is None and session is None and not is_static(request.scope["path"]):
            out.token = guard.visit(request)
        if refused is None and _announced(request) > guard.largest_body(request):
            refused = too_large(request)
        if (
            refused is None
            and request.method == "POST"
            and (session is None or await guard.forged(request, body))
        ):
            refused = problem(
                request, 403, "The page is too old.", why="Its session has ended.", fix="Load it again."
            )
        if refused is not None:
            await refused(scope, receive, out.send)
            return
        await self._pass(scope, body, out, request)

    async def _pass(self, scope: Scope, body: Body, out: Answer, request: Request) -> None:
        try:
            await self._app(scope, body.receive, out.send)
        except Exception as error:  # noqa: BLE001  # A fault of ours; its message may speak of a patient.
            places = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s while answering\n%s", type(error).__name__, places)
            if not out.begun:
                answer = problem(request, 500, "The viewer failed at this.", fix="Try again; see its log.")
                await answer(scope, body.receive, out.send)


def client(request: Request) -> str:
    """The other side's address."""
    return request.client.host if request.client else ""


def user_name() -> str:
    """The operating system's name for whoever started the program."""
    try:
        return getpass.getuser()[:_LONGEST_NAME]
    except (OSError, KeyError):
        return "reviewer"


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isascii() and length.isdecimal() else 0
