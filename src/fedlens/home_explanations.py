"""What a hospital keeps at home of the maps it measured, for whoever reads it there.

::

    HOME/explanations.json   figures by round: hospital, method, measures, classes, rounds
    HOME/straying.csv        images whose maps strayed in the last measurement, a line for each region:
                             image_id, class, region, share_of_heat, share_of_image, round, why

A round has ``round``, ``images`` (how many were explained), ``own`` (figures of this hospital, as from
:func:`~fedlens.metrics.explanation_totals.figures`), ``federation``, the same of all hospitals together, and
``federation_images``. ``straying`` lists classes of this hospital that stray more than elsewhere,
``straying_classes`` those that stray more than the others over all hospitals: what
:mod:`~fedlens.explain.straying` finds, with names of classes in place of their numbers, and a ``sentence``.
These four are null until the federation's totals came.
``unreadable_outlines`` are ids of images whose outline's file is damaged, and which count as if nobody had
outlined them.

HOME is ``hospitals/NAME`` in an arm's folder, or ``studies/DIGEST`` in a hospital's kit. No file leaves it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedlens.errors import HistoryError

HOME_EXPLANATIONS_NAME = "explanations.json"
STRAYING_NAME = "straying.csv"

Explained = dict[str, Any]


def read_home(home: Path) -> Explained | None:
    """A hospital's own figures by round; None where it has measured nothing.

    Raises:
        HistoryError: The file is damaged.
    """
    path = home / HOME_EXPLANATIONS_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(entry["round"], int) for entry in content["rounds"]):
            raise TypeError("a round has no number")
        explained: Explained = content
    except (ValueError, KeyError, TypeError) as error:
        raise HistoryError(
            f"{path} cannot be read: {error}.",
            why="It is damaged or was not written by FedLens.",
            fix="Remove it; the next measurement writes a new one.",
        ) from error
    return explained


def read_homes(folder: Path) -> dict[str, Explained]:
    """What each home in an arm's folder or a hospital's kit holds, by the home's own name, in order.

    Raises:
        HistoryError: A file is damaged.
    """
    homes = [path.parent for path in sorted(folder.glob(f"*/*/{HOME_EXPLANATIONS_NAME}"))]
    return {home.name: explained for home in homes if (explained := read_home(home)) is not None}
