"""Images per second of every network of features, and the memory that a stream of images takes.

    .venv/bin/python -m tests.benchmarks.bench_features [--num 256] [--batch 32] [--networks NAME,...]

The Inception network has random weights, written as torch would, unless GEONOISE_INCEPTION says where its own are. The
first batch, which includes compilation, is left out of the rate and given for itself. The growth of the peak memory
between the first quarter of the images and the last says whether it depends on their number.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from geonoise_jax import runtime
from geonoise_jax.data.in_memory import from_numpy
from geonoise_jax.evaluation.features import (
    FeatureNetwork,
    Settings,
    efficientnet_lite0,
    inception,
    stream,
    train_classifier,
)
from geonoise_jax.training.sharding import sampling_mesh
from tests.torch_state_files import inception_shapes, random_state, write


def random_inception(protocol: str) -> FeatureNetwork:
    """The Inception network with its own weights where they are named, else with random ones."""
    if os.environ.get("GEONOISE_INCEPTION"):
        return inception(protocol)
    with tempfile.TemporaryDirectory() as folder:
        return inception(protocol, path=write(Path(folder) / "random.pth", random_state(inception_shapes())))


def small_classifier() -> FeatureNetwork:
    """The classifier for images of 28x28 pixels, after one update."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (256, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, 256)
    data = from_numpy(images, labels, num_classes=10)
    with tempfile.TemporaryDirectory() as folder:
        return train_classifier(data, data, Settings(num_steps=1), cache=folder)


NETWORKS: dict[str, tuple[Callable[[], FeatureNetwork], tuple[int, int, int]]] = {
    "efficientnet_lite0_112": (lambda: efficientnet_lite0(size=112), (28, 28, 1)),
    "efficientnet_lite0_224": (efficientnet_lite0, (32, 32, 3)),
    "inception_edm": (lambda: random_inception("edm"), (32, 32, 3)),
    "inception_clean_fid": (lambda: random_inception("clean_fid"), (256, 256, 3)),
    "classifier": (small_classifier, (28, 28, 1)),
}


def batches(shape: tuple[int, int, int], batch: int, num: int) -> Iterator[np.ndarray]:
    """Yield random pixels, of which only one batch is in memory."""
    rng = np.random.default_rng(1)
    for start in range(0, num, batch):
        yield rng.integers(0, 256, (min(batch, num - start), *shape), dtype=np.uint8)


def peak() -> float:
    """Peak memory of the process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(network: FeatureNetwork, shape: tuple[int, int, int], batch: int, num: int) -> tuple[float, float, float]:
    """Return images per second, seconds until the first batch was there, and MiB by which the peak grew."""
    start = time.perf_counter()
    done, times, peaks = 0, [], []
    for part in stream(network, batches(shape, batch, num), batch_size=batch, mesh=sampling_mesh()):
        done += len(part.features)
        times.append((done, time.perf_counter()))
        peaks.append(peak())
    rate = (done - times[0][0]) / (times[-1][1] - times[0][1]) if len(times) > 1 else float("nan")
    return rate, times[0][1] - start, peaks[-1] - peaks[len(peaks) // 4]


def main() -> None:
    """Measure the networks one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    options = parser.parse_args()
    runtime.configure()
    print(f"jax {jax.__version__}, {len(jax.devices())} x {jax.devices()[0].device_kind}, batches of {options.batch}")
    for name in options.networks.split(","):
        make, shape = NETWORKS[name]
        rate, first, growth = measure(make(), shape, options.batch, options.num)
        print(f"{name:<24}{'x'.join(map(str, shape)):<12}{rate:8.1f} images/s  first {first:5.1f} s  +{growth:.0f} MiB")


if __name__ == "__main__":
    main()
