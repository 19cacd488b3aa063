"""Steps per second of one training run, of fixed batch, split over fake devices and over processes of this machine.

    bash launch/local.sh python -m tests.benchmarks.bench_scaling

The cores of the machine are the same for every row, so that nothing can become faster than with one device: what a row
loses is what the division costs, in collectives, in smaller matrices and in processes that wait for each other. Rates
are those that the run itself writes into metrics.jsonl, compared with one device within a round; so are the losses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.processes_runs import Processes

# Processes, and fake devices of each.
LAYOUTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1), (8, 1), (2, 4))
WARM = 2  # lines of metrics that are not counted
# Eight processes on two cores take minutes to compile.
_LIMIT = 1800.0


class Measured(NamedTuple):
    """One run: median steps per second, seconds from the start to the first line of metrics, and the losses."""

    rate: float
    start: float
    losses: list[float]


def trained(config: str, overrides: list[str], processes: int, devices: int) -> Measured:
    """Train in a folder of its own."""
    with tempfile.TemporaryDirectory() as workdir:
        began = time.time()
        with Processes(
            processes, ["train", f"--config={config}", f"--workdir={workdir}", *overrides], devices=devices
        ) as run:
            if any(run.statuses(limit=_LIMIT)):
                raise SystemExit(f"{processes} x {devices}: {run.outputs}")
        spent = time.time() - began
        lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    rates = [line["steps_per_second"] for line in lines[WARM:] if "steps_per_second" in line]
    trained_for = lines[-1]["seconds"] - lines[0]["seconds"]
    return Measured(statistics.median(rates), spent - trained_for, [line["loss"] for line in lines])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/digits.py:flow_matching,blind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    given = {
        "training.num_steps": arguments.steps,
        "training.batch_size": arguments.batch,
        "training.log_every": max(1, arguments.steps // 12),
        "checkpoint.every": arguments.steps,
        "sampling.every": 0,
    }
    overrides = [f"--config.{key}={value}" for key, value in given.items()]
    found: dict[tuple[int, int], list[Measured]] = {layout: [] for layout in LAYOUTS}
    for number in range(arguments.rounds):
        for layout in LAYOUTS if number % 2 == 0 else LAYOUTS[::-1]:
            found[layout].append(trained(arguments.config, overrides, *layout))
            print(f"round {number + 1}: {layout[0]} x {layout[1]}: {found[layout][-1].rate:.1f} steps/s", flush=True)
    one = found[LAYOUTS[0]]
    print(f"{arguments.config}, batch {arguments.batch}, {os.cpu_count()} cores, {arguments.rounds} rounds")
    print("processes  devices of each  steps/s  of one device  start and end  losses differ")
    for (processes, devices), runs in found.items():
        ratio = statistics.median(run.rate / other.rate for run, other in zip(runs, one, strict=True))
        rate, start = (statistics.median(getattr(run, name) for run in runs) for name in ("rate", "start"))
        apart = max(abs(a / b - 1) for run in runs for a, b in zip(run.losses, one[0].losses, strict=True))
        print(f"{processes:9}{devices:17}{rate:9.1f}{ratio:15.2f}{start:13.0f} s{apart:15.1e}")


if __name__ == "__main__":
    main()
