"""What sealing costs: bytes, seconds against floors measured in the same run, and other people's schemes.

For 1 and 8 million weights at four hospitals and 16-bit values: bytes up for a hospital over plain float32;
seconds to seal one update (checks, encoding, masks, packing, signature) over the time to generate its
keystreams alone; seconds to open the sum (taking four uploads in and taking the masks off) over adding four
float32 vectors. Then one sum of 64 hospitals with a third dropping out after shares, with the coordinator's
peak memory for 16 and 64 hospitals. Flower's SecAgg+ primitives and TenSEAL's CKKS on the same vectors, where
these packages are installed. Repetitions are interleaved; medians.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _figures import write_figures

from fedlens.protocol.codec import decode, encode
from fedlens.protocol.encoding import agreed_ranges, exponent_counts
from fedlens.protocol.masks import Masks
from fedlens.protocol.messages import SealedUpload, Stamp
from fedlens.protocol.packing import blocks, word_type
from fedlens.protocol.roster import COORDINATOR, Identity, Roster
from fedlens.protocol.sealed_hospital import HospitalSeal
from fedlens.protocol.sealed_sum import SealedSum, SumSettings
from fedlens.protocol.totals import Layout, train_layout
from fedlens.protocol.vectors import Seeds, Values, seal_numbers

TASK = "0" * 64
STUDY = "1" * 64
Floats = npt.NDArray[np.float32]
Timed = Callable[[str, Callable[[], object]], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--hospitals", type=int, default=64, help="of the large sum; 0 to leave it out")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for millions in options.millions:
        figures |= {
            f"{millions}m_{name}": value
            for name, value in one_size(millions * 1_000_000, options.repetitions).items()
        }
    if options.hospitals:
        figures |= many_hospitals(options.hospitals)
    figures |= flower(options.repetitions) | tenseal(options.repetitions)
    write_figures(options.json, figures)


class House:
    """A federation in memory whose hospitals hold random updates."""

    def __init__(self, hospitals: int, size: int) -> None:
        coordinator = Identity.generate(COORDINATOR)
        identities = [Identity.generate(f"H{number:02}") for number in range(hospitals)]
        keys = {identity.name: identity.public() for identity in identities}
        roster = Roster.draft(keys, coordinator.public())
        for identity in identities:
            roster = roster.signed_by(identity)
        self.threshold = hospitals // 2 + 1
        self.stamp = Stamp(STUDY, roster.digest, 1, 1, "train")
        self.current = SealedSum(self.stamp, roster, coordinator, self.threshold)
        self.hospitals = {
            identity.name: HospitalSeal(
                identity, roster, study=STUDY, threshold=self.threshold, value_bits=16
            )
            for identity in identities
        }
        self.size = size
        self.layout: Layout = train_layout({"w": np.zeros(size, np.float32)})
        self.totals = dict.fromkeys(("images", "seen", "correct", "loss", "milliseconds"), 5)

    def key(self) -> None:
        """Keys and shares of all hospitals."""
        request = self.current.keys_request()
        for name, hospital in self.hospitals.items():
            self.current.take_keys(name, hospital.keys(request))
        request = self.current.shares_request()
        for name, hospital in self.hospitals.items():
            self.current.take_shares(name, hospital.shares(request))

    def plan(self, largest: float) -> bytes:
        """The sum's seal, with ranges as the round before would have brought."""
        ranges = agreed_ranges(exponent_counts(np.array([largest])), 2.0).astype(np.float32)
        settings = SumSettings(16, [self.size], ranges, self.layout.size, 100, 1e9)
        return self.current.make_plan(settings, task=TASK)

    def seal(self, name: str, seal: bytes, update: Floats) -> bytes:
        """One hospital's sealed update, checks of the plan included."""
        ready = self.hospitals[name].verify(seal, self.current.material(name), task=TASK)
        values = Values({"w": update}, ["w"], 1.0 / len(self.hospitals), name.encode().ljust(32))
        upload, _ = self.hospitals[name].seal(ready, values, self.totals, self.layout)
        return encode(upload)

    def unmask(self) -> None:
        """Survivors' signatures where needed, and shares."""
        self.current.close()
        if self.current.dropped:
            request = self.current.survivors_request()
            for name in self.current.survivors:
                self.current.take_signature(name, self.hospitals[name].co_sign(request))
        request = self.current.unmask_request()
        for name in self.current.survivors:
            self.current.take_unmasking(name, self.hospitals[name].unmask(request))


def one_size(size: int, repetitions: int) -> dict[str, float]:
    """Bytes, seconds and precision for four hospitals."""
    rng = np.random.default_rng(0)
    updates = [rng.normal(scale=1e-3, size=size).astype(np.float32) for _ in range(4)]
    largest = max(float(np.abs(update).max()) for update in updates) / 4
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        times.setdefault(name, []).append(seconds(work))

    for _ in range(repetitions + 1):
        last = one_sum(size, updates, largest, timed)
    # The first repetition warms caches and allocators.
    kept = {name: values[len(values) // (repetitions + 1) :] for name, values in times.items()}
    median = {name: float(np.median(values)) for name, values in kept.items()}
    exact = np.mean(np.stack([update.astype(np.float64) for update in updates]), axis=0)
    values, upload = last
    return {
        "bytes_up_over_float32": len(upload) / (4 * size),
        "bytes_of_values": len(decode(upload, SealedUpload).values),
        "seal_seconds": median["seal"],
        "keystream_floor_seconds": median["floor"],
        "seal_over_floor": median["seal"] / median["floor"],
        "open_seconds": median["take"] + median["open"],
        "add_four_float32_seconds": median["add"],
        "open_over_add": (median["take"] + median["open"]) / median["add"],
        "relative_error": float(np.linalg.norm(values - exact) / np.linalg.norm(exact)),
    }


def one_sum(
    size: int, updates: list[Floats], largest: float, timed: Timed
) -> tuple[npt.NDArray[np.floating], bytes]:
    """One sum of four hospitals; its values, and one upload."""
    house = House(4, size)
    house.key()
    seal = house.plan(largest)
    uploads: dict[str, bytes] = {}

    def take() -> None:
        for name, upload in uploads.items():
            house.current.take_upload(name, upload)

    for name, update in zip(house.hospitals, updates, strict=True):

        def work(name: str = name, update: Floats = update) -> None:
            uploads[name] = house.seal(name, seal, update)

        timed("seal", work)
        timed("floor", lambda: keystreams(size, 4))
    timed("take", take)
    house.unmask()
    opened = []
    timed("open", lambda: opened.append(house.current.open()))
    timed("add", lambda: add(updates))
    return opened[0].values, uploads["H00"]


def many_hospitals(count: int) -> dict[str, float]:
    """A large sum with a third of the hospitals dropping out after shares; 1 M weights."""
    size = 1_000_000
    figures: dict[str, float] = {}
    for hospitals in (16, count):
        house = House(hospitals, size)
        began = time.perf_counter()
        house.key()
        keyed = time.perf_counter()
        tracemalloc.start()
        seal = house.plan(4e-3)
        base = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        names = [name for number, name in enumerate(house.hospitals) if number % 3]
        rng = np.random.default_rng(1)
        peak, spent = 0, {"seal": 0.0, "coordinator": 0.0}
        for name in names:
            update = rng.normal(scale=1e-3, size=size).astype(np.float32)
            upload = b""
            start = time.perf_counter()
            upload = house.seal(name, seal, update)
            middle = time.perf_counter()
            # The running sum, and what taking one upload needs besides.
            tracemalloc.start()
            house.current.take_upload(name, upload)
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            spent["seal"] += middle - start
            spent["coordinator"] += time.perf_counter() - middle
        house.unmask()
        start = time.perf_counter()
        tracemalloc.start()
        house.current.open()
        peak = max(peak, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        ended = time.perf_counter()
        figures |= {
            f"{hospitals}_hospitals_dropped": len(house.current.dropped),
            f"{hospitals}_hospitals_key_seconds": keyed - began,
            f"{hospitals}_hospitals_seal_seconds_each": spent["seal"] / len(names),
            f"{hospitals}_hospitals_take_seconds": spent["coordinator"],
            f"{hospitals}_hospitals_open_seconds": ended - start,
            f"{hospitals}_hospitals_total_seconds": ended - began,
            f"{hospitals}_hospitals_coordinator_peak_bytes": base + peak,
        }
    figures["coordinator_peak_over_16_hospitals"] = (
        figures[f"{count}_hospitals_coordinator_peak_bytes"] / figures["16_hospitals_coordinator_peak_bytes"]
    )
    return figures


def flower(repetitions: int) -> dict[str, float]:
    """Flower's SecAgg+ primitives for one client among four, on 1 M weights: quantise and mask."""
    try:
        from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod
        from flwr.common.secure_aggregation.quantization import quantize
        from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    except ImportError:
        return {"flower_installed": 0}
    size, bits, modulus = 1_000_000, 16, 1 << 18
    update = np.random.default_rng(0).normal(scale=1e-3, size=size).astype(np.float32)

    def work() -> None:
        values = quantize([update], 8e-3, 1 << bits)
        for number in range(4):
            values = parameters_addition(values, pseudo_rand_gen(bytes([number] * 32), modulus, [(size,)]))
        parameters_mod(values, modulus)

    return compared("flower", work, repetitions)


def tenseal(repetitions: int) -> dict[str, float]:
    """TenSEAL's CKKS encryption of 1 M weights, polynomial degree 8192 as in NVIDIA FLARE's examples."""
    try:
        import tenseal as ts
    except ImportError:
        return {"tenseal_installed": 0}
    size = 1_000_000
    update = np.random.default_rng(0).normal(scale=1e-3, size=size)
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1
    )
    context.global_scale = 2**40

    def work() -> None:
        for start in range(0, size, 4096):
            ts.ckks_vector(context, update[start : start + 4096]).serialize()

    return compared("tenseal", work, min(repetitions, 3))


def compared(name: str, work: Callable[[], None], repetitions: int) -> dict[str, float]:
    """Another scheme's time for one client's 1 M weights over ours, repetitions interleaved.

    Over our primitives (encode, mask and pack), as theirs are primitives; and over sealing with all that a
    hospital checks, signs and writes besides.
    """
    size = 1_000_000
    update = np.random.default_rng(0).normal(scale=1e-3, size=size).astype(np.float32)
    times: dict[str, list[float]] = {"theirs": [], "primitives": [], "seal": []}
    for _ in range(repetitions + 1):
        house = House(4, size)
        house.key()
        seal = house.plan(float(np.abs(update).max()) / 4)
        values = Values({"w": update}, ["w"], 0.25, bytes(32))
        masks = [(bytes([number] * 32), 1) for number in range(4)]

        def primitives(house: House = house, values: Values = values, masks: Seeds = masks) -> None:
            seal_numbers(values, dict(house.totals), house.layout, house.current.plan, masks)

        def whole(house: House = house, seal: bytes = seal) -> None:
            house.seal("H00", seal, update)

        for key, act in (("theirs", work), ("primitives", primitives), ("seal", whole)):
            times[key].append(seconds(act))
    median = {key: float(np.median(values[1:])) for key, values in times.items()}
    return {
        f"{name}_installed": 1,
        f"{name}_seconds": median["theirs"],
        f"{name}_over_our_primitives": median["theirs"] / median["primitives"],
        f"{name}_over_our_whole_seal": median["theirs"] / median["seal"],
    }


def keystreams(size: int, count: int) -> None:
    """The keystreams of one update, with nothing done to them but being made."""
    word = word_type(18)
    masks = Masks([(bytes([number] * 32), 1) for number in range(count)])
    for part in blocks(size):
        for _ in masks.draw((part.stop - part.start) * word.itemsize):
            pass


def add(updates: list[Floats]) -> Floats:
    """What a plain coordinator does."""
    total = np.zeros_like(updates[0])
    for update in updates:
        total += update
    return total


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
