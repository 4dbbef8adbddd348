"""Which images are near others."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.decision.unlike import FeatureStatistics, FeatureTotals
from fedlens.viewer.neighbours import Candidate, Content, Directions

A, B, C, D = (Content((letter * 64, 0)) for letter in "abcd")


def features(*rows: tuple[float, ...]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32)


def candidates(*contents: Content, group: str = "") -> list[Candidate]:
    return [Candidate(content, group or content[0]) for content in contents]


@pytest.fixture
def directions(tmp_path: Path) -> Directions:
    found = Directions(tmp_path / "features.safetensors", "network", None)
    found.add([A, B, C, D], features((1, 0), (1, 0.1), (1, 1), (-1, 0)))
    return found


def test_the_nearest_come_first(directions: Directions) -> None:
    found = directions.nearest(A, candidates(A, D, C, B), 9)
    assert [each.content for each, _ in found] == [B, C, D]
    assert [similarity for _, similarity in found] == pytest.approx([0.995, 0.707, 0], abs=1e-3)
    assert len(directions.nearest(A, candidates(D, C, B), 1)) == 1


def test_one_of_a_group_and_none_of_the_own(directions: Directions) -> None:
    same = candidates(B, C, group="patient")
    assert [each.content for each, _ in directions.nearest(A, [*same, *candidates(D)], 9)] == [B, D]
    assert directions.nearest(A, same, 9, groups={"patient"}) == []


def test_frames_of_a_file_are_images_of_their_own(directions: Directions) -> None:
    frame = (A[0], 1)
    directions.add([frame], features((0, 1)))
    ((found, similarity),) = directions.nearest(A, candidates(frame), 1)
    assert found.content == frame and similarity == 0


def test_images_whose_features_are_not_known_yet_are_left_out(directions: Directions) -> None:
    unknown = ("e" * 64, 0)
    assert unknown not in directions and A in directions
    assert directions.nearest(A, candidates(unknown, A), 9) == []


def test_an_image_without_any_features_is_near_nothing(directions: Directions) -> None:
    blank = ("f" * 64, 0)
    directions.add([blank], features((0, 0)))
    assert [similarity for _, similarity in directions.nearest(blank, candidates(A, B), 9)] == [0, 0]


def test_what_varies_within_classes_counts_less(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    # Class stands in the first feature; the second is loud and says nothing.
    rows = np.stack([labels + rng.normal(0, 0.1, 400), rng.normal(0, 8, 400)], 1).astype(np.float32)
    statistics = FeatureStatistics.fit(FeatureTotals.of(rows, labels, 2), shrinkage=0.01)
    contents = [(f"{number:064x}", 0) for number in range(400)]
    shares = []
    for fitted in (None, statistics):
        directions = Directions(tmp_path / "none", "network", fitted)
        directions.add(contents, rows)
        hits = [
            labels[int(each.content[0], 16)] == labels[number]
            for number in range(0, 400, 10)
            for each, _ in directions.nearest(contents[number], candidates(*contents), 4)
        ]
        shares.append(np.mean(hits))
    assert shares[1] > 0.95 > shares[0]


def test_a_class_that_nobody_learnt_from_does_no_harm(tmp_path: Path) -> None:
    statistics = FeatureStatistics.fit(
        FeatureTotals.of(features((1, 0), (0, 1), (1, 1)), np.array([0, 0, 0]), 2), shrinkage=0.5
    )
    directions = Directions(tmp_path / "none", "network", statistics)
    directions.add([A, B], features((1, 0), (1, 0.5)))
    ((_, similarity),) = directions.nearest(A, candidates(B), 1)
    assert 0 <= similarity <= 1


def test_features_are_kept_for_the_same_network(directions: Directions, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    directions.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Directions(path, "network", None)
    assert again.nearest(A, candidates(B, C, D), 9) == directions.nearest(A, candidates(B, C, D), 9)
    assert A not in Directions(path, "another network", None)


def test_nothing_is_written_where_nothing_is_new(directions: Directions, tmp_path: Path) -> None:
    directions.save()
    (tmp_path / "features.safetensors").unlink()
    directions.save()
    assert not (tmp_path / "features.safetensors").exists()
    directions.add([("e" * 64, 0)], features((0, 1)))
    directions.save()
    assert (tmp_path / "features.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"torn", b"\xff" * 200])
def test_a_damaged_file_is_computed_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.safetensors"
    path.write_bytes(content)
    directions = Directions(path, "network", None)
    directions.add([A], features((1, 0)))
    directions.save()
    assert A in Directions(path, "network", None)


@given(
    rows=st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32, allow_nan=False)] * 3), min_size=1, max_size=12),
    groups=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    count=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_neighbours_fall_in_similarity_and_never_share_a_group(
    rows: list[tuple[float, ...]], groups: list[int], count: int
) -> None:
    directions = Directions(Path("/nowhere"), "network", None)
    contents = [(f"{number:064x}", 0) for number in range(len(rows))]
    directions.add(contents, features(*rows))
    among = [
        dataclasses.replace(each, group=str(group))
        for each, group in zip(candidates(*contents), groups, strict=False)
    ]
    found = directions.nearest(contents[0], among, count, groups={str(groups[0])})
    similarities = [similarity for _, similarity in found]
    assert similarities == sorted(similarities, reverse=True) and len(found) <= count
    assert all(0 <= similarity <= 1 for similarity in similarities)
    named = [each.group for each, _ in found]
    assert len(named) == len(set(named)) and str(groups[0]) not in named
