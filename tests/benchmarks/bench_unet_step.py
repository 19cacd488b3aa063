"""Time of a U-Net training step with the folded and with the textbook group normalisation.

    .venv/bin/python tests/benchmarks/bench_unet_step.py [--rounds 15] [--batch 64] [--cases 8x8x1]

Both steps (forward, backward, Adam) are compiled first and then run in turns, so that a busy machine slows both alike;
the ratio is the median over rounds of folded / textbook. For steady figures leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from geonoise_jax.nets import UNet, layers, unet

CASES = {"8x8x1": (8, 8, 1), "28x28x1": (28, 28, 1)}


class TextbookGroupNorm(nn.Module):
    """`flax.linen.GroupNorm` (two-pass variance) followed by the modulation as a step of its own."""

    dtype: str | np.dtype | type = "float32"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        modulation: tuple[Float[Array, "b c"], Float[Array, "b c"]] | None = None,
    ) -> Float[Array, "b h w c"]:
        """Normalise x, then modulate."""
        groups = layers.group_count(x.shape[-1])
        x = nn.GroupNorm(groups, epsilon=self.epsilon, use_fast_variance=False, dtype=self.dtype)(x)
        if modulation is None:
            return x
        scale, shift = (v[:, None, None, :] for v in modulation)
        return x * (1.0 + scale) + shift


def compiled_step(net: UNet, shape: tuple[int, ...], textbook: bool) -> tuple[Callable[[], None], float]:
    """A closure that runs one training step to completion, and the seconds its compilation took."""
    with ExitStack() as stack:
        if textbook:
            for module in (layers, unet):
                stack.enter_context(mock.patch.object(module, "GroupNorm", TextbookGroupNorm))
        u = jax.random.normal(jax.random.key(0), shape)
        t = jnp.linspace(0.0, 1.0, shape[0])
        params = _random_params(net, u, t)
        optimizer = optax.adam(1e-4)

        def step(carry: tuple[optax.Params, optax.OptState]) -> tuple[optax.Params, optax.OptState]:
            params, state = carry
            grads = jax.grad(lambda p: jnp.mean(jnp.square(jnp.asarray(net.apply(p, u, t)) - u)))(params)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        carry = (params, optimizer.init(params))
        start = time.perf_counter()
        run = jax.jit(step, donate_argnums=0).lower(carry).compile()
        seconds = time.perf_counter() - start

    def one_step() -> None:
        nonlocal carry
        carry = jax.block_until_ready(run(carry))

    return one_step, seconds


def _random_params(net: UNet, u: Array, t: Array) -> optax.Params:
    """Small random values of the right shapes, without compiling the network's initialisation."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), u, t)
    return jax.tree.map(lambda s: jnp.asarray(0.05 * rng.standard_normal(s.shape), s.dtype), shapes)


def timed(one_step: Callable[[], None]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    one_step()
    return time.perf_counter() - start


def measure(net: UNet, shape: tuple[int, ...], rounds: int, seconds: float) -> str:
    """One row of the table: compile times, median step times, median ratio."""
    folded, folded_compile = compiled_step(net, shape, textbook=False)
    textbook, textbook_compile = compiled_step(net, shape, textbook=True)
    pairs: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    for i in range(rounds + 1):
        pair = (timed(folded), timed(textbook))
        if i > 0:  # the first round warms up
            pairs.append(pair)
        if pairs and time.perf_counter() > deadline:
            break
    ratio = median(a / b for a, b in pairs)
    a, b = (1e3 * median(column) for column in zip(*pairs, strict=True))
    return f"{a:8.1f} {b:9.1f} {ratio:7.2f} {len(pairs):7d} {folded_compile:8.1f} {textbook_compile:9.1f}"


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each kind")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=40.0, help="stop a case after this time")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    net = UNet(base_channels=32, channel_multipliers=(1, 2, 2), blocks_per_level=2)
    print(f"{jax.default_backend()}, batch {args.batch}, base 32, multipliers (1, 2, 2), 2 blocks")
    print(f"{'':8} {'step ms':>18} {'':15} {'compile s':>18}")
    print(f"{'image':8} {'folded':>8} {'textbook':>9} {'ratio':>7} {'rounds':>7} {'folded':>8} {'textbook':>9}")
    for name in args.cases:
        print(f"{name:8} {measure(net, (args.batch, *CASES[name]), args.rounds, args.seconds)}", flush=True)


if __name__ == "__main__":
    main()
