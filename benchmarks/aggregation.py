"""Memory and time of federated averaging as the number of hospitals grows.

Each measurement is a process of its own, which decodes, checks and sums updates of 10 million
parameters that are made when they are asked for, as an engine does. ``gather`` is the textbook way
for comparison: keep all updates, then take numpy's weighted average.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from _figures import write_figures

from fedlens.coordinator.aggregation import RunningMean, check_update
from fedlens.coordinator.collection import collect
from fedlens.coordinator.history import Event
from fedlens.engines import Reply
from fedlens.progress import silent
from fedlens.protocol.codec import decode, encode
from fedlens.protocol.messages import Parameters, RoundPlan, Update

LAYERS = 10
LAYER = 1_000_000
PLAN = RoundPlan("study", 1, 1, "network", 1.0, 0, 0.001, 0.001)
CASES = (("stream", 4), ("stream", 64), ("gather", 4), ("gather", 8))
MIB = 2**20


class MakingEngine:
    """Makes each hospital's update when it is asked for."""

    def __init__(self, hospitals: int) -> None:
        self.hospitals = tuple(f"hospital-{index}" for index in range(hospitals))
        rng = np.random.default_rng(0)
        self._delta = {f"layer{index}": rng.random(LAYER, np.float32) for index in range(LAYERS)}

    def template(self) -> Parameters:
        """Arrays by name with the shapes and dtypes of an update."""
        return self._delta

    def exchange(
        self, names: Sequence[str], request: bytes, own: Mapping[str, bytes] | None = None
    ) -> Iterator[Reply]:
        """One encoded update of each hospital."""
        for name in names:
            yield Reply(name, self._encoded(name))

    def _encoded(self, name: str) -> bytes:
        images = 100 + int(name.removeprefix("hospital-"))
        return encode(Update(name, "study", 1, "network", images, 1.0, 1, images, 0.0, self._delta))


def stream(engine: MakingEngine) -> float:
    """Seconds of checking and summing as the coordinator does it."""
    running = RunningMean(engine.template())

    def accept(hospital: str, content: bytes) -> Event:
        update = decode(content, Update)
        check_update(update, hospital, PLAN, engine.template())
        running.add(update.delta, update.images)
        return {}

    arrived = collect(engine, engine.hospitals, b"", accept, step="", progress=silent)
    began = time.perf_counter()
    running.finish()
    assert len(arrived.hospitals) == len(engine.hospitals), arrived.refused
    return arrived.summing_seconds + time.perf_counter() - began


def gather(engine: MakingEngine) -> float:
    """Seconds of the textbook way."""
    contents = [reply.content for reply in engine.exchange(engine.hospitals, b"")]
    began = time.perf_counter()
    updates = [decode(content, Update) for content in contents if content]
    weights = [update.images for update in updates]
    for name in engine.template():
        np.average([update.delta[name] for update in updates], axis=0, weights=weights)
    return time.perf_counter() - began


def measure(way: str, hospitals: int) -> tuple[float, float]:
    """Peak resident MiB beyond what stood before, and seconds; in this process."""
    engine = MakingEngine(hospitals)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {"stream": stream, "gather": gather}[way](engine)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MIB, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case[0], int(options.case[1]))))
        return
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in CASES}
    for _ in range(options.repeats):
        for way, hospitals in CASES:
            command = [sys.executable, __file__, "--case", way, str(hospitals)]
            answer = subprocess.run(command, capture_output=True, check=True, text=True)
            runs[way, hospitals].append(tuple(json.loads(answer.stdout)))
    write_figures(options.json, summary(runs))


def summary(runs: dict[tuple[str, int], list[tuple[float, float]]]) -> dict[str, float]:
    """Medians over repetitions, and their ratios."""
    figures: dict[str, float] = {"aggregation.parameters": LAYERS * LAYER}
    for (way, hospitals), measured in runs.items():
        memory = statistics.median(peak for peak, _ in measured)
        seconds = statistics.median(taken for _, taken in measured)
        figures[f"aggregation.{way}.{hospitals}_hospitals.peak_mib"] = memory
        figures[f"aggregation.{way}.{hospitals}_hospitals.seconds_per_update"] = seconds / hospitals
    for ratio, above, below in (
        ("peak_64_over_4_hospitals", "stream.64_hospitals.peak_mib", "stream.4_hospitals.peak_mib"),
        ("gather_peak_8_over_4_hospitals", "gather.8_hospitals.peak_mib", "gather.4_hospitals.peak_mib"),
        (
            "time_over_gather",
            "stream.4_hospitals.seconds_per_update",
            "gather.4_hospitals.seconds_per_update",
        ),
    ):
        figures[f"aggregation.{ratio}"] = figures[f"aggregation.{above}"] / figures[f"aggregation.{below}"]
    return figures


if __name__ == "__main__":
    main()
