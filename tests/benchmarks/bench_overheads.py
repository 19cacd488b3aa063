"""What the input pipeline and the sampler cost beside the network.

    bash launch/local.sh python tests/benchmarks/bench_overheads.py

Pipeline: a training step with a fresh batch each time against the same step with one batch that stays on the device,
and the time in which the host makes and sends a batch as a share of the step. Sampler: solver calls against as many
calls of the jitted network alone. Ratios are medians over neighbouring, interleaved measurements, because single
timings on a shared machine drift.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from geonoise_jax import build, config, runtime
from geonoise_jax.process.grids import GRIDS
from geonoise_jax.sampling import SAMPLERS
from geonoise_jax.training.train import Setup, prepare

_SAMPLES = 256


def pipeline_ratio(setup: Setup, *, rounds: int, steps: int) -> tuple[list[float], float]:
    """Ratios of the time of training steps with fresh batches to that with a resident one, and seconds per step."""
    state = setup.init()
    fixed = setup.batch(0)
    number = 0

    def run(fresh: bool) -> float:
        nonlocal state, number
        began = time.perf_counter()
        for _ in range(steps):
            number += 1
            state, report = setup.step(state, setup.batch(number) if fresh else fixed, setup.resident)
        jax.block_until_ready(report)
        return time.perf_counter() - began

    run(True), run(False)
    ratios, best = [], float("inf")
    for index in range(rounds):
        first = index % 2 == 0
        times = {first: run(first), (not first): run(not first)}
        ratios.append(times[True] / times[False])
        best = min(best, times[False] / steps)
    return ratios, best


def host_time(setup: Setup, *, repeats: int = 300) -> float:
    """Mean seconds that the host spends on making and sending one batch."""
    began = time.perf_counter()
    for number in range(repeats):
        jax.block_until_ready(setup.batch(number))
    return (time.perf_counter() - began) / repeats


def sampler_ratio(setup: Setup, solver: str, *, rounds: int, num_steps: int) -> list[float]:
    """Ratios of the time of one solver call to NFE times one call of the jitted network."""
    params = setup.init().ema_params
    field = setup.run.field(params)
    u = jax.random.normal(jax.random.key(0), (_SAMPLES, *field.event_shape))
    t = jnp.full(_SAMPLES, 0.5 * (field.process.schedule.t_min + field.process.schedule.t_max))
    times = GRIDS["uniform"](field.process.schedule, num_steps)
    evaluations = SAMPLERS[solver].evaluations(num_steps) or 0
    solve = jax.jit(SAMPLERS[solver].run)
    forward = jax.jit(lambda field, u, t: field(u, t))

    def alone() -> jax.Array:
        for _ in range(evaluations):
            out = forward(field, u, t)
        return out

    def timed(call: Callable[[], jax.Array]) -> float:
        began = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - began

    calls: list[Callable[[], jax.Array]] = [lambda: solve(field, u, times), alone]
    for call in calls:
        timed(call)
    ratios = []
    for index in range(rounds):
        order = calls if index % 2 == 0 else calls[::-1]
        spent = {id(call): timed(call) for call in order}
        ratios.append(spent[id(calls[0])] / spent[id(calls[1])])
    return ratios


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/digits.py:flow_matching,conditional")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    runtime.configure()
    print(f"{arguments.config} on {jax.devices()[0].device_kind}, {len(jax.devices())} device(s)")
    for placement in ("host", "device"):
        choice = config.override(config.load(arguments.config), [("data.placement", placement)])
        with tempfile.TemporaryDirectory() as folder:
            setup = prepare(build.run(choice), Path(folder))
        spread, step = pipeline_ratio(setup, rounds=arguments.rounds, steps=arguments.steps)
        show(f"training step, data on the {placement}: fresh / resident batch", spread)
        host = host_time(setup)
        print(f"  making and sending a batch: {1e3 * host:.3f} ms, {host / step:.2%} of a step of {1e3 * step:.1f} ms")
    for solver in ("euler", "heun"):
        spread = sampler_ratio(setup, solver, rounds=arguments.rounds, num_steps=arguments.steps)
        show(f"{solver}: solver call / NFE x network", spread)


def show(label: str, ratios: list[float]) -> None:
    """Print the median and the quartiles of some ratios."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{label}: {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
