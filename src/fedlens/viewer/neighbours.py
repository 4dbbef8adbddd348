"""Confirmed cases that look alike to the network."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy

from fedlens.decision.unlike import MOST_FEATURE, FeatureStatistics
from fedlens.files import write_bytes
from fedlens.viewer.case import Case

FEATURES_NAME = "features.safetensors"

Content = tuple[str, int]
"""Digest of a file's bytes, and a frame of it."""

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Neighbour:
    """A confirmed case that is near another.

    Attributes:
        case: The confirmed one.
        label: Its class, from the study or a review.
        similarity: 0..1; cosine between the two images' features.
    """

    case: Case
    label: str
    similarity: float


@dataclass(frozen=True)
class Candidate:
    """An image that may be a neighbour.

    Attributes:
        content: The image.
        group: Patient or lesion, as far as it is known: images of one group count as one.
    """

    content: Content
    group: str


class Directions:
    """Where images lie to the network: features of unit length by content, kept in a file.

    Where statistics of training images are known, features are measured from the middle of the classes'
    means, and whitened: what varies within all classes alike then counts less. On test images of brains and
    skin that finds the same class a little more often than plain features do, and similarities spread wider.

    Any thread may call it.

    Args:
        path: The file; one of another network, or a damaged one, is made anew.
        network: What stands for weights and statistics.
        statistics: Of training images' features; None where nothing was fitted.
    """

    def __init__(self, path: Path, network: str, statistics: FeatureStatistics | None) -> None:
        self._path = path
        self._network = network
        self._statistics = statistics
        self._lock = threading.Lock()
        self._known = _read(path, network)
        self._saved = len(self._known)

    def __contains__(self, content: object) -> bool:
        return content in self._known

    def add(self, contents: Sequence[Content], features: npt.NDArray[np.float32]) -> None:
        """Take in some images.

        Args:
            contents: N images.
            features: float32 (N, K), the network's last maps averaged over places.
        """
        directions = self._directions(features)
        with self._lock:
            self._known.update(zip(contents, directions, strict=True))

    def nearest(
        self, content: Content, among: Iterable[Candidate], count: int, *, groups: Collection[str] = ()
    ) -> list[tuple[Candidate, float]]:
        """The nearest images with their similarity, 0..1, the nearest first, at most one of each group.

        Args:
            content: Whose neighbours are wanted, itself left out; its direction must be known.
            among: Those of which the direction is not known are left out.
            count: How many at most.
            groups: Left out.
        """
        with self._lock:
            own = self._known[content]
            others = [each for each in among if each.content in self._known and each.content != content]
            if not others:
                return []
            similar = np.stack([self._known[each.content] for each in others]) @ own
        found: list[tuple[Candidate, float]] = []
        taken = set(groups)
        for index in np.argsort(-similar, kind="stable"):
            candidate = others[index]
            if candidate.group not in taken:
                taken.add(candidate.group)
                found.append((candidate, float(np.clip(similar[index], 0, 1))))
            if len(found) == count:
                break
        return found

    def save(self) -> None:
        """Write the file, whole or not at all, where it lacks something."""
        with self._lock:
            known = dict(self._known)
        if len(known) == self._saved:
            return
        content = safetensors_numpy.save(
            {"directions": np.stack(list(known.values()))},
            {"network": self._network, "contents": json.dumps(list(known))},
        )
        write_bytes(self._path, content, mode=0o600)
        self._saved = len(known)

    def _directions(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        values = np.clip(features.astype(np.float64), -MOST_FEATURE, MOST_FEATURE)
        if self._statistics is not None:
            middle = np.nanmean(self._statistics.means, axis=0)
            values = (values - middle) @ self._statistics.whitening.T
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        return np.asarray(values / np.maximum(lengths, _SMALLEST), np.float32)


def _read(path: Path, network: str) -> dict[Content, npt.NDArray[np.float32]]:
    try:
        with safe_open(path, framework="numpy") as stream:
            facts = stream.metadata() or {}
            if facts.get("network") != network:
                return {}
            contents = [(str(digest), int(frame)) for digest, frame in json.loads(facts["contents"])]
            return dict(zip(contents, stream.get_tensor("directions"), strict=True))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        # Nothing is lost but the time to compute it again.
        return {}
