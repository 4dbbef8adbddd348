"""What a hospital must never forget: which sums it took part in, and over whom it opened them.

Secrets of a sum die with the process. This does not: a hospital that is started again still refuses to
go back, and to open a repeated round over other survivors, since two sums that differ by one hospital
give that hospital's update away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedlens.errors import ProtocolError
from fedlens.protocol.messages import Stamp

STEPS = ("enrol", "train", "evaluate", "explain", "basis", "scores")
Survivors = tuple[str, ...]


def position(stamp: Stamp) -> tuple[int, int, int]:
    """Where a sum stands in a study; positions only grow.

    Raises:
        ProtocolError: A step that does not exist, or a negative number.
    """
    if stamp.step not in STEPS or stamp.segment < 1 or stamp.round < 0:
        raise ProtocolError(
            f"There is no step {stamp.step[:20]!r} of round {stamp.round}, segment {stamp.segment}."
        )
    return (stamp.segment, stamp.round, STEPS.index(stamp.step))


@dataclass(frozen=True)
class Ledger:
    """One hospital's record of one study; a new one is made with every entry.

    Attributes:
        study: Digest of the study's settings.
        last: Position of the last sum that something was uploaded for.
        opened: Survivors of every sum that was opened, by ``round/step`` and by ``step/model``.
    """

    study: str
    last: tuple[int, int, int] = (0, 0, 0)
    opened: Mapping[str, Survivors] = field(default_factory=dict)

    def check_forward(self, stamp: Stamp) -> None:
        """Refuse a sum that is not after the last one.

        Raises:
            ProtocolError: Names both.
        """
        if position(stamp) <= self.last:
            segment, number, step = self.last
            raise ProtocolError(
                f"Round {stamp.round} ({stamp.step}, segment {stamp.segment}) lies behind.",
                why=f"Uploaded last: round {number} ({STEPS[step]}, segment {segment}).",
                fix="Start the coordinator again, which begins a new segment.",
            )

    def check_same_survivors(self, stamp: Stamp, model: str, survivors: Survivors) -> None:
        """Refuse to open a round again, or the same step on the same weights, over others.

        Args:
            stamp: Of the sum.
            model: Digest of the weights that it was computed on.
            survivors: Whom it is to be opened over.

        Raises:
            ProtocolError: Names both lists.
        """
        for key in _keys(stamp, model):
            before = self.opened.get(key, survivors)
            if before == survivors:
                continue
            raise ProtocolError(
                f"Round {stamp.round} ({stamp.step}), or its weights, was opened over {', '.join(before)}.",
                why=f"Opened over {', '.join(survivors)} too, the difference would show single updates.",
                fix="Resume with the same hospitals, or run the study anew with another seed.",
            )

    def uploaded(self, stamp: Stamp) -> Ledger:
        """With one more upload."""
        return replace(self, last=position(stamp))

    def with_opened(self, stamp: Stamp, model: str, survivors: Survivors) -> Ledger:
        """With one more opening."""
        entries = dict.fromkeys(_keys(stamp, model), survivors)
        return replace(self, opened={**self.opened, **entries})

    def to_json(self) -> str:
        """As text for a file."""
        return json.dumps({"study": self.study, "last": self.last, "opened": self.opened}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """From :meth:`to_json`.

        Raises:
            ProtocolError: Torn or of another kind.
        """
        try:
            content = json.loads(text)
            segment, number, step = content["last"]
            opened = {str(key): tuple(_names(names)) for key, names in content["opened"].items()}
            if any(type(part) is not int or part < 0 for part in content["last"]) or step >= len(STEPS):
                raise ValueError(f"there is no sum {content['last']}")
            return cls(str(content["study"]), (segment, number, step), opened)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ProtocolError(
                f"The ledger of sealed rounds cannot be read: {error}.",
                why="Without it, a round could be opened twice.",
                fix="Put the file back, or run the study anew.",
            ) from error


def _keys(stamp: Stamp, model: str) -> tuple[str, str]:
    """A sum is known by its place and by what was computed on: either may come again, over the same only."""
    return f"{stamp.round}/{stamp.step}", f"{stamp.step}/{model}"


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("survivors are no list of names")
    return value
