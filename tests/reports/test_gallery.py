from __future__ import annotations

import cv2
import numpy as np

from fedlens.reports.gallery import KINDS, by_source, choose_cases, encode_png, gallery_item

from .conftest import CLASSES, SOURCES, fake_gallery, fake_predictions


def test_every_source_has_cases_of_every_kind_and_shows_an_image_once() -> None:
    predictions = fake_predictions("local-A")
    straying = np.arange(len(predictions)) % 5 == 0
    cases = choose_cases(predictions, straying=straying, each=3, seed=1)
    for source in SOURCES:
        found = [case for case in cases if case.source == source]
        assert [case.kind for case in found] == [kind for kind in KINDS for _ in range(3)]
    assert len({case.image_id for case in cases}) == len(cases)
    for case in cases:
        assert predictions.image_ids[case.index] == case.image_id
        assert CLASSES[predictions.true[case.index]] == case.true
        assert case.probability == predictions.probabilities[case.index].max()
        assert case.next_probability == sorted(predictions.probabilities[case.index])[-2]
        assert case.right == predictions.right[case.index]
        if case.kind in ("right", "wrong"):
            assert case.right == (case.kind == "right")
        if case.kind == "straying":
            assert straying[case.index]


def test_uncertain_cases_have_the_least_margin_of_those_not_shown_before() -> None:
    predictions = fake_predictions("local-A")
    ordered = np.sort(predictions.probabilities, axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    cases = choose_cases(predictions, each=2)
    for source in SOURCES:
        shown = [case.index for case in cases if case.source == source and case.kind != "uncertain"]
        uncertain = [case.index for case in cases if case.source == source and case.kind == "uncertain"]
        rest = [row for row in np.flatnonzero(predictions.sources == source) if row not in shown]
        assert sorted(uncertain) == sorted(sorted(rest, key=lambda row: margins[row])[:2])


def test_without_a_measurement_nothing_is_said_to_stray() -> None:
    assert {case.kind for case in choose_cases(fake_predictions("local-A"))} == {
        "right",
        "wrong",
        "uncertain",
    }


def test_cases_are_repeatable_and_drawn_not_picked() -> None:
    predictions = fake_predictions("local-A")
    assert choose_cases(predictions, seed=1) == choose_cases(predictions, seed=1)
    assert choose_cases(predictions, seed=1) != choose_cases(predictions, seed=2)


def test_fewer_cases_where_a_source_has_fewer() -> None:
    predictions = fake_predictions()
    only_right = predictions.where(predictions.right)
    assert all(case.right for case in choose_cases(only_right))
    assert {case.kind for case in choose_cases(only_right)} == {"right", "uncertain"}
    assert choose_cases(only_right.where(np.zeros(len(only_right), bool))) == ()


def test_pictures_keep_their_colours_and_shape() -> None:
    image = np.zeros((300, 600, 3), np.uint8)
    image[..., 0] = 200
    decoded = cv2.imdecode(np.frombuffer(encode_png(image, 256), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (128, 256, 3)
    assert decoded[0, 0].tolist() == [0, 0, 200]
    grey = cv2.imdecode(np.frombuffer(encode_png(image[..., 0], 1000), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(grey, image[..., 0])


def test_an_item_tells_what_the_case_was_and_leaves_the_image_alone() -> None:
    (case, *_) = choose_cases(fake_predictions())
    image = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    before = image.copy()
    item = gallery_item(case, image, image, outlined=True, inside=0.2, why="on hairs")
    assert (item.case, item.outlined, item.inside, item.why) == (case, True, 0.2, "on hairs")
    assert np.array_equal(image, before)


def test_items_stand_by_source_and_kind() -> None:
    groups = by_source(fake_gallery())
    assert [source for source, _ in groups] == sorted(SOURCES)
    for source, kinds in groups:
        assert [kind for kind, _ in kinds][:2] == ["right", "wrong"]
        assert all(
            (item.case.source, item.case.kind) == (source, kind) for kind, items in kinds for item in items
        )
