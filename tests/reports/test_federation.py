"""The page of a study between machines: real histories, in the clear and sealed, with all that goes wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.coordinator.fakes import FailingHospital, FakeHospital, LyingHospital, make_settings
from tests.coordinator.fakes import initial_parameters as fake_parameters
from tests.test_sealing import Federation, make_study

from fedlens.coordinator.history import Event, read_history
from fedlens.coordinator.rounds import run_rounds
from fedlens.engines.local import LocalEngine
from fedlens.errors import NotEnoughHospitalsError, RoundError
from fedlens.protocol.messages import (
    EvaluateRequest,
    ExplainRequest,
    Explanation,
    TrainRequest,
    UnmaskRequest,
)
from fedlens.reports import figures
from fedlens.reports.absence import Absence, absences, left_out
from fedlens.reports.federation import FederationInput, render_federation
from fedlens.reports.provenance import shareable

from .conftest import Page, flat

PageOf = Callable[[FederationInput], Page]
EVIL = '"><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}$\\frac{\u202e'


def of_events(events: list[Event], *, patience: int = 0, **federation: Any) -> FederationInput:
    study = make_study(rounds=events[0]["rounds"], **federation)
    study = study.model_copy(
        update={"training": study.training.model_copy(update={"patience": patience, "passes": 10})}
    )
    return FederationInput(
        title="chest", study=shareable(study), events=events, versions={"fedlens": "0.1.0"}, created="today"
    )


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> FederationInput:
    """C is missing in round 2, D refused from round 3 on; round 4 comes to nothing once."""
    folder = tmp_path_factory.mktemp("plain")
    settings = make_settings(minimum_hospitals=2)
    ill = FailingHospital("B", 47, (4,))
    engine = LocalEngine(
        [
            FakeHospital("A", 30),
            ill,
            FailingHospital("C", 64, (2, 4)),
            LyingHospital("D", 81, lambda update: dataclasses.replace(update, images=0), since=3),
        ]
    )
    with pytest.raises(NotEnoughHospitalsError):
        run_rounds(settings, fake_parameters(), engine, folder)
    ill._rounds = ()
    run_rounds(settings, fake_parameters(), engine, folder, resume=True)
    return of_events(read_history(folder), sealing={"mode": "off"})


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> FederationInput:
    """D is missing in round 2, B fails after its update is in the sum of 3, 4 comes to nothing once,
    and D is not there to measure round 4."""
    folder = tmp_path_factory.mktemp("sealed")
    study = make_study(rounds=4, sealing={"mode": "on", "threshold": 3})
    federation = Federation(folder, study)
    at = {"round": 0, "step": ""}

    def silent(name: str, kind: str) -> bool:
        if kind in (TrainRequest.kind, EvaluateRequest.kind) and name == "A":
            at["round"] += kind == TrainRequest.kind
            at["step"] = kind
        here = (at["round"], at["step"], kind, name)
        return here in (
            (2, TrainRequest.kind, TrainRequest.kind, "D"),
            (3, TrainRequest.kind, UnmaskRequest.kind, "B"),
            (4, TrainRequest.kind, TrainRequest.kind, "C"),
            (4, TrainRequest.kind, TrainRequest.kind, "D"),
            (5, EvaluateRequest.kind, EvaluateRequest.kind, "D"),
        )

    with pytest.raises(NotEnoughHospitalsError):
        federation.run(silent)
    assert federation.setup is not None
    federation.setup = dataclasses.replace(federation.setup, segment=federation.setup.segment + 1)
    federation.run(silent, resume=True)
    return of_events(read_history(folder), sealing={"mode": "on", "threshold": 3})


@pytest.fixture
def page_of(monkeypatch: pytest.MonkeyPatch) -> PageOf:
    """Renders pages whose charts nobody looks at."""
    monkeypatch.setattr(figures, "svg", lambda draw, theme: b"<svg/>")
    return lambda report: Page(render_federation(report))


@pytest.fixture(scope="session")
def plain_page(plain: FederationInput) -> Page:
    return Page(render_federation(plain))


@pytest.fixture(scope="session")
def sealed_page(sealed: FederationInput) -> Page:
    return Page(render_federation(sealed))


def renamed(report: FederationInput, names: dict[str, str], **changes: Any) -> FederationInput:
    """The same study, had those strings been others."""
    text = json.dumps(list(report.events))
    for old, new in names.items():
        assert json.dumps(old) in text
        text = text.replace(json.dumps(old), json.dumps(new))
    return dataclasses.replace(report, events=json.loads(text), **changes)


def test_both_pages_are_whole_and_stand_alone(plain_page: Page, sealed_page: Page) -> None:
    common = ["classes", "curves", "rounds", "federation", "made", "limits"]
    for page, sections in ((plain_page, [*common[:3], "hospitals", *common[3:]]), (sealed_page, common)):
        assert page.open == []
        assert [attributes["id"] for attributes in page.all("section")] == sections
        links = [str(attributes["href"]) for attributes in page.all("a")]
        assert links == ["#rounds", *(f"#{section}" for section in sections)]
        addresses = [
            tag.get("src") or tag.get("srcset") for name in ("img", "source") for tag in page.all(name)
        ]
        assert len(addresses) == 4 and all(str(address).startswith("data:image/") for address in addresses)
        assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "object"}
        assert all(str(image["alt"]).strip() for image in page.all("img"))


def test_tables_have_headers_and_move_with_the_keyboard(sealed_page: Page) -> None:
    assert all(header.get("scope") for header in sealed_page.all("th"))
    regions = [tag for tag in sealed_page.all("div") if tag.get("class") == "scroll"]
    assert len(regions) == len(sealed_page.all("table")) == 4
    assert all(tag["tabindex"] == "0" and tag["aria-label"] and tag["role"] == "region" for tag in regions)


def test_the_headline_says_how_well_how_surely_and_that_it_is_no_test(
    plain: FederationInput, page_of: PageOf
) -> None:
    page = page_of(plain)
    evaluation = plain.events[-2]["evaluation"]
    assert evaluation["images"] == 80
    text = flat(page.text)
    assert "In study chest, 4 hospitals trained one network together over 5 rounds" in text
    assert "on the 80 validation images of all 4 hospitals the network of round 5 decides" in text
    assert f"{100 * evaluation['accuracy']:.1f} % rightly (95 % interval" in text
    assert "which is no test: such images may have chosen settings before." in text
    assert f"Validation accuracy{100 * evaluation['accuracy']:.1f} %95 %:" in text.replace("\n", "")


def test_the_network_that_was_kept_is_the_one_described(plain: FederationInput, page_of: PageOf) -> None:
    events = [*plain.events[:-1], {**plain.end, "reason": "patience", "best_round": 2, "rounds": 5}]
    text = flat(page_of(of_events(events, patience=3)).text)
    assert "the network of round 2 decides" in text and "may have chosen the round, and perhaps" in text
    assert "2 kept" in text and "5 kept" not in text
    assert "5 of 5, validation no longer improved" in text
    assert "Validation images chose the round that was kept." in text


def test_no_subset_passes_in_silence(plain_page: Page, sealed_page: Page) -> None:
    text = flat(plain_page.text)
    assert "Not every round had every hospital" in text
    assert "Trained without C in rounds 2 and 4." in text
    assert "Trained without D in rounds 3–5." in text
    assert "Measured without" not in text
    text = flat(sealed_page.text)
    assert "Trained without D in round 2." in text and "Trained without B" not in text
    assert "Measured without D in round 4." in text
    assert "of 3 of the 4 hospitals the network of round 4" in text


def test_a_run_with_everybody_has_no_banner(plain: FederationInput, page_of: PageOf) -> None:
    events = [
        {**event, "missing": {}, "refused": {}, "participants": list(event["hospitals"])}
        if event["event"] == "round"
        else event
        for event in plain.events
        if event["event"] != "failed"
    ]
    page = page_of(of_events(events))
    assert not page.all("aside") and "came to nothing" not in page.text


def test_an_enrolment_without_a_hospital_is_told(sealed: FederationInput, page_of: PageOf) -> None:
    events = [
        {
            **event,
            "hospitals": {name: said for name, said in event["hospitals"].items() if name != "D"},
            "missing": {"D": "At enrolment: The line is dead."},
        }
        if event["event"] == "segment" and "sealing" in event
        else event
        for event in sealed.events
    ]
    text = flat(page_of(dataclasses.replace(sealed, events=events)).text)
    assert "Images counted without D before the first round." in text


def test_rounds_and_failures_stand_in_their_order_with_full_reasons(
    plain: FederationInput, plain_page: Page, sealed: FederationInput, sealed_page: Page
) -> None:
    text = flat(plain_page.text)
    numbers = [row[0] for row in plain_page.rows if len(row) == 8]
    assert numbers == ["Round", "1", "2", "3", "4 failed", "4", "5 kept"]
    for event in plain.events[1:-1]:
        noted = [event.get("reason", ""), *event["missing"].values(), *event["refused"].values()]
        assert all(reason in text for reason in noted)
    assert "D refused: Hospital D sent images = 0" in text
    text = flat(sealed_page.text)
    failure = next(event for event in sealed.events if event["event"] == "failed")
    assert failure["reason"] in text and text.index("4 failed") < text.index("4 kept")
    assert "B missing, counted all the same: At unmasking: The line is dead." in text
    assert "D missing at validation: At evaluation: The line is dead." in text


def test_a_round_shows_its_figures(plain: FederationInput, plain_page: Page) -> None:
    first = plain.events[1]
    up, down = (
        sum(
            sum(said[way] for said in step["hospitals"].values()) / 4 for step in (first, first["evaluation"])
        )
        for way in ("bytes_up", "bytes_down")
    )
    seconds = sum(first["seconds"].values()) + first["evaluation"]["seconds"]
    assert [
        "1",
        "A, B, C, D",
        "–",
        f"{first['loss']:.4f}",
        f"{100 * first['evaluation']['accuracy']:.1f}",
        f"{up / 1e6:.2f}",
        f"{down / 1e6:.2f}",
        f"{seconds:,.1f}",
    ] in plain_page.rows


def test_plain_shows_hospitals_and_sealed_says_why_not(
    plain: FederationInput, plain_page: Page, sealed_page: Page
) -> None:
    clear, closed = flat(plain_page.text), flat(sealed_page.text)
    assert "Not sealed: every hospital's updates and counts travelled in the clear" in clear
    assert "figures of single hospitals reached the coordinator, and stand on this page" in clear
    assert "Roster fingerprint" not in clear
    # C trained in the last round, D was refused, both measured.
    loss = "{:.4f}".format(plain.kept["hospitals"]["C"]["loss"])
    rows = [row[:4] for row in plain_page.rows]
    assert ["C", "64", loss, "20"] in rows and ["D", "–", "–", "20"] in rows
    assert "Sealed: the coordinator could read sums only" in closed
    assert "figures of single hospitals reached nobody" in closed
    for text in (clear, closed):
        assert "no image, no map and no single wrong decision" in text


def test_the_roster_and_the_starts_are_told(sealed: FederationInput, sealed_page: Page) -> None:
    text = flat(sealed_page.text)
    segments = [event for event in sealed.events if event["event"] == "segment"]
    assert len(segments) == 2
    assert f"Roster fingerprint{segments[0]['roster']}" in text
    assert "Fewest hospitals in an opened sum3 of 4" in text
    assert "Starts of the coordinator2" in text
    assert ["sealing.threshold", "3"] in sealed_page.rows and ["fedlens", "0.1.0"] in sealed_page.rows


def test_a_share_of_nothing_is_a_dash(sealed: FederationInput, page_of: PageOf) -> None:
    evaluation = {**sealed.evaluation, "confusion": [[5, 0, 0], [2, 0, 0], [0, 0, 0]]}
    evaluation["auroc"] = {**evaluation["auroc"], "z": None}
    rows = [row[:6] for row in page_of(with_evaluation(sealed, evaluation)).rows]
    assert ["x", "5", "100.0 56.6–100.0", "71.4 35.9–91.8", "0.0 0.0–65.8", "83.3"] in rows
    assert ["z", "0", "–", "–", "100.0 64.6–100.0", "–"] in rows


def test_without_validation_images_nothing_is_claimed(sealed: FederationInput, page_of: PageOf) -> None:
    evaluation = {**sealed.evaluation, "images": 0, "loss": None, "confusion": [[0] * 3] * 3}
    page = page_of(with_evaluation(sealed, evaluation))
    assert "no validation image was measured, so nothing here says how well it does" in flat(page.text)
    assert "classes" not in [attributes["id"] for attributes in page.all("section")]
    assert "%" not in page.text[: page.text.index("Training")]


def with_evaluation(report: FederationInput, evaluation: Event) -> FederationInput:
    """The same study, had its last evaluation been another."""
    changed = {**report.events[-2], "evaluation": evaluation}
    return dataclasses.replace(report, events=[*report.events[:-2], changed, report.end])


def test_fedbn_is_warned_of(plain: FederationInput, page_of: PageOf) -> None:
    report = renamed(plain, {"fedavg": "fedbn"})
    assert "will not reach these figures" in page_of(report).text


@pytest.mark.parametrize("kind", ["plain", "sealed"])
def test_names_and_reasons_cannot_break_out_of_the_page(kind: str, request: pytest.FixtureRequest) -> None:
    report: FederationInput = request.getfixturevalue(kind)
    names = {"C": f"C{EVIL}", "D": f"D{EVIL}", {"plain": "normal", "sealed": "x"}[kind]: EVIL}
    events = [event for event in report.events if event["event"] != "end"]
    reasons = [reason for event in events for reason in event.get("missing", {}).values()]
    assert reasons
    failures = [event["reason"] for event in events if event["event"] == "failed"]
    hostile = renamed(
        report,
        {**names, **dict.fromkeys((*reasons, *failures), EVIL)},
        title=EVIL,
        study={**report.study, EVIL: {EVIL: EVIL}},
        versions={EVIL: EVIL},
        created=EVIL,
    )
    page = Page(render_federation(hostile))
    assert page.open == []
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert page.text.count(EVIL) >= 12


def test_half_a_surrogate_pair_does_not_lose_the_page(plain: FederationInput, page_of: PageOf) -> None:
    failure = next(event["reason"] for event in plain.events if event["event"] == "failed")
    page = page_of(renamed(plain, {failure: "broken \ud800 text"}))
    assert "broken ? text" in page.text and page.text.encode()


def test_the_same_input_gives_the_same_page(sealed: FederationInput) -> None:
    assert render_federation(sealed) == render_federation(sealed)


def test_absences_name_everybody_once() -> None:
    step = {
        "hospitals": {"A": {}, "B": {}},
        "missing": {"C": "off", "B": "At unmasking: off"},
        "refused": {"D": "no"},
    }
    found = absences(step, ["A", "B", "C", "E"])
    assert found == (
        Absence("C", "missing", "off", False),
        Absence("E", "missing", "", False),
        Absence("B", "missing", "At unmasking: off", True),
        Absence("D", "refused", "no", False),
    )
    assert left_out(step, ["A", "B", "C", "E"]) == ("C", "E", "D")
    assert absences({}) == ()


@pytest.mark.parametrize("every", [0, 2])
def test_measured_maps_stand_beside_chance_and_show_how_they_moved(
    every: int, tmp_path: Path, page_of: PageOf
) -> None:
    class Blind(FakeHospital):
        def explain(self, request: ExplainRequest) -> Explanation:
            raise RoundError("It cannot look.")

    settings = make_settings(rounds=3, explanation={"measures": "quick", "every": every})
    engine = LocalEngine([FakeHospital("A", 30), FakeHospital("B", 40), Blind("C", 50)])
    run_rounds(settings, fake_parameters(), engine, tmp_path)
    report = of_events(read_history(tmp_path), sealing={"mode": "off"})

    page = page_of(report)

    found = report.explained[-1]["explanation"]["figures"]
    times = f"{found['energy']['times_chance']:.2f}"
    energy = f"{100 * found['energy']['value']:.1f}"
    assert [
        "energy inside the outline (relevance mass accuracy)",
        "higher",
        "40",
        energy,
        "25.0",
        times,
        "–",
    ] in (page.rows)
    text = flat(page.text)
    assert "with the network of round 3 (grad-cam," in text and "at 2 of 3 hospitals" in text
    assert "Explained without C in round" in text and "missing at explanation: It cannot look." in text
    moved = ["3", "40", "–", "–", f"{energy} %", times, "100.0 %"]
    assert (moved in page.rows) == (every == 2)
