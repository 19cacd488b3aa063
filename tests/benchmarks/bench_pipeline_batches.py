"""Time the input pipeline: preparing and loading the digits, and making and decoding batches.

Run: python tests/benchmarks/bench_pipeline_batches.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np

from geonoise_jax.data import Arrays, Pipeline, load_arrays

ITEMS, BATCH, STEPS = 60_000, 128, 2_000


def fashion_sized() -> Arrays:
    """Random 28x28 images, as many as in Fashion-MNIST."""
    rng = np.random.default_rng(0)
    events = rng.integers(0, 256, (ITEMS, 28, 28, 1), dtype=np.uint8)
    labels = rng.integers(0, 10, ITEMS, dtype=np.int32)
    return Arrays(events=events, labels=labels, center=127.5, scale=1 / 127.5, num_classes=10)


def milliseconds(function: Callable[[int], object]) -> np.ndarray:
    """Time `function(step)` for every step, after one call that is not counted."""
    function(0)
    times = []
    for step in range(STEPS):
        start = time.perf_counter()
        jax.block_until_ready(function(step))
        times.append(time.perf_counter() - start)
    return 1e3 * np.array(times)


def report_batches(arrays: Arrays, placement: str) -> None:
    """Print the time of a batch on the host, and with transfer and decoding, over four epochs."""
    pipeline = Pipeline(arrays, BATCH, seed=0, placement=placement)
    resident = jax.device_put(pipeline.resident)
    decode = jax.jit(pipeline.decode)
    for what, function in (
        ("batch(step)", pipeline.batch),
        ("batch, transfer, decode", lambda step: decode(pipeline.batch(step), resident)),
    ):
        times = milliseconds(function)
        print(
            f"{placement:7} {what:24} mean {times.mean():.3f} ms, median {np.median(times):.3f} ms, "
            f"slowest (a new epoch) {times.max():.2f} ms"
        )


def report_loading() -> None:
    """Print the time to prepare and to load the digits."""
    with tempfile.TemporaryDirectory() as data_dir:
        for what in ("digits: import TFDS, prepare and load", "digits: load"):
            start = time.perf_counter()
            load_arrays("digits", "train", data_dir=data_dir)
            print(f"{what:40} {time.perf_counter() - start:.3f} s")


def main() -> None:
    report_loading()
    print(f"{ITEMS} images 28x28 uint8, batch {BATCH}, on {jax.devices()[0].device_kind}")
    arrays = fashion_sized()
    for placement in ("host", "device"):
        report_batches(arrays, placement)


if __name__ == "__main__":
    main()
