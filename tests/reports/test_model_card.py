"""The card says what its figures say, in every section, on page and in text."""

from __future__ import annotations

import dataclasses

import pytest

from fedlens.models.checkpoint import Contract
from fedlens.reports.comparison import Comparison
from fedlens.reports.document import Document, as_html, as_markdown
from fedlens.reports.explanation_comparison import ExplanationComparison
from fedlens.reports.model_card import CardInput, model_card
from fedlens.reports.paper import cell
from fedlens.study import ModelSettings, PreprocessSettings

from .conftest import CLASSES, Page, fake_audit, fake_predictions, fake_shares, flat


@pytest.fixture(scope="module", name="given")
def _given(comparison: Comparison, explanations: ExplanationComparison) -> CardInput:
    return CardInput(
        title="Three modalities",
        arm="federated",
        study={
            "name": "paper",
            "training": {"passes": 50.0, "optimizer": "adam"},
            "federation": {"rounds": 50},
        },
        contract=Contract(
            model=ModelSettings(),
            classes=CLASSES,
            preprocess=PreprocessSettings(),
            preprocess_digest="c" * 64,
            fingerprint="f" * 64,
            study="d" * 64,
            round=50,
            weights_sha256="e" * 64,
        ),
        weights=1_234_567,
        comparison=comparison,
        predictions=(fake_predictions(),),
        explanations=explanations,
        stray_by_class={"mel": 0.3},
        shares=fake_shares(),
        audit=fake_audit(),
        sealing=("Sealed: the coordinator could read sums only.",),
        minded={"outline_loss": 0.3},
        images_digest="b" * 64,
        exported={"model.onnx": "a" * 64},
        versions={"fedlens": "0.1.0"},
        created="24 November 2026",
    )


@pytest.fixture(scope="module", name="document")
def _document(given: CardInput) -> Document:
    return model_card(given)


def test_every_section_is_there_in_order(document: Document) -> None:
    names = [section.name for section in document.sections]
    page = Page(as_html(document))

    assert names == [
        "model", "use", "data", "training", "results", "calibration", "explanations", "failures", "limits",
        "provenance",
    ]  # fmt: skip
    assert [section["id"] for section in page.all("section")] == names
    assert all(section.blocks != () for section in document.sections)
    assert all(header.get("scope") for header in page.all("th"))


def test_figures_are_those_of_the_comparison(document: Document, comparison: Comparison) -> None:
    text = as_markdown(document)

    for metric in ("accuracy", "f1_macro", "auroc_macro"):
        for scope in ("pooled", *comparison.scopes("federated", "hospital")):
            assert cell(comparison.summary("federated", scope, metric)) in text
    for scope in comparison.scopes("federated", "class"):
        assert cell(comparison.summary("federated", scope, "recall")) in text
    assert "(this network)" in text and "| Central |" in text


def test_it_says_what_it_is_not(document: Document) -> None:
    text = flat(Page(as_html(document)).text)

    assert "Not a medical device" in text and "No authority has cleared" in text
    assert "Diagnosis, triage or treatment" in text


def test_data_training_and_provenance(document: Document) -> None:
    text = as_markdown(document).replace("\\", "")

    assert "1,234,567 numbers" in text and "outline_loss = 0.3" in text
    assert "error: copies with different labels. 4 groups." in text
    assert "patients unknown" not in text
    assert "could read sums only" in text
    for digest in "abcdef":
        assert digest * 64 in text
    assert "training.optimizer" in text


def test_calibration_without_advice_is_that_of_the_network_itself(document: Document) -> None:
    text = flat(as_markdown(document))

    assert "no temperature was fitted" in text and "expected calibration error is" in text


def test_maps_stand_beside_maps_that_know_nothing(
    document: Document, explanations: ExplanationComparison
) -> None:
    pointing = explanations.summary("federated", "pooled", "pointing")
    assert pointing is not None
    row = next(line for line in as_markdown(document).splitlines() if line.startswith("| Pointing"))

    assert f"| {100 * pointing.mean:.1f} |" in row and f"| {pointing.images:,} |" in row


def test_what_was_not_measured_is_said(given: CardInput) -> None:
    bare = dataclasses.replace(given, explanations=None, shares=(), audit={}, predictions=(), exported={})
    text = flat(as_markdown(model_card(bare)))

    assert "No map of this network was measured" in text
    assert "no longer at hand" in text and "Nothing is known of the probabilities" in text


def test_settings_that_are_not_the_networks_are_pointed_out(given: CardInput) -> None:
    text = flat(as_markdown(model_card(dataclasses.replace(given, minded=None))))

    assert "not those that the network was trained with" in text


def test_the_same_input_gives_the_same_card(given: CardInput, document: Document) -> None:
    assert as_html(model_card(given)) == as_html(document)
