"""What a hospital measures on its maps, what it lets out, and what it keeps."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlens.errors import BadUpdateError, RoundError, SettingsError
from fedlens.explain import straying
from fedlens.home_explanations import HOME_EXPLANATIONS_NAME, STRAYING_NAME
from fedlens.hospital.explanation import Explanations
from fedlens.hospital.hospital import Hospital
from fedlens.hospital.images import HospitalImages
from fedlens.hospital.regions import ImageRegions
from fedlens.metrics.explanation import COLUMNS, MEASURES, STRAY_REGIONS
from fedlens.metrics.explanation_totals import QualityTotals, figures
from fedlens.models.fingerprint import fingerprint
from fedlens.models.parameters import to_parameters
from fedlens.models.registry import build_network
from fedlens.progress import Progress, silent
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import ExplainRequest, Explanation, ExplanationTotals, Noted
from fedlens.study import Study
from tests.hospital.explained import CLASSES, SIZE, joined, outlined_images

COST = COLUMNS.index("cost")
Make = Callable[..., Hospital]


def make_study(**explanation: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": {"folder": "."},
            "preprocess": {"size": SIZE},
            "training": {"device": "cpu"},
            "federation": {"rounds": 4},
            "explanation": explanation,
        }
    )


def make_hospital(
    folder: Path, images: HospitalImages, study: Study | None = None, progress: Progress = silent
) -> Hospital:
    study = study or make_study()
    network = build_network(study.model, classes=len(CLASSES), channels=3, image_size=SIZE, seed=1)
    splits = {"train": images, "validation": images}
    return Hospital("A", study, network, splits, folder, batch_size=8, class_names=CLASSES, progress=progress)


def asked(settings: Study | None = None, number: int = 1, **changes: Any) -> bytes:
    study = settings or make_study()
    network = build_network(study.model, classes=len(CLASSES), channels=3, image_size=SIZE, seed=0)
    fields = {
        "study": study.digest(),
        "round": number,
        "fingerprint": fingerprint(network),
        "split": "validation",
        "parameters": to_parameters(network),
    }
    return encode(ExplainRequest(**{**fields, **changes}))


def measured(hospital: Hospital, request: bytes) -> QualityTotals:
    return QualityTotals.from_numbers(decode(hospital.handle(request), Explanation).counts)


def told(totals: QualityTotals, number: int = 1, study: str = "") -> bytes:
    return encode(ExplanationTotals(study or make_study().digest(), number, totals.numbers()))


def kept(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / HOME_EXPLANATIONS_NAME).read_text())
    return content


@pytest.fixture
def easily(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has learnt nothing looks everywhere alike: half of what that gives is straying here."""
    monkeypatch.setattr(straying, "TIMES_CHANCE", dict.fromkeys(STRAY_REGIONS, 0.5))


def without_cost(totals: QualityTotals) -> tuple[list[Any], list[Any]]:
    return np.delete(totals.sums, COST, 1).tolist(), totals.counts.tolist()


def test_only_sums_and_counts_leave(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "masks", 40)
    steps: list[tuple[str, int, int]] = []
    hospital = make_hospital(tmp_path / "A", images, progress=lambda *said: steps.append(said))

    answer = decode(hospital.handle(asked()), Explanation)

    assert (answer.hospital, answer.round, answer.split) == ("A", 1, "validation")
    assert answer.seconds > 0 and set(answer.counts) == {"sums", "counts"}
    totals = QualityTotals.from_numbers(answer.counts)
    assert totals.possible() and totals.sums.shape == (3, len(COLUMNS))
    classes = np.bincount(images.labels, minlength=3).tolist()
    found = figures(totals, CLASSES)
    for name in ("empty", "equivariance-flip", "cost", "strays", "energy-outside"):
        assert totals.column(name)[1].tolist() == classes and found[name]["images"] == 40
    outlined = [file is not None for file in images.outlines]
    assert totals.column("pointing")[1].tolist() == np.bincount(images.labels[outlined], minlength=3).tolist()
    assert 0 < found["pointing"]["chance"] < 0.2 and "centre" in found["iou"]
    assert not {"deletion", "max-sensitivity"} & found.keys()
    assert steps == [("explanation", 32, 40), ("explanation", 40, 40)]
    assert b"test/" not in encode(answer)


def test_all_measures_on_request(tmp_path: Path) -> None:
    study = make_study(measures="full")
    totals = measured(make_hospital(tmp_path / "A", outlined_images(tmp_path / "m", 3), study), asked(study))
    found = figures(totals, CLASSES)
    assert set(found) == {measure.name for measure in MEASURES}


@pytest.mark.parametrize("sizes", [(1, 5, 34), (32, 7)])
def test_hospitals_sum_to_the_pooled_images_exactly(sizes: tuple[int, ...], tmp_path: Path) -> None:
    parts = [outlined_images(tmp_path / "m", size, seed) for seed, size in enumerate(sizes)]
    separate = [
        measured(make_hospital(tmp_path / str(place), part), asked()) for place, part in enumerate(parts)
    ]
    pooled = measured(make_hospital(tmp_path / "pooled", joined(parts)), asked())
    everyone = sum(separate, start=QualityTotals.zero(3))
    assert without_cost(everyone) == without_cost(pooled)


@pytest.mark.usefixtures("easily")
def test_a_hospital_keeps_its_own_figures_and_holds_them_against_the_others(tmp_path: Path) -> None:
    hospital = make_hospital(tmp_path / "A", outlined_images(tmp_path / "m", 20))
    own = measured(hospital, asked())
    (entry,) = kept(tmp_path / "A")["rounds"]
    assert entry["federation"] is None and entry["straying"] is None and entry["images"] == 20

    others = measured(make_hospital(tmp_path / "B", outlined_images(tmp_path / "m", 30, 1)), asked())
    # The others' maps never stray, and there are many of them.
    column = COLUMNS.index("strays-outside")
    others = QualityTotals(others.sums * 50, others.counts * 50)
    others.sums[:, column] = 0
    assert decode(hospital.handle(told(own + others)), Noted) == Noted("A", make_study().digest(), 1)

    content = kept(tmp_path / "A")
    (entry,) = content["rounds"]
    assert content["hospital"] == "A" and content["classes"] == list(CLASSES)
    assert entry["own"] == json.loads(json.dumps(figures(own, CLASSES)))
    assert entry["federation"] == json.loads(json.dumps(figures(own + others, CLASSES)))
    strayed = {found["label"] for found in entry["straying"] if found["region"] == "outside"}
    sums, counts = own.column("strays-outside")
    assert strayed == {CLASSES[place] for place in range(3) if counts[place] >= 5 and sums[place]} != set()
    assert all("outside the body" in found["sentence"] for found in entry["straying"])


@pytest.mark.usefixtures("easily")
def test_images_whose_maps_stray_are_named_at_home(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "m", 20)
    totals = measured(make_hospital(tmp_path / "A", images), asked())
    rows = list(csv.DictReader((tmp_path / "A" / STRAYING_NAME).open()))
    assert len({row["image_id"] for row in rows}) == int(totals.column("strays")[0].sum()) >> 20 > 0
    labels = {record.image_id: record.label for record in images.records}
    for row in rows:
        assert row["class"] == labels[row["image_id"]] and row["round"] == "1"
        assert float(row["share_of_heat"]) >= 0.5 * float(row["share_of_image"])
        assert "of the heat lies" in row["why"]


def test_repeated_rounds_take_the_place_of_what_followed(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "m", 5)
    hospital = make_hospital(tmp_path / "A", images)
    for number in (1, 2, 3):
        own = measured(hospital, asked(number=number))
        hospital.handle(told(own, number))
    # Started again, as after a kill, it takes round 2 from the coordinator once more.
    again = make_hospital(tmp_path / "A", images)
    assert without_cost(measured(again, asked(number=2))) == without_cost(own)
    assert [entry["round"] for entry in kept(tmp_path / "A")["rounds"]] == [1, 2]
    restarted = make_hospital(tmp_path / "A", images)
    # The clock is in the cost, so these totals come from what was just measured.
    again.handle(told(measured(again, asked(number=2)) + own, 2))
    assert restarted is not again and kept(tmp_path / "A")["rounds"][1]["federation"] is not None
    assert not list((tmp_path / "A").glob(".*"))


def test_a_hospital_that_was_started_again_still_knows_its_own(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "m", 5)
    own = measured(make_hospital(tmp_path / "A", images), asked())
    make_hospital(tmp_path / "A", images).handle(told(own + own))
    assert kept(tmp_path / "A")["rounds"][0]["federation"]["empty"]["images"] == 10


def test_totals_that_cannot_be_are_refused(tmp_path: Path) -> None:
    hospital = make_hospital(tmp_path / "A", outlined_images(tmp_path / "m", 5))
    with pytest.raises(RoundError, match="no measurement that it took part in"):
        hospital.handle(told(QualityTotals.zero(3)))
    own = measured(hospital, asked())
    before = (tmp_path / "A" / HOME_EXPLANATIONS_NAME).read_bytes()
    with pytest.raises(RoundError, match="no measurement that it took part in"):
        hospital.handle(told(own, 2))
    with pytest.raises(BadUpdateError, match="refuses a request of study"):
        hospital.handle(told(own, study="0" * 64))
    zero = QualityTotals.zero(3)
    huge = QualityTotals(own.sums, np.full_like(own.counts, -(2**63)))
    for lie in (
        zero,
        QualityTotals(own.sums[:2], own.counts[:2]),
        huge,
        QualityTotals(own.sums << 40, own.counts),
    ):
        with pytest.raises(BadUpdateError, match="refuses totals of round 1"):
            hospital.handle(told(lie))
    wrong = ExplanationTotals(make_study().digest(), 1, {"sums": own.sums})
    with pytest.raises(BadUpdateError, match="refuses totals of round 1"):
        hospital.handle(encode(wrong))
    assert (tmp_path / "A" / HOME_EXPLANATIONS_NAME).read_bytes() == before


def test_requests_that_the_study_does_not_have_are_refused(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "m", 3)
    hospital = make_hospital(tmp_path / "A", images)
    for changes, reason in (
        ({"study": "0" * 64}, "refuses a request of study"),
        ({"fingerprint": "0" * 64}, "fingerprint"),
        ({"round": 5}, "The study has 4 rounds"),
        ({"split": "test"}, "measures no split 'test'"),
        ({"seal": b"seal"}, "sealed answer in an unsealed study"),
    ):
        with pytest.raises((BadUpdateError, SettingsError, RoundError), match=reason):
            hospital.handle(asked(**changes))
    unmeasured = make_study(measures="none")
    with pytest.raises(BadUpdateError, match="explains nothing in this study"):
        make_hospital(tmp_path / "B", images, unmeasured).handle(asked(unmeasured))
    assert not list(tmp_path.glob("*/explanations.json"))


@pytest.mark.parametrize(
    ("method", "reason"),
    [("attention-rollout", "does not suit model.name = 'efdl-cnn'"), ("grad-cm", "Did you mean 'grad-cam'")],
)
def test_a_method_that_does_not_suit_is_refused_before_training(
    method: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=reason):
        make_hospital(tmp_path, outlined_images(tmp_path / "m", 2), make_study(method=method))


def test_a_damaged_outline_counts_as_none_and_its_name_stays(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "m", 12)
    places = [place for place, file in enumerate(images.outlines) if file is not None]
    file = images.outlines[places[0]]
    assert file is not None
    file.write_bytes(b"no image")
    totals = measured(make_hospital(tmp_path / "A", images), asked())
    assert int(totals.column("pointing")[1].sum()) == len(places) - 1
    assert kept(tmp_path / "A")["rounds"][0]["unreadable_outlines"] == [images.records[places[0]].image_id]


def test_a_hospital_without_validation_images_sends_zeros(tmp_path: Path) -> None:
    totals = measured(make_hospital(tmp_path / "A", outlined_images(tmp_path / "m", 0)), asked())
    assert not totals.sums.any() and not totals.counts.any()
    assert kept(tmp_path / "A")["rounds"][0]["own"] == {}


def test_images_too_small_for_a_field_are_measured_without_straying(tmp_path: Path) -> None:
    images = outlined_images(tmp_path / "m", 4)
    small = dataclasses.replace(images, pixels=images.pixels[:, ::2, ::2].copy())
    network = build_network(
        make_study().model, classes=len(CLASSES), channels=3, image_size=SIZE // 2, seed=0
    )
    regions = ImageRegions(small)
    explanations = Explanations(
        "A", make_study().explanation, regions, regions, CLASSES, tmp_path / "A", silent
    )
    request = decode(asked(), ExplainRequest)
    totals = explanations.answer(request, network).totals
    assert int(totals.column("empty")[1].sum()) == 4 and not totals.column("strays")[1].any()
