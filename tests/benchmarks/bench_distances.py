"""Seconds and memory of the distances of features, by their number.

    bash launch/local.sh python tests/benchmarks/bench_distances.py [--dim=256] [--nums=2000,8000] [--only=NAME,...]

Every distance runs once to compile and once for time. Moments are accumulated from batches that are made as they are
needed: the most memory that Python and NumPy held at once must not grow with the number of features.
"""

from __future__ import annotations

import argparse
import functools
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from geonoise_jax.evaluation.frechet import frechet_distance, frechet_infinity, frechet_interval
from geonoise_jax.evaluation.inception_score import inception_score
from geonoise_jax.evaluation.kernel_distance import energy_distance, kid, polynomial_mmd
from geonoise_jax.evaluation.manifolds import density_coverage, precision_recall
from geonoise_jax.evaluation.moments import accumulate, grouped
from geonoise_jax.evaluation.two_sample import classifier_two_sample

_BATCH = 500

MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "frechet_distance": frechet_distance,
    "frechet_interval": frechet_interval,
    "frechet_infinity": frechet_infinity,
    "kid": lambda x, y: kid(x, y, subset_size=min(1000, len(x) // 2)),
    "polynomial_mmd": polynomial_mmd,
    "energy_distance": energy_distance,
    "inception_score": lambda x, _: inception_score(x),
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
    "classifier_two_sample": classifier_two_sample,
}


def batches(num: int, dim: int) -> Iterator[np.ndarray]:
    """Features as a network would give them, one batch at a time."""
    generator = np.random.default_rng(0)
    for start in range(0, num, _BATCH):
        yield generator.standard_normal((min(_BATCH, num - start), dim), dtype=np.float32)


def most_memory(run: Callable[[], object]) -> float:
    """MiB that Python and NumPy held at once, at most."""
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def seconds(measure: Callable[[np.ndarray, np.ndarray], object], x: np.ndarray, y: np.ndarray) -> float:
    measure(x, y)
    began = time.perf_counter()
    measure(x, y)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--nums", type=lambda text: [int(each) for each in text.split(",")], default=[2000, 8000])
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(MEASURES))
    options = parser.parse_args()
    heads = "".join(f"{num:>12}" for num in options.nums)
    print(f"{f'd = {options.dim}; N =':<34}{heads}")
    for name, streaming in (("accumulate", accumulate), ("grouped", grouped)):
        held = [most_memory(functools.partial(streaming, batches(num, options.dim))) for num in options.nums]
        print(f"{f'{name}, MiB':<34}" + "".join(f"{each:12.1f}" for each in held), flush=True)
    sets = [[np.concatenate([*batches(num, options.dim)]) + shift for shift in (0.0, 0.1)] for num in options.nums]
    for name in options.only:
        taken = [seconds(MEASURES[name], *pair) for pair in sets]
        print(f"{f'{name}, s':<34}" + "".join(f"{each:12.2f}" for each in taken), flush=True)


if __name__ == "__main__":
    main()
