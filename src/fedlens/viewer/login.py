"""The log-in page, and logging out."""

from __future__ import annotations

import math
import threading
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from fedlens.viewer.accounts import LONGEST_PASSWORD, Accounts
from fedlens.viewer.guard import LOGIN, Guard, client
from fedlens.viewer.pages import render
from fedlens.viewer.throttle import Backoff

# Failures without a pause: few for one account from one address, more for one address, which a ward may
# share, most for one account from anywhere, so that strangers cannot easily lock its owner out.
_FREE_OF_BOTH = 5
_FREE_OF_ADDRESS = 20
_FREE_OF_ACCOUNT = 50

_LONGEST_NAME = 64
_CHECKS_AT_ONCE = 2
"""A check takes much memory and time on purpose: a crowd of them must not take all there is."""


class _Desk:
    """Checks passwords, not too many at once and not too often."""

    def __init__(self, guard: Guard, accounts: Accounts) -> None:
        self._audit = guard.audit
        self._accounts = accounts
        self._backoff = Backoff(guard.clock)
        self._checks = threading.BoundedSemaphore(_CHECKS_AT_ONCE)

    def wait(self, name: str, password: str, address: str) -> float | None:
        """Check a password.

        Returns:
            None where it is right, 0 where it is wrong, else the seconds until it can be checked.
        """
        if not self._checks.acquire(blocking=False):
            return 1.0
        try:
            return self._checked(name, password, address)
        finally:
            self._checks.release()

    def _checked(self, name: str, password: str, address: str) -> float | None:
        account = name.casefold()
        both = f"both {account} {address}"
        keys = {
            both: _FREE_OF_BOTH,
            f"address {address}": _FREE_OF_ADDRESS,
            f"account {account}": _FREE_OF_ACCOUNT,
        }
        if wait := self._backoff.attempt(keys):
            return wait
        if self._accounts.verify(name, password):
            self._backoff.succeeded(keys, anew=both)
            self._audit.record(name, "log in", detail=address)
            return None
        # Whoever types the password into the wrong field must not find it in the log.
        known = name if name in self._accounts.names() else ""
        self._audit.record(known, "log in refused", detail=address)
        return 0.0


def login_router(guard: Guard) -> APIRouter:
    """``/login`` and ``/logout``; both lead on to the cases where nobody has to log in."""
    router = APIRouter()
    desk = _Desk(guard, guard.accounts) if guard.accounts else None

    @router.get(LOGIN)
    def page(request: Request) -> Response:
        """The form."""
        if request.state.reviewer:
            return RedirectResponse("/", 303)
        return render(request, "login.html.j2", problem="")

    @router.post(LOGIN)
    def log_in(
        request: Request,
        name: Annotated[str, Form(max_length=_LONGEST_NAME)],
        password: Annotated[str, Form(max_length=LONGEST_PASSWORD)],
    ) -> Response:
        """Check the password and begin a session; or the form again."""
        wait = desk.wait(name, password, client(request)) if desk else None
        if wait is None:
            response = RedirectResponse("/", 303)
            if desk:
                guard.begin(request, response, name)
            return response
        if not wait:
            return render(request, "login.html.j2", status=401, problem="Name or password is wrong.")
        seconds = math.ceil(wait)
        said = f"Too many tries. Wait {seconds} {'second' if seconds == 1 else 'seconds'} and try again."
        answer = render(request, "login.html.j2", status=429, problem=said)
        answer.headers["Retry-After"] = str(seconds)
        return answer

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        """End the session."""
        response = RedirectResponse(LOGIN if desk else "/", 303)
        if desk:
            guard.audit.record(request.state.reviewer, "log out")
            guard.end(request, response)
        return response

    return router
