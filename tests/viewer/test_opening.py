"""Which folders can be viewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlens.errors import HistoryError
from fedlens.viewer.opening import opened
from fedlens.viewer.settings import ViewerSettings


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(HistoryError), opened(tmp_path, ViewerSettings()):
        pass
    assert not list(tmp_path.iterdir())


def test_an_arm_that_a_finished_comparison_lacks_is_named(run: Path) -> None:
    with pytest.raises(HistoryError, match="federated"), opened(run, ViewerSettings(), arm="fedrated"):
        pass


def test_a_run_is_viewed_by_one_viewer_at_a_time_and_again_afterwards(run: Path) -> None:
    with opened(run, ViewerSettings()) as services:
        assert services.library and services.library.classes
        with pytest.raises(HistoryError, match="viewed already"), opened(run, ViewerSettings()):
            pass
    with opened(run, ViewerSettings()):
        pass
