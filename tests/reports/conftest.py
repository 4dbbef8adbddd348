"""A made-up comparison (four hospitals, three sources, arms of different skill), and a reader of pages."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from fedlens.metrics.explanation import IOU_THRESHOLDS
from fedlens.reports.comparison import ArmPredictions, Comparison, compare
from fedlens.reports.explanation_comparison import (
    ArmExplanations,
    ExplanationComparison,
    arm_explanations,
    compare_explanations,
)
from fedlens.reports.explanation_curves import ExplanationCurve
from fedlens.reports.explanations import ExplanationValues
from fedlens.reports.figures import TrainingCurve
from fedlens.reports.gallery import GalleryItem, choose_cases, gallery_item
from fedlens.reports.html import ReportInput
from fedlens.reports.predictions import Predictions
from fedlens.reports.shares import Share

CLASSES = ("glioma", "meningioma", "normal", "pneumonia", "mel", "nevus")
SOURCES = {"brain_mri": (0, 1, 2), "chest_xray": (2, 3), "ham10000": (4, 5)}
HOSPITALS = ("A", "B", "C", "D")
SKILL = {"local-A": 2.4, "local-B": 2.9, "local-C": 2.6, "local-D": 2.1, "central": 4.3, "federated": 4.1}


VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, all text, every table row, and whether tags close as they open."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = flat(f"{self.rows[-1][-1]} {data}")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def flat(text: str) -> str:
    return " ".join(text.split())


def fake_predictions(arm: str = "federated", seed: int = 0, images: int = 480) -> Predictions:
    """Test images are the same for every arm and seed; what is said about them is not."""
    world = np.random.default_rng(1)
    sources = world.choice(list(SOURCES), images)
    true = np.array([world.choice(SOURCES[source]) for source in sources])
    groups = np.arange(images) // 2
    hospitals = np.array(HOSPITALS)[world.choice(4, images, p=[0.2, 0.3, 0.3, 0.2])[groups * 2]]
    own = np.random.default_rng([seed, sum(map(ord, arm))])
    logits = own.normal(size=(images, len(CLASSES)))
    logits[np.arange(images), true] += SKILL[arm]
    shares = np.exp(logits)
    return Predictions(
        image_ids=np.array([f"{source}/{index:05d}.png" for index, source in enumerate(sources)]),
        hospitals=hospitals,
        sources=sources,
        groups=np.array([f"patient-{group}" for group in groups]),
        true=true.astype(np.int64),
        probabilities=(shares / shares.sum(1, keepdims=True)).astype(np.float32),
        classes=CLASSES,
    )


def fake_arms(seeds: tuple[int, ...] = (0,), images: int = 480) -> list[ArmPredictions]:
    arms = [ArmPredictions(seed, arm, fake_predictions(arm, seed, images)) for seed in seeds for arm in SKILL]
    federated = [entry for entry in arms if entry.arm == "federated"]
    return arms + [ArmPredictions(entry.seed, "explainable", entry.predictions) for entry in federated]


def fake_gallery() -> tuple[GalleryItem, ...]:
    y, x = np.mgrid[:150, :200]
    items = []
    straying = np.arange(480) % 9 == 0
    for number, case in enumerate(choose_cases(fake_predictions(), straying=straying, each=2)):
        grey = (110 + 60 * np.sin(x / (9 + number)) * np.cos(y / 17)).astype(np.uint8)
        heat = np.exp(-(((x - 60 - 6 * number) / 28) ** 2) - ((y - 70) / 24) ** 2)[..., None]
        overlay = (grey[..., None] * (1 - 0.7 * heat) + heat * [180, 60, 20]).astype(np.uint8)
        outlined = case.source != "chest_xray"
        inside = 0.41 if outlined else None
        why = "41 % of the heat lies on hairs (3 % of the image)" if case.kind == "straying" else ""
        items.append(gallery_item(case, grey, overlay, outlined=outlined, inside=inside, why=why))
    return tuple(items)


def fake_explanations(arm: str, seed: int = 0, images: int = 480) -> ArmExplanations:
    """Every second brain image is outlined; arms that train with explanations have better maps."""
    predictions = fake_predictions(arm if arm in SKILL else "federated", seed, images)
    world = np.random.default_rng(2)
    outlined = (predictions.sources == "brain_mri") & (np.arange(images) % 2 == 0)
    area = np.where(outlined, world.uniform(0.02, 0.2, images), np.nan)
    hard = world.normal(size=images)
    own = np.random.default_rng([seed, 7, sum(map(ord, arm))])
    good = 0.25 if arm == "explainable" else 0.0
    share = 1 / (1 + np.exp(-(hard - 0.8 + 4 * good + own.normal(0, 0.3, images))))
    columns = {
        "pointing": np.where(outlined, (share > 0.4).astype(float), np.nan),
        "energy": np.where(outlined, share, np.nan),
        "energy-centre": np.where(outlined, area * 1.5, np.nan),
        "pointing-centre": np.where(outlined, 0.1, np.nan),
        "area": area,
        "equivariance-flip": own.uniform(0.6, 1.0, images),
        "strays": (own.random(images) < 0.2).astype(float),
    }
    for threshold in IOU_THRESHOLDS:
        columns[f"iou@{threshold:.2f}"] = np.where(outlined, share * (1 - abs(threshold - 0.5)), np.nan)
        columns[f"iou-centre@{threshold:.2f}"] = np.where(outlined, area, np.nan)
    values = ExplanationValues(
        predictions.image_ids,
        predictions.hospitals,
        predictions.sources,
        predictions.groups,
        predictions.true,
        columns,
        "grad-cam",
        {"A": "0" * 64},
    )
    return arm_explanations(ArmPredictions(seed, arm, predictions), values)


def fake_explanation_curves() -> tuple[ExplanationCurve, ...]:
    passes = (5.0, 10.0, 15.0)
    return tuple(
        ExplanationCurve(
            arm,
            0,
            passes,
            {
                "energy": (1.0, 1.0 + gain, 1.0 + 2 * gain),
                "strays": (0.3, 0.2, 0.1),
                "equivariance-flip": (0.7,) * 3,
            },
        )
        for arm, gain in (("federated", 0.2), ("explainable", 0.6))
    )


def fake_curves() -> tuple[TrainingCurve, ...]:
    passes = np.arange(1, 31)
    curves = []
    for arm, best in [
        *((f"local-{name}", 0.78) for name in HOSPITALS),
        ("central", 0.94),
        ("federated", 0.93),
    ]:
        noise = np.random.default_rng(sum(map(ord, arm))).normal(0, 0.008, 30)
        accuracy = best - 0.5 * np.exp(-passes / 6) + noise
        loss = 2.2 * (1 - accuracy)
        curves.append(
            TrainingCurve(
                arm,
                0,
                tuple(passes),
                tuple(loss * 0.8),
                tuple(loss),
                tuple(np.where(passes % 2, accuracy, np.nan)),
            )
        )
    return tuple(curves)


def fake_shares() -> tuple[Share, ...]:
    rng = np.random.default_rng(0)
    return tuple(
        Share(hospital, source, CLASSES[label], split, int(rng.integers(20, 900) * share))
        for hospital in HOSPITALS
        for source, labels in SOURCES.items()
        for label in labels
        for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2))
    )


def fake_audit() -> dict[str, object]:
    return {
        "images": 20558,
        "groups": 15117,
        "clusters": 13904,
        "copies": 3321,
        "mirrored": 912,
        "findings": [
            {
                "severity": "warning",
                "title": "source cue",
                "detail": "notumor stands out by width.",
                "images": [],
            },
            {
                "severity": "error",
                "title": "copies with different labels",
                "detail": "4 groups.",
                "images": [],
            },
            {"severity": "note", "title": "patients unknown", "detail": "6293 images.", "images": []},
            {"severity": "note", "title": "patients unknown", "detail": "12 images.", "images": []},
        ],
    }


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    return compare(fake_arms(), resamples=200)


@pytest.fixture(scope="session")
def explanations() -> ExplanationComparison:
    arms = [fake_explanations(arm) for arm in (*SKILL, "explainable", "explainable-field")]
    found = compare_explanations(arms, resamples=200)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def report(comparison: Comparison, explanations: ExplanationComparison) -> ReportInput:
    return ReportInput(
        title="Three modalities, four hospitals",
        study={"name": "paper", "training": {"passes": 50.0, "batch_size": 32}, "compare": {"seeds": [0]}},
        comparison=comparison,
        explanations=explanations,
        outlined={"A": (120, 300), "B": (0, 410), "C": (60, 290), "D": (0, 250)},
        curves=fake_curves(),
        explanation_curves=fake_explanation_curves(),
        shares=fake_shares(),
        audit=fake_audit(),
        gallery=fake_gallery(),
        command="fedlens compare paper.toml",
        versions={"fedlens": "0.1.0", "torch": "2.13.0", "processor": "Xeon, 2 cores"},
        created="24 November 2026",
        notes=("Images are at 224 x 224 pixels.",),
    )
