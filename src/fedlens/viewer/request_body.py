"""A request's body on its way to the application: counted, and its first fields looked at."""

from __future__ import annotations

from collections import deque

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, FormParser, parse_options_header
from starlette.types import Message, Receive

_BEGINNING = 1 << 16
"""Bytes in which a form's token must stand."""


class Body:
    """What arrives after a request's head.

    Args:
        receive: Where it comes from.
        largest: Bytes that are taken; beyond them the rest stays unread, and the application is told that the
            other side has gone.
    """

    def __init__(self, receive: Receive, largest: int) -> None:
        self._receive = receive
        self._largest = largest
        self._arrived = 0
        self._held: deque[Message] = deque()
        self.too_large = False

    async def receive(self) -> Message:
        """The next part, for the application."""
        return self._held.popleft() if self._held else await self._next()

    async def beginning(self) -> bytes:
        """The first 64 KiB, or all where there is less; the application gets them all the same."""
        start, more = b"", True
        while more and len(start) < _BEGINNING:
            message = await self._next()
            self._held.append(message)
            start += message.get("body", b"")
            more = bool(message.get("more_body", False))
        return start[:_BEGINNING]

    async def _next(self) -> Message:
        if self.too_large:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._arrived += len(message.get("body", b""))
        if self._arrived > self._largest:
            self.too_large = True
            return {"type": "http.disconnect"}
        return message


def first_value(content_type: str, beginning: bytes, name: str) -> str:
    """The first field of a name in a form's beginning; empty where it is not there or cut off.

    Args:
        content_type: ``application/x-www-form-urlencoded`` or ``multipart/form-data`` with its boundary;
            other bodies have no fields.
        beginning: Of the body.
        name: Of the field.
    """
    kind, options = parse_options_header(content_type)
    if kind not in (b"application/x-www-form-urlencoded", b"multipart/form-data"):
        return ""
    found: list[bytes] = []

    def keep(field: Field) -> None:
        if field.field_name == name.encode() and field.value is not None:
            found.append(field.value)

    try:
        parser = FormParser(kind.decode(), keep, lambda file: None, boundary=options.get(b"boundary"))
        parser.write(beginning)
        if len(beginning) < _BEGINNING:
            parser.finalize()
    except FormParserError:
        return ""
    return found[0].decode("ascii", "replace") if found else ""
