"""The fault matrix: studies over real processes of which some are killed, held, cut off or lie.

Run by ``make test-faults``. A federation that ends (``running.close``) has left no process and no file
that is not whole, or the test fails.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deployment.conftest import (  # noqa: F401 (fixtures)
    dealt,
    federation,
    federation_folder,
    images,
    own_folder,
    running,
    undisturbed,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
