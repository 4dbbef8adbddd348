"""Splits: no cluster crosses, proportions hold, conflicts stay out, and a seed is a split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import SettingsError, SplitError
from fedlens.imaging.allocation import cluster_of
from fedlens.imaging.copies import COPIES_NAME
from fedlens.imaging.labels import relabel
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.splits import CONFLICT, split


def image(number: int, label: str, cluster: str = "", group: str = "", source: str = "s") -> ImageRecord:
    name = f"{source}/{number}.png"
    return ImageRecord(
        name, f"{number}.png", label, group or name, "mri", source, f"{number:064x}", 8, 8, cluster=cluster
    )


def crowd(labels: dict[str, int], cluster_size: int = 1) -> Manifest:
    """So many images of each label, in clusters of one size."""
    records = []
    for label, count in labels.items():
        for place in range(count):
            records.append(image(len(records), label, f"{label}-{place // cluster_size}"))
    return Manifest(Path("nowhere"), tuple(records))


def fractions(manifest: Manifest, label: str) -> list[float]:
    counts = Counter(record.split for record in manifest if record.label == label)
    return [counts[name] / counts.total() for name in ("train", "validation", "test")]


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Clusters of 1..5 images over two sources and three labels, some clusters with two labels."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=60, max_size=150))
    kinds = draw(st.lists(st.sampled_from("abc"), min_size=len(sizes), max_size=len(sizes)))
    records: list[ImageRecord] = []
    for number, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        for place in range(size):
            label = "a" if number % 17 == 0 and place else kind
            records.append(image(len(records), label, f"c{number}", source="st"[number % 2]))
    # Ten lone images of each label, so that every label can be in every split.
    for label in "abc" * 10:
        records.append(image(len(records), label, f"lone{len(records)}"))
    return Manifest(Path("nowhere"), tuple(records))


@settings(max_examples=40, deadline=None)
@given(manifests(), st.integers(0, 5))
def test_clusters_stay_whole_and_fractions_hold(manifest: Manifest, seed: int) -> None:
    done = split(manifest, validation=0.15, test=0.25, seed=seed)
    homes: dict[str, set[str]] = {}
    for record in done:
        homes.setdefault(cluster_of(record), set()).add(record.split)
    assert all(len(home) == 1 and "" not in home for home in homes.values())
    for label in manifest.labels():
        total = sum(1 for record in manifest if record.label == label)
        # Two sources with clusters of up to five: at most about one cluster of each off target.
        for got, wanted in zip(fractions(done, label), (0.6, 0.15, 0.25), strict=True):
            assert abs(got - wanted) * total <= 8


@settings(max_examples=20, deadline=None)
@given(manifests(), st.randoms(use_true_random=False))
def test_order_of_the_images_plays_no_part(manifest: Manifest, random: Random) -> None:
    records = list(manifest.records)
    random.shuffle(records)
    one = split(manifest, validation=0.1, test=0.2, seed=3)
    other = split(manifest.with_records(records), validation=0.1, test=0.2, seed=3)
    assert {record.image_id: record.split for record in one} == {
        record.image_id: record.split for record in other
    }
    assert [record.image_id for record in other] == [record.image_id for record in records]


def test_large_classes_are_split_to_the_image() -> None:
    done = split(crowd({"a": 1000, "b": 200}), validation=0.1, test=0.2, seed=0)
    for label in "ab":
        assert fractions(done, label) == pytest.approx([0.7, 0.1, 0.2], abs=0.005)


def test_seeds_differ_and_repeat() -> None:
    manifest = crowd({"a": 50, "b": 50})
    first, again, other = (split(manifest, validation=0.1, test=0.2, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert all(not record.split for record in manifest)


def test_patients_stay_whole_before_an_audit() -> None:
    records = [image(number, "ab"[number % 2], group=f"s:{number // 4}") for number in range(80)]
    done = split(Manifest(Path("nowhere"), tuple(records)), validation=0.1, test=0.2, seed=0)
    homes: dict[str, set[str]] = {}
    for record in done:
        homes.setdefault(record.group, set()).add(record.split)
    assert all(len(home) == 1 for home in homes.values())


def test_copies_with_other_labels_are_excluded_until_the_labels_agree(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, crowd({"glioma": 30, "meningioma": 30, "none": 30}).records)
    torn = [manifest.records[0], manifest.records[30]]
    whole = [manifest.records[1], manifest.records[2]]
    table = {"image_id": [record.image_id for record in torn + whole], "copy_group": [1, 1, 2, 2]}
    pq.write_table(pa.table(table), tmp_path / COPIES_NAME)
    done = split(manifest, validation=0.1, test=0.2, seed=0)
    out = [record for record in done if record.excluded]
    assert [record.image_id for record in out] == [record.image_id for record in torn]
    assert {record.excluded for record in out} == {CONFLICT} and {record.split for record in out} == {""}
    merged = split(
        relabel(done, {"glioma": "tumor", "meningioma": "tumor"}), validation=0.1, test=0.2, seed=0
    )
    assert not any(record.excluded for record in merged)


def test_images_excluded_for_other_reasons_stay_out() -> None:
    manifest = crowd({"a": 30, "b": 30}).with_column("excluded", ["blurred"] + [""] * 59)
    done = split(manifest, validation=0.1, test=0.2, seed=0)
    assert (done.records[0].excluded, done.records[0].split) == ("blurred", "")
    assert all(record.split for record in done.records[1:])


def test_class_in_one_cluster_is_refused_with_its_counts() -> None:
    manifest = crowd({"a": 50, "rare": 4}, cluster_size=4)
    with pytest.raises(
        SplitError, match=r"Class rare would have no t\w+ image\. It has 4 images in 1 clusters"
    ):
        split(manifest, validation=0.1, test=0.2, seed=0)


def test_the_computed_mend_mends() -> None:
    manifest = crowd({"a": 50, "rare": 3})
    with pytest.raises(SplitError, match=r"Set data\.test = 0\.34") as caught:
        split(manifest, validation=0.1, test=0.05, seed=0)
    assert "Class rare" in str(caught.value)
    done = split(manifest, validation=0.1, test=0.34, seed=0)
    assert fractions(done, "rare")[2] > 0


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.2, 0.9)])
def test_fractions_without_training_images_are_refused(validation: float, test: float) -> None:
    with pytest.raises(SplitError, match="leave no training images"):
        split(crowd({"a": 50}), validation=validation, test=test, seed=0)


def test_no_test_images_where_none_are_wanted() -> None:
    done = split(crowd({"a": 40, "b": 2}), validation=0.0, test=0.0, seed=0)
    assert {record.split for record in done} == {"train"}


def test_relabelling_keeps_the_old_label_as_subtype() -> None:
    manifest = crowd({"glioma": 1, "meningioma": 1, "none": 1})
    done = relabel(manifest, {"glioma": "tumor", "meningioma": "tumor"})
    assert [(record.label, record.subtype) for record in done] == [
        ("tumor", "glioma"),
        ("tumor", "meningioma"),
        ("none", ""),
    ]
    assert manifest.labels() == ("glioma", "meningioma", "none")
    swapped = relabel(manifest, {"glioma": "none", "none": "glioma"})
    assert [record.label for record in swapped] == ["none", "meningioma", "glioma"]


def test_unknown_label_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'gliom'.*Did you mean 'glioma'"):
        relabel(crowd({"glioma": 1, "none": 1}), {"gliom": "tumor"})
    with pytest.raises(SettingsError, match="empty"):
        relabel(crowd({"glioma": 1}), {"glioma": ""})


def test_patients_with_many_images_are_tested_on_as_often_as_those_with_few() -> None:
    sizes = [40] * 20 + [10] * 40 + [1] * 300
    records = []
    for cluster, size in enumerate(sizes):
        records += [image(len(records) + place, "a", f"c{cluster}") for place in range(size)]
    done = split(Manifest(Path("nowhere"), tuple(records)), validation=0.1, test=0.2, seed=0)
    images = Counter((sizes[int(cluster_of(record)[1:])], record.split) for record in done)
    for size in (40, 10, 1):
        total = sum(images[size, name] for name in ("train", "validation", "test"))
        assert images[size, "test"] / total == pytest.approx(0.2, abs=0.05)
        assert images[size, "validation"] / total == pytest.approx(0.1, abs=0.05)
