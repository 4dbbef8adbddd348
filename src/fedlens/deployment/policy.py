"""What a hospital agrees to: a file of its own that no coordinator can change.

It is read again for every request, so a change counts at once.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field

from fedlens.errors import PolicyError
from fedlens.settings import Settings, load_settings
from fedlens.study import LEAST_SEALED, Study

POLICY_TEXT = """\
# What this hospital agrees to. A request outside it is refused, and the reason is told to the lead.
# Read again for every request: a change counts at once.

# Names of studies; "*" stands for any letters. An empty list: none.
studies = ["*"]

# Architecture fingerprints of networks, as "fedlens submit" prints them; their first letters are enough.
# ["*"]: any of the installed FedLens.
models = ["*"]

# Fewest hospitals in a sum that this hospital's numbers go into.
minimum_hospitals = 3

# "required": never send an update or a count in the clear. "optional": do as the study says.
sealing = "required"

# Most rounds of one study.
most_rounds = 200

# "allowed": after the last round, sums of features and counts by score go into what advice is fitted from.
# "refused": they go into nothing, and no study that asks for them is joined.
advice = "allowed"
"""


class Policy(Settings):
    """A hospital's policy.

    Attributes:
        studies: Patterns of the names of studies it takes part in.
        models: Fingerprints it trains, or their beginnings; ``*`` for any.
        minimum_hospitals: Fewest hospitals in a sum with its numbers.
        sealing: Whether it ever sends numbers in the clear.
        most_rounds: Longest study.
        advice: Whether its numbers may be in the sums that advice is fitted from.
    """

    studies: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    minimum_hospitals: int = Field(default=LEAST_SEALED, ge=1)
    sealing: Literal["required", "optional"] = "required"
    most_rounds: int = Field(default=200, ge=1)
    advice: Literal["allowed", "refused"] = "allowed"


def load_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        SettingsError: Missing, or a key or value that is not known.
    """
    return load_settings(Policy, path, "policy file", fix="Put it back: without it nothing is agreed to.")


def check_policy(policy: Policy, study: Study, fingerprint: str, *, fewest: int, sealed: bool) -> None:
    """Refuse a study that the policy does not allow.

    Args:
        policy: The hospital's.
        study: Asked for.
        fingerprint: Of its network's architecture.
        fewest: Hospitals in its smallest possible sum.
        sealed: Whether its updates are sealed.

    Raises:
        PolicyError: Says which rule.
    """
    if not any(fnmatchcase(study.name, pattern) for pattern in policy.studies):
        raise _refusal(f"it takes no part in studies named {study.name}", "studies")
    if not any(pattern == "*" or (pattern and fingerprint.startswith(pattern)) for pattern in policy.models):
        raise _refusal(f"it does not train networks with fingerprint {fingerprint[:12]}", "models")
    if policy.sealing == "required" and not sealed:
        raise _refusal("it sends nothing in the clear, and this study is not sealed", "sealing")
    if fewest < policy.minimum_hospitals:
        why = (
            f"it wants {policy.minimum_hospitals} hospitals or more in a sum, and this study may sum {fewest}"
        )
        raise _refusal(why, "minimum_hospitals")
    if study.federation.rounds > policy.most_rounds:
        why = f"it agrees to {policy.most_rounds} rounds, and this study has {study.federation.rounds}"
        raise _refusal(why, "most_rounds")
    if policy.advice == "refused" and study.decision.federated:
        raise _refusal(
            "it adds up nothing for advice, and this study has decision.federated = true", "advice"
        )


def _refusal(why: str, key: str) -> PolicyError:
    return PolicyError(
        f"The hospital's policy does not allow this study: {why}.",
        fix=f"Change the study, or ask the hospital about {key} in its policy.toml.",
    )
