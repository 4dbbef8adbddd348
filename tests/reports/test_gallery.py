from __future__ import annotations

import cv2
import numpy as np

from fedlens.reports.gallery import by_source, choose_cases, encode_png, gallery_item

from .conftest import CLASSES, SOURCES, fake_gallery, fake_predictions


def test_cases_are_drawn_from_right_and_wrong_of_every_source() -> None:
    predictions = fake_predictions("local-A")
    cases = choose_cases(predictions, right=3, wrong=2, seed=1)
    for source in SOURCES:
        found = [case for case in cases if case.source == source]
        assert [case.right for case in found] == [True] * 3 + [False] * 2
    for case in cases:
        assert predictions.image_ids[case.index] == case.image_id
        assert CLASSES[predictions.true[case.index]] == case.true
        assert case.probability == predictions.probabilities[case.index].max()


def test_cases_are_repeatable_and_drawn_not_picked() -> None:
    predictions = fake_predictions("local-A")
    assert choose_cases(predictions, seed=1) == choose_cases(predictions, seed=1)
    assert choose_cases(predictions, seed=1) != choose_cases(predictions, seed=2)


def test_fewer_cases_where_a_source_has_fewer() -> None:
    predictions = fake_predictions()
    only_right = predictions.where(predictions.right)
    assert all(case.right for case in choose_cases(only_right))
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
    item = gallery_item(case, image, image, outlined=True, inside=0.2)
    assert (item.true, item.predicted, item.right, item.inside) == (
        case.true,
        case.predicted,
        case.right,
        0.2,
    )
    assert np.array_equal(image, before)


def test_items_stand_by_source() -> None:
    groups = by_source(fake_gallery())
    assert [source for source, _, _ in groups] == sorted(SOURCES)
    for source, right, wrong in groups:
        assert all(item.source == source and item.right for item in right)
        assert all(item.source == source and not item.right for item in wrong)
