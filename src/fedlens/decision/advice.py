"""What is said to the clinician: report, refer or refuse, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedlens.decision.settings import DecisionSettings

Kind = Literal["report", "refer", "refused"]
MOST_NAMED = 4
"""Classes of a set that are named in a reason."""


@dataclass(frozen=True)
class Advice:
    """Advice for one image.

    Attributes:
        kind: ``report`` the likeliest class, ``refer`` the image to a specialist, or ``refused``: the
            network must not judge such an image at all.
        reasons: In words, one short clause each; never empty.
    """

    kind: Kind
    reasons: tuple[str, ...]

    def sentence(self) -> str:
        """Kind and reasons on one line."""
        return f"{self.kind}: {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Findings:
    """What is known of one image when advice is given.

    Attributes:
        classes: In the prediction set, the likeliest first.
        probability: Calibrated, of the likeliest class.
        uncertain: Among the share of images that is referred for its low probability.
        unlike: Further from the training images than the rule allows.
        straying: Where the map strays, in words; empty where it does not, or was not looked at.
    """

    classes: tuple[str, ...]
    probability: float
    uncertain: bool = False
    unlike: bool = False
    straying: str = ""


def advise(found: Findings, settings: DecisionSettings) -> Advice:
    """Advice for an image of a known kind; every reason to refer is named."""
    reasons = []
    if found.unlike:
        reasons.append("the image is unlike the training images")
    if not found.classes:
        reasons.append(
            "no class is likely enough: the true one was likelier in "
            f"{settings.coverage:.0%} of validation images"
        )
    elif len(found.classes) > settings.largest_set:
        shown = ", ".join(found.classes[:MOST_NAMED])
        more = len(found.classes) - MOST_NAMED
        rest = f" and {more} more" if more > 0 else ""
        reasons.append(f"{len(found.classes)} classes are possible ({shown}{rest})")
    if found.uncertain:
        reasons.append("its likeliest class is among the least certain ones")
    if found.straying:
        reasons.append(f"the map strays: {found.straying}")
    if reasons:
        return Advice("refer", tuple(reasons))
    return Advice("report", (f"{found.classes[0]} with probability {found.probability:.0%}",))


def refuse(reason: str) -> Advice:
    """Advice for an image that the network must not judge."""
    return Advice("refused", (reason,))


UNCALIBRATED = Advice("refer", ("the network is not calibrated, so its probabilities carry no promise",))
"""Advice where nothing was fitted."""
