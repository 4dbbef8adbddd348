"""Finding networks and settings in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlens.errors import HistoryError
from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.run_folder import find_model, hold_images, keep_study, kept_study
from fedlens.study import DataSettings, Study


def _model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "contract.json").write_text("{}")
    return folder


def test_settings_come_back_as_they_were_kept_from_anywhere_below(tmp_path: Path) -> None:
    study = Study(name="a", output=tmp_path, data=DataSettings(folder=tmp_path / "images", limit=7))
    keep_study(study, tmp_path)
    deep = tmp_path / "seed-0" / "federated" / "model"
    deep.mkdir(parents=True)

    assert kept_study(tmp_path) == kept_study(deep) == study


def test_nothing_kept(tmp_path: Path) -> None:
    assert kept_study(tmp_path) is None


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"name": ')

    with pytest.raises(HistoryError, match=r"study\.json"):
        kept_study(tmp_path)


def test_the_first_seeds_network_of_the_arm_is_meant(tmp_path: Path) -> None:
    for seed in (1, 0):
        for arm in ("federated", "central"):
            _model(tmp_path / f"seed-{seed}" / arm / "model")

    assert find_model(tmp_path, "central") == tmp_path / "seed-0" / "central" / "model"


def test_arms_that_are_there_are_named(tmp_path: Path) -> None:
    _model(tmp_path / "seed-0" / "local-A" / "model")

    with pytest.raises(HistoryError, match="It has local-A") as caught:
        find_model(tmp_path, "federated")
    assert "--arm" in caught.value.fix


def _record(number: int, **changes: str) -> ImageRecord:
    told = {"split": "train", "hospital": "A", "label": "nv", "sha256": f"{number:064d}", **changes}
    return ImageRecord(
        image_id=f"s/{number}",
        file=f"{number}.png",
        group=f"s:{number}",
        modality="xray",
        source="s",
        width=8,
        height=8,
        **told,
    )


def test_a_run_goes_on_over_the_same_images_in_any_order(tmp_path: Path) -> None:
    records = (_record(1), _record(2, split="test"))
    hold_images(tmp_path, Manifest(tmp_path, records))

    hold_images(tmp_path, Manifest(tmp_path / "moved", records[::-1]))


@pytest.mark.parametrize("change", [{"split": "train"}, {"hospital": "B"}, {"label": "mel"}, {"sha256": "0"}])
def test_a_run_does_not_go_on_over_other_images(tmp_path: Path, change: dict[str, str]) -> None:
    hold_images(tmp_path, Manifest(tmp_path, (_record(1), _record(2, split="test"))))
    before = (tmp_path / "images.json").read_bytes()

    with pytest.raises(HistoryError, match="other images"):
        hold_images(tmp_path, Manifest(tmp_path, (_record(1), _record(2, **{"split": "test", **change}))))

    assert (tmp_path / "images.json").read_bytes() == before
