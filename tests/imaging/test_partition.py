"""Hospital shares: no cluster at two hospitals, every hospital with its own splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlens.errors import SettingsError, SplitError
from fedlens.imaging.allocation import cluster_of
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.partition import ELSEWHERE, limit, share_out
from fedlens.imaging.splits import split
from fedlens.study import HospitalSettings


def crowd(
    labels: dict[str, int], cluster_size: int = 1, modality: str = "mri", source: str = "s"
) -> Manifest:
    """So many images of each label, in clusters of one size."""
    records = []
    for label, count in labels.items():
        for place in range(count):
            name = f"{source}/{len(records)}.png"
            cluster = f"{source}-{label}-{place // cluster_size}"
            records.append(
                ImageRecord(name, name, label, name, modality, source, "0" * 64, 8, 8, cluster=cluster)
            )
    return Manifest(Path("nowhere"), tuple(records))


def mixed() -> Manifest:
    """600 skin, 320 brain and 100 chest images, split."""
    parts = [
        crowd({"nv": 500, "mel": 100}, 2, "dermoscopy", "skin"),
        crowd({"glioma": 160, "none": 160}, 3, "mri", "brain"),
        crowd({"normal": 50, "pneumonia": 50}, 1, "xray", "chest"),
    ]
    joined = Manifest(Path("nowhere"), tuple(record for part in parts for record in part))
    return split(joined, validation=0.1, test=0.2, seed=0)


def sizes(manifest: Manifest, split_name: str = "") -> dict[str, int]:
    return dict(
        Counter(r.hospital for r in manifest if r.hospital and (not split_name or r.split == split_name))
    )


def assert_whole(manifest: Manifest) -> None:
    homes: dict[str, set[str]] = {}
    for record in manifest:
        if not record.excluded:
            homes.setdefault(cluster_of(record), set()).add(record.hospital)
    assert all(len(home) == 1 and "" not in home for home in homes.values())


@settings(max_examples=30, deadline=None)
@given(
    by=st.sampled_from(["paper", "equal", "modality", "dirichlet"]),
    hospitals=st.integers(1, 6),
    seed=st.integers(0, 100),
)
def test_every_mode_keeps_clusters_whole_and_gives_everyone_all_splits(
    by: str, hospitals: int, seed: int
) -> None:
    names = tuple("ABCDEF"[:hospitals])
    chosen = HospitalSettings.model_validate(
        {"by": by, "names": names, "shares": (5, 6, 6.5, 5.4, 3, 4)[:hospitals], "alpha": 1.0, "seed": seed}
    )
    manifest = mixed()
    done = share_out(manifest, chosen)
    assert_whole(done)
    assert set(sizes(done, "train")) == set(sizes(done, "test")) == set(names)
    assert [record.split for record in done] == [record.split for record in manifest]


def test_paper_shares_are_scaled_in_every_split() -> None:
    done = share_out(mixed(), HospitalSettings())
    for name in ("train", "validation", "test"):
        counts = sizes(done, name)
        for hospital, share in zip("ABCD", (5000, 6000, 6500, 5401), strict=True):
            # Six strata in clusters of up to three: less than one image off in each.
            assert abs(counts[hospital] - sum(counts.values()) * share / 22901) < 6


def test_equal_shares_have_equal_labels() -> None:
    done = share_out(mixed(), HospitalSettings(by="equal"))
    for hospital in "ABCD":
        labels = Counter(record.label for record in done if record.hospital == hospital)
        assert labels["nv"] == pytest.approx(125, abs=6) and labels["pneumonia"] == pytest.approx(12.5, abs=3)


def test_outcome_depends_on_the_seed_and_not_on_the_order() -> None:
    manifest = mixed()
    for by in ("paper", "dirichlet"):
        chosen = HospitalSettings.model_validate({"by": by, "alpha": 1.0})
        one = {record.image_id: record.hospital for record in share_out(manifest, chosen)}
        turned = share_out(manifest.with_records(manifest.records[::-1]), chosen)
        assert one == {record.image_id: record.hospital for record in turned}
        other = share_out(manifest, chosen.model_copy(update={"seed": 1}))
        assert one != {record.image_id: record.hospital for record in other}
    assert not any(record.hospital for record in manifest)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("ABC", {"A": {"dermoscopy"}, "B": {"mri"}, "C": {"xray"}}),
        ("AB", {"A": {"dermoscopy"}, "B": {"mri", "xray"}}),
        ("ABCDE", {"A": {"dermoscopy"}, "B": {"dermoscopy"}, "C": {"mri"}, "D": {"mri"}, "E": {"xray"}}),
    ],
)
def test_modalities_are_given_or_joined_by_size(names: str, expected: dict[str, set[str]]) -> None:
    done = share_out(mixed(), HospitalSettings(by="modality", names=tuple(names)))
    found: dict[str, set[str]] = {}
    for record in done:
        found.setdefault(record.hospital, set()).add(record.modality)
    assert found == expected


def test_small_alpha_skews_labels_alike_in_training_and_test() -> None:
    manifest = split(crowd({"a": 600, "b": 600, "c": 600}), validation=0.1, test=0.2, seed=0)
    done = share_out(manifest, HospitalSettings(by="dirichlet", alpha=0.3))
    for label in "abc":
        shares = []
        for name in ("train", "test"):
            counts = Counter(r.hospital for r in done if r.label == label and r.split == name)
            shares.append([counts[hospital] / counts.total() for hospital in "ABCD"])
        assert shares[0] == pytest.approx(shares[1], abs=0.02)
    spread = Counter(record.hospital for record in done if record.label == "a")
    assert max(spread.values()) > 2 * 600 / 4


def test_hopeless_dirichlet_names_the_mend() -> None:
    manifest = split(crowd({"a": 12, "b": 12}), validation=0.0, test=0.3, seed=0)
    with pytest.raises(SplitError, match=r"Raise hospitals\.alpha"):
        share_out(manifest, HospitalSettings(by="dirichlet", alpha=0.01, names=tuple("ABCDEFGH")))


def test_sites_stay_and_torn_clusters_are_excluded_where_they_are_few() -> None:
    manifest = crowd({"a": 40, "b": 40}, cluster_size=4)
    sites = ["north" if number < 40 else "south" for number in range(80)]
    sites[0] = "south"
    done = share_out(manifest.with_column("site", sites), HospitalSettings(by="site"))
    assert sizes(done) == {"north": 39, "south": 40}
    assert (done.records[0].excluded, done.records[0].hospital) == (ELSEWHERE, "")
    assert_whole(done)


def test_one_site_or_a_missing_one_is_refused_with_the_mend() -> None:
    manifest = crowd({"a": 10})
    with pytest.raises(SplitError, match=r"site column has one value, 'x'.*by = 'equal'"):
        share_out(manifest.with_column("site", ["x"] * 10), HospitalSettings(by="site"))
    with pytest.raises(SplitError, match=r"1 of 10 images have no site, e\.g\. s/9\.png"):
        share_out(manifest.with_column("site", ["x", "y", "z"] * 3 + [""]), HospitalSettings(by="site"))


def test_hospitals_of_the_manifest_are_kept() -> None:
    manifest = crowd({"a": 20}).with_column("hospital", ["A", "B"] * 10)
    assert share_out(manifest, HospitalSettings(by="manifest")) == manifest


def test_excluded_images_get_no_hospital() -> None:
    manifest = crowd({"a": 40}).with_column("excluded", ["blurred"] * 3 + [""] * 37)
    done = share_out(manifest, HospitalSettings(by="equal"))
    assert [record.hospital for record in done.records[:3]] == ["", "", ""]
    assert sum(sizes(done).values()) == 37


def test_hospital_without_enough_images_is_refused() -> None:
    with pytest.raises(SplitError, match=r"Hospital \w would have fewer than 2 training images"):
        share_out(crowd({"a": 6}), HospitalSettings(by="equal"))
    with pytest.raises(SplitError, match="no images to share out"):
        share_out(crowd({}), HospitalSettings(by="equal"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"names": ("A", "B")}, "4 values for 2 hospitals"),
        ({"shares": (1, 1, 1, 0)}, "not above 0"),
        ({"names": ("A", "A", "B", "C")}, "repeated name"),
        ({"names": ()}, "empty"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        share_out(crowd({"a": 40}), HospitalSettings.model_validate(keys))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 420), cluster_size=st.integers(1, 7), seed=st.integers(0, 9))
def test_limit_keeps_whole_clusters_and_never_more_than_asked(n: int, cluster_size: int, seed: int) -> None:
    manifest = crowd({"a": 300, "b": 100}, cluster_size)
    drawn = limit(manifest, n, seed=seed)
    assert n - 2 * cluster_size < len(drawn) <= n or len(drawn) == 400 < n
    whole = Counter(cluster_of(record) for record in manifest)
    assert all(
        whole[name] == count for name, count in Counter(cluster_of(record) for record in drawn).items()
    )
    order = [record.image_id for record in manifest]
    places = [order.index(record.image_id) for record in drawn]
    assert places == sorted(places)
    share = Counter(record.label for record in drawn)["a"]
    assert abs(share - 0.75 * len(drawn)) <= 2 * cluster_size


def test_limit_leaves_excluded_images_out_and_refuses_none() -> None:
    manifest = crowd({"a": 10}).with_column("excluded", ["blurred"] + [""] * 9)
    assert len(limit(manifest, 100, seed=0)) == 9
    with pytest.raises(SettingsError, match=r"data\.limit = 0"):
        limit(manifest, 0, seed=0)
