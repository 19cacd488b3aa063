"""Samples per second of a whole evaluation, and the memory that it takes with few samples and with many.

    .venv/bin/python -m tests.benchmarks.bench_evaluation [--num 500,2000] [--metrics NAME,...] [--features NETWORK,...]

A small network on the digits, barely trained: what is measured is what surrounds it. Every number of samples is drawn
and measured in a process of its own, from nothing but the references' features, which an evaluation before has left in
the cache. The last line says by how much the peak memory grew for every further sample, beside what is kept of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_NET = {"model.kwargs.base_channels": 4, "model.kwargs.channel_multipliers": (1,)}
_RUN = {"training.num_steps": 20, "sampling.every": 0, "sampling.num_steps": 4, "sampling.batch_size": 250}


def trained(folder: Path) -> None:
    """Train for some updates."""
    from geonoise_jax import build, config

    choice = config.load("configs/digits.py:flow_matching,blind")
    build.train(config.override(choice, [(key, str(value)) for key, value in {**_NET, **_RUN}.items()]), folder)


def evaluated(folder: Path, num: int, metrics: str, features: str) -> None:
    """Evaluate in this process; print seconds and peak memory in MiB as JSON."""
    from geonoise_jax import runtime

    runtime.configure()
    from geonoise_jax.evaluation import Options, evaluate

    start = time.perf_counter()
    names = tuple(word for word in features.split(",") if word)
    evaluate(folder, Options(metrics=tuple(metrics.split(",")), features=names or None, num=num))
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def apart(folder: Path, num: int, options: argparse.Namespace) -> tuple[float, float]:
    """Evaluate in a process of its own."""
    shutil.rmtree(folder / "evaluation", ignore_errors=True)
    words = [f"--workdir={folder}", f"--num={num}", f"--metrics={options.metrics}", f"--features={options.features}"]
    command = [sys.executable, "-m", "tests.benchmarks.bench_evaluation", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ})
    seconds, peak = json.loads(ended.stdout.splitlines()[-1])
    return seconds, peak


def main() -> None:
    """Measure every number of samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", default="500,2000")
    parser.add_argument("--metrics", default="sliced_wasserstein,spectrum,kid,precision_recall")
    parser.add_argument("--features", default="efficientnet_lite0:32")
    parser.add_argument("--workdir", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workdir is not None:
        evaluated(options.workdir, int(options.num), options.metrics, options.features)
        return
    counts = [int(word) for word in options.num.split(",")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        trained(folder)
        apart(folder, counts[0], options)
        found = []
        for num in counts:
            seconds, peak = apart(folder, num, options)
            found.append(peak)
            print(f"num {num:>7}{seconds:9.1f} s{num / seconds:9.1f} samples/s  peak {peak:7.0f} MiB", flush=True)
        if len(counts) > 1:
            each = (found[-1] - found[0]) / (counts[-1] - counts[0]) * 1024
            kept = sum(path.stat().st_size for path in (folder / "evaluation").rglob("*.npz")) / counts[-1] / 1024
            print(f"a further sample: {each:.2f} KiB of memory; {kept:.2f} KiB on the disk, features included")


if __name__ == "__main__":
    main()
