"""Cases and predictions for tests of the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlens.decision.advice import Advice, Kind
from fedlens.predicting import Prediction
from fedlens.viewer.case import Case, new_case_id


def make_case(number: int = 0, **fields: Any) -> Case:
    """A test image of the study; cases of different numbers have different content."""
    given: dict[str, Any] = {
        "case_id": new_case_id(),
        "title": f"image {number}.png",
        "origin": "study",
        "file": Path(f"/nowhere/image-{number}.png"),
        "sha256": f"{number:064x}",
        "added": "2026-03-01T09:30:00+00:00",
    }
    return Case(**given | fields)


def make_prediction(likeliest: str = "nevus", chance: float = 0.9, kind: Kind = "report") -> Prediction:
    """Two classes, the likeliest of which is named."""
    return Prediction(
        file="image",
        probabilities=((likeliest, chance), ("other", 1 - chance)),
        label_set=(likeliest,),
        advice=Advice(kind, ("a reason", "another")),
        modality="dermoscopy",
        distance=1.25,
    )


REFUSED = Prediction("image", advice=Advice("refused", ("it is no image of the skin",)), modality="ct")
UNREADABLE = Prediction("image", problem="truncated")
