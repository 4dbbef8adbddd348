from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlens.errors import SplitError
from fedlens.hospital.images import batches, select_images
from fedlens.imaging.manifest import ImageRecord, Manifest


def record(number: int, *, label: str, split: str, hospital: str) -> ImageRecord:
    return ImageRecord(
        image_id=f"s/{number}",
        file=f"{number}.png",
        label=label,
        group=str(number),
        modality="xray",
        source="s",
        sha256="",
        width=8,
        height=8,
        split=split,
        hospital=hospital,
    )


@given(
    count=st.integers(2, 200),
    rounds=st.integers(1, 12),
    passes=st.integers(1, 3),
    batch=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_rounds_of_a_fraction_of_a_pass_see_every_image_as_often(
    count: int, rounds: int, passes: int, batch: int, seed: int
) -> None:
    rounds = min(rounds, count)
    labels = np.zeros(count, np.int64)
    edges = [passes * number / rounds for number in range(rounds + 1)]
    seen = np.concatenate(
        [
            np.concatenate(list(batches(labels, start=a, end=b, batch_size=batch, seed=seed)))
            for a, b in itertools.pairwise(edges)
        ]
    )
    assert (np.bincount(seen, minlength=count) == passes).all()


@given(count=st.integers(4, 300), batch=st.integers(2, 64))
def test_no_batch_is_left_with_a_single_image(count: int, batch: int) -> None:
    sizes = [len(b) for b in batches(np.zeros(count, np.int64), start=0, end=1, batch_size=batch, seed=0)]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert sum(sizes) == count


def test_balanced_sampling_visits_a_rare_class_as_often_as_a_common_one() -> None:
    labels = np.array([0] * 950 + [1] * 50)
    order = np.concatenate(list(batches(labels, start=0, end=10, batch_size=32, seed=0, balanced=True)))
    assert 0.45 < (labels[order] == 1).mean() < 0.55


def test_selection_takes_only_one_hospitals_split() -> None:
    manifest = Manifest(
        Path(),
        (
            record(0, label="a", split="train", hospital="A"),
            record(1, label="b", split="train", hospital="B"),
            record(2, label="b", split="test", hospital="A"),
            record(3, label="b", split="train", hospital="A"),
            record(4, label="b", split="train", hospital=""),
        ),
    )
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None]
    chosen = select_images(manifest, pixels, ("a", "b"), split="train", hospital="A")
    assert chosen.rows.tolist() == [0, 3]
    assert chosen.labels.tolist() == [0, 1]
    assert chosen.take(np.array([1])).ravel().tolist() == [3]
    everyone = select_images(manifest, pixels, ("a", "b"), split="train")
    assert everyone.rows.tolist() == [0, 1, 3]


def test_a_label_outside_the_classes_is_named() -> None:
    manifest = Manifest(Path(), (record(0, label="zebra", split="train", hospital="A"),))
    with pytest.raises(SplitError, match="zebra"):
        select_images(manifest, np.zeros((1, 1, 1, 1), np.uint8), ("a",), split="train")
