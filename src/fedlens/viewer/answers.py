"""Answers on their way to the browser: the headers that all of them carry, and the session's cookie."""

from __future__ import annotations

from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import Message, Send

from fedlens.viewer.problems import problem
from fedlens.viewer.request_body import Body
from fedlens.viewer.request_rules import answer_headers, host_name


class Answer:
    """Sends an answer with its headers; one that says 413 where the request's body was too large.

    Args:
        request: What is answered.
        body: Of the request, as far as it has arrived.
        send: Where the answer goes.

    Attributes:
        begun: Whether something has been sent.
        token: Of a session that begins with this answer; empty where none does.
    """

    def __init__(self, request: Request, body: Body, send: Send) -> None:
        self._request = request
        self._body = body
        self._send = send
        self.begun = False
        self.token = ""

    async def send(self, message: Message) -> None:
        """One part of the application's answer."""
        if self._body.too_large and not self.begun:
            self.begun = True
            await too_large(self._request)(self._request.scope, self._body.receive, self._finish)
        elif self._body.too_large:
            return
        else:
            self.begun = True
            await self._finish(message)

    async def _finish(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            request = self._request
            headers = MutableHeaders(scope=message)
            wanted = answer_headers(request.scope["path"], host_name(request.headers), is_secure(request))
            for name, value in wanted.items():
                headers[name] = value
            if self.token and "set-cookie" not in headers:
                carrier = Response()
                set_cookie(carrier, request, self.token)
                headers["set-cookie"] = carrier.headers["set-cookie"]
        await self._send(message)


def cookie_name(request: Request) -> str:
    """Name of the session's cookie; other servers of this machine, on other ports, have others."""
    _, port = request.scope.get("server") or ("", 0)
    return f"{'__Host-' if is_secure(request) else ''}fedlens-{port}"


def set_cookie(response: Response, request: Request, token: str) -> None:
    """Have an answer take a session's token along: no script and no other site may use it."""
    response.set_cookie(
        cookie_name(request), token, secure=is_secure(request), httponly=True, samesite="strict"
    )


def is_secure(request: Request) -> bool:
    """Whether a request came by TLS."""
    return bool(request.scope["scheme"] == "https")


def too_large(request: Request) -> Response:
    """The answer to a body that is larger than the settings allow."""
    return problem(request, 413, "This is larger than the viewer takes.", fix="Send fewer or smaller files.")
