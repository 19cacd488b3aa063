"""What the XLA flag of `geonoise_jax.runtime` is worth to the forward and the training pass of the U-Net on a CPU.

    bash launch/local.sh python tests/benchmarks/bench_xla_flag.py

Each measurement is of a process of its own, with and without the flag in turn; ratios are of neighbouring processes. On
a jaxlib that does not know the flag the processes with it abort, which is said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from geonoise_jax.runtime import _CPU_CONVOLUTIONS as FLAG

PASSES = ("forward", "training")


def seconds(call: Any, repeats: int) -> float:
    """Median time of a call."""
    import jax

    jax.block_until_ready(call())
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def measure(name: str, batch: int, repeats: int) -> dict[str, float]:
    """In a process of its own: seconds of a forward pass and of a training step."""
    import jax
    import jax.numpy as jnp

    from geonoise_jax import build, config
    from geonoise_jax.training.train import prepare

    choice = config.override(config.load(name), [("training.batch_size", str(batch))])
    with tempfile.TemporaryDirectory() as folder:
        setup = prepare(build.run(choice), Path(folder))
    state = setup.init()
    field = setup.run.field(state.ema_params)
    u, t = jax.random.normal(jax.random.key(0), (batch, *field.event_shape)), jnp.full(batch, 0.5)
    forward = jax.jit(lambda field, u, t: field(u, t))
    found = {"forward": seconds(lambda: forward(field, u, t), repeats)}
    given = setup.batch(0)

    def train() -> Any:
        nonlocal state
        state, report = setup.step(state, given, setup.resident)
        return report

    return {**found, "training": seconds(train, repeats)}


def child(flag: bool, arguments: argparse.Namespace) -> dict[str, float] | None:
    """Measure with or without the flag; None if jaxlib does not know it."""
    kept = [each for each in os.environ.get("XLA_FLAGS", "").split() if not each.startswith(FLAG.split("=")[0])]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join([*kept, *([FLAG] if flag else [])])}
    command = [sys.executable, __file__, "--child", f"--config={arguments.config}", f"--batch={arguments.batch}"]
    done = subprocess.run(
        [*command, f"--repeats={arguments.repeats}"], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode and "Unknown flag" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/digits.py:flow_matching,blind")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.config, arguments.batch, arguments.repeats)))
        return
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for number in range(arguments.rounds):
        for flag in (True, False) if number % 2 == 0 else (False, True):
            measured = child(flag, arguments)
            if measured is None:
                raise SystemExit(f"this jaxlib does not know {FLAG}")
            found[flag].append(measured)
    print(f"{arguments.config}, batch {arguments.batch}, {os.cpu_count()} cores, {arguments.rounds} processes each")
    for name in PASSES:
        ratios = [without[name] / given[name] for given, without in zip(found[True], found[False], strict=True)]
        given, without = (1e3 * statistics.median(each[name] for each in found[flag]) for flag in (True, False))
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:9} with the flag {given:6.1f} ms, without {without:6.1f} ms, "
            f"ratio {middle:.2f} (quartiles {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
