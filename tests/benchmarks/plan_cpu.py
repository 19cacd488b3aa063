"""A plan for this machine's CPU against a run on it: memory and arithmetic, predicted and measured.

    python tests/benchmarks/plan_cpu.py [CONFIG] [KEY=VALUE ...]

Memory: the state and data that lie there, by the sum of all arrays; the temporaries, by how far the peak of the
resident set rises above what is resident before (Linux's VmHWM, reset after compilation) while three steps run.
Arithmetic: the products that are counted over all that XLA counts in the compiled program; and the speed of the
products of a step over that of one large product on the same machine, which must be below 1 and not far below.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from geonoise_jax import runtime

if __name__ == "__main__":
    runtime.configure()

import jax
import jax.numpy as jnp

from geonoise_jax import build, config
from geonoise_jax.planning import figures, programs, stand_in
from geonoise_jax.planning.facts import Compiled, Program
from geonoise_jax.planning.report import size
from geonoise_jax.training import train

STEPS = 3
SIDE = 2048


def status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def compiled_step(setup: train.Setup) -> tuple[Program, jax.stages.Compiled]:
    """The plan of a step, and the program that it is of."""
    kept: list[jax.stages.Compiled] = []

    def finish(name: str, lowered: jax.stages.Lowered) -> Compiled:
        print(f"compiling: {name}", flush=True)
        began = time.perf_counter(), time.process_time()
        kept.append(lowered.compile())
        return programs.said_of(kept[0], (time.perf_counter() - began[0], time.process_time() - began[1]))

    return programs.step(setup, finish, print), kept[0]


def product_rate() -> float:
    """FLOP/s of one large product, the best of five."""
    x = jnp.ones((SIDE, SIDE))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        (x @ x).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(times[1:])


def main(name: str, changes: list[str]) -> None:
    """Print predictions, measurements and ratios."""
    pairs = [(key, value) for key, _, value in (change.partition("=") for change in changes)]
    choice = config.override(config.load(name), pairs)
    setup = train.prepare(build.run(choice, stand_in.arrays(choice)), Path("plan"), jax.devices()[:1])
    step, compiled = compiled_step(setup)
    assert step.compiled is not None
    assert step.compiled.flops is not None
    state, batch = setup.init(), setup.batch(0)
    jax.block_until_ready(state)
    present = sum(leaf.nbytes for leaf in jax.tree.leaves((state, batch, setup.resident)))
    Path("/proc/self/clear_refs").write_text("5")
    before, times = status("VmRSS"), []
    for _ in range(STEPS):
        began = time.perf_counter()
        state, report = compiled(state, batch, setup.resident)
        jax.block_until_ready((state, report))
        times.append(time.perf_counter() - began)
    risen = status("VmHWM") - before
    taken = statistics.median(times)
    used = figures.used(step)
    speed = step.total / taken
    print(f"{name} {' '.join(changes)}: batch {step.batch}, one device")
    print(f"state, data, batch: compiler {size(used.arguments)}, there {size(present)}: {used.arguments / present:.3f}")
    print(f"temporaries: compiler {size(used.temporaries)}, measured {size(risen)}: {used.temporaries / risen:.2f}")
    print(
        f"temporaries: formula {size(step.memory.temporaries)}: {step.memory.temporaries / risen:.2f} of the measured"
    )
    everything = step.compiled.flops
    print(f"products: counted {step.total:.4g}, all by XLA {everything:.4g}: {step.total / everything:.3f}")
    print(f"speed: {speed / 1e9:.1f} GFLOP/s, of one product {(best := product_rate()) / 1e9:.1f}: {speed / best:.2f}")


if __name__ == "__main__":
    words = sys.argv[1:]
    config_name = words.pop(0) if words and "=" not in words[0] else "configs/fashion_mnist.py"
    main(config_name, words)
