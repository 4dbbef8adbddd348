"""The network between one hospital and the coordinator is cut for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deployment.running import RunningFederation, move_to_port, tiny_study, wait_until
from tests.faults.proxy import Proxy

from fedlens.deployment.kit import read_kit


@pytest.fixture
def proxy(running: RunningFederation) -> Iterator[Proxy]:
    """Between east and the coordinator; the others are connected without it."""
    kit = running.hospital("east")
    proxy = Proxy(read_kit(kit).port)
    move_to_port(kit, proxy.port)
    try:
        yield proxy
    finally:
        proxy.close()


def test_a_network_that_refuses_for_thirty_seconds_costs_no_hospital_its_round(
    running: RunningFederation, images: Path, proxy: Proxy
) -> None:
    study = tiny_study(images, "refused", sealing={"mode": "on"}, network={"grace": 100})
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"):
        proxy.cut()
    time.sleep(30)
    assert 2 not in running.rounds(study)
    proxy.mend()
    ended = running.follow(study, 180)

    assert ended["state"] == "finished"
    for event in running.rounds(study).values():
        assert set(event["hospitals"]) == set(running.names)
        assert not event["missing"] and not event["refused"]


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_a_network_gone_for_longer_than_the_grace_costs_the_hospital_that_round(
    running: RunningFederation, images: Path, proxy: Proxy, how: str
) -> None:
    study = tiny_study(images, "gone", sealing={"mode": "on"}, network={"grace": 4}, federation={"rounds": 5})
    running.start()
    running.submit(study)

    with running.held_in_training(study, 2, "east"):
        proxy.cut() if how == "refuses" else proxy.hold()
    lost = running.wait_for_round(study, 2)
    # The study must not end before the hospital is back.
    with running.held("north"):
        proxy.mend()
        wait_until(lambda: proxy.connected, 60, "east is connected again")
    ended = running.follow(study)

    assert ended["state"] == "finished"
    assert "out of reach" in lost["missing"]["east"]
    assert set(lost["hospitals"]) == {"north", "south", "west"}
    assert set(running.rounds(study)[5]["hospitals"]) == set(running.names)
