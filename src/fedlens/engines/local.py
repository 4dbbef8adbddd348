"""The embedded engine: every hospital in this process, in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from fedlens.engines.engine import Reply
from fedlens.errors import FedLensError, SettingsError


class Member(Protocol):
    """A hospital as an engine sees it."""

    @property
    def name(self) -> str:
        """As the roster spells it."""
        ...

    def handle(self, request: bytes, own: bytes = b"") -> bytes:
        """Answer one message; ``own`` came beside it for this hospital only."""
        ...


class LocalEngine:
    """Hands each request to the hospitals one after another.

    Two processor cores gain nothing from four trainers at once, and in turn only one hospital's
    update is in memory.

    Args:
        members: Hospitals with distinct names, in roster order.

    Raises:
        SettingsError: Two members share a name, or there is none.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        roster = tuple(members)
        self._members = {member.name: member for member in roster}
        if not roster or len(self._members) != len(roster):
            raise SettingsError(
                f"The roster is {[member.name for member in roster]}.",
                why="A study needs hospitals, each with a name of its own.",
                fix="Mend hospitals.names.",
            )

    @property
    def hospitals(self) -> tuple[str, ...]:
        """Names in roster order."""
        return tuple(self._members)

    def exchange(
        self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
    ) -> Iterator[Reply]:
        """Replies in the order of ``names``, each made when it is asked for.

        A hospital that raises a :class:`~fedlens.errors.FedLensError` has failed for this exchange
        only. Any other exception is a fault in the program and passes through.
        """
        for name in names:
            yield self._ask(self._members[name], request, (own or {}).get(name, b""))

    def _ask(self, member: Member, request: bytes, own: bytes) -> Reply:
        try:
            return Reply(member.name, member.handle(request, own))
        except FedLensError as error:
            return Reply(member.name, None, str(error))
