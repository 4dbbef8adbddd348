"""Classes that size or brightness give away are reported, others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedlens.imaging.manifest import ImageRecord, Manifest
from fedlens.imaging.scan import CUES
from fedlens.imaging.source_cues import TELLING_AUROC, TOGETHER, CueScore, source_cues

Floats = npt.NDArray[np.float64]


def manifest_of(labels: list[str], modality: str = "mri") -> Manifest:
    return Manifest(
        Path("study"),
        tuple(
            ImageRecord(f"s/{n}", f"{n}.png", label, f"s/{n}", modality, "s", "0" * 64, 8, 8)
            for n, label in enumerate(labels)
        ),
    )


def noise(images: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(images, len(CUES)))


def best(scores: tuple[CueScore, ...], label: str) -> CueScore:
    return next(score for score in scores if score.label == label)


def test_class_of_another_size_is_told_by_width_alone() -> None:
    labels = ["glioma", "pituitary", "notumor"] * 100
    cues = noise(300)
    cues[:, CUES.index("width")] = [512 if label != "notumor" else 300 for label in labels]
    scores = source_cues(manifest_of(labels), cues, np.arange(300))
    told = next(score for score in scores if score.label == "notumor" and score.cue == "width")
    assert told.telling and told.auroc > 0.99
    assert told.sentence() == (
        "notumor can be told from the other mri classes by width alone (AUROC 1.00; median 300 against 512)"
    )
    together = next(score for score in scores if score.label == "notumor" and score.cue == TOGETHER)
    assert together.auroc > 0.95


def test_cue_is_found_where_a_class_lies_between_the_others() -> None:
    labels = ["low", "middle", "high"] * 100
    cues = noise(300)
    cues[:, 4] += [{"low": -9, "middle": 0, "high": 9}[label] for label in labels]
    assert best(source_cues(manifest_of(labels), cues, np.arange(300)), "middle").auroc > 0.95


def test_cues_that_say_nothing_are_not_telling() -> None:
    labels = ["a", "b", "c"] * 200
    scores = source_cues(manifest_of(labels), noise(600, seed=3), np.arange(600))
    assert len(scores) == 3 * (len(CUES) + 1)
    assert max(score.auroc for score in scores) < 0.65 < TELLING_AUROC


def test_copies_on_both_sides_do_not_pass_for_a_cue() -> None:
    """Forty pictures, each ten times: known by heart, unless all its copies are on one side."""
    rng = np.random.default_rng(1)
    cues = np.repeat(rng.normal(size=(40, len(CUES))), 10, axis=0)
    labels = np.repeat(rng.permutation(["a", "b"] * 20), 10).tolist()
    manifest = manifest_of(labels)
    apart = best(source_cues(manifest, cues, np.repeat(np.arange(40), 10)), "a").auroc
    mixed = best(source_cues(manifest, cues, np.arange(400)), "a").auroc
    assert apart < 0.8 < mixed


def test_constant_cues_and_rare_classes_do_no_harm() -> None:
    labels = ["a"] * 30 + ["b"] * 30 + ["rare"] * 5
    scores = source_cues(manifest_of(labels), np.ones((65, len(CUES))), np.arange(65))
    assert {score.label for score in scores} == {"a"}
    assert all(score.rest == "b" and abs(score.auroc - 0.5) < 1e-9 for score in scores)


def test_modalities_are_judged_apart() -> None:
    xray, skin = manifest_of(["a", "b"] * 30, "xray"), manifest_of(["c", "d"] * 30, "dermoscopy")
    cues = noise(120, seed=2)
    cues[60:, 0] += 100
    scores = source_cues(xray.with_records([*xray, *skin]), cues, np.arange(120))
    assert {(score.modality, score.label, score.rest) for score in scores} == {
        ("xray", "a", "b"),
        ("dermoscopy", "c", "d"),
    }
    assert not any(score.telling for score in scores)
