"""Accuracy of the blind field in float32, near and far from the data, beside a plain matrix-product version.

    python tests/benchmarks/bench_exact_float32.py

2,000 points uniform in [-1, 1]^3072; u = (1 - b) x + b eps. Errors are relative to float64, in the max norm.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Velocity
from geonoise_jax.process.times import Uniform

COUNT, DIM, REPEATS = 2000, 3072, 4
LEVELS = (0.001, 0.002, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
PROCESS, LAW = Process(Linear(), Velocity()), Uniform(1e-3, 0.999)


def plain(points: jax.Array, u: jax.Array, t: jax.Array, spacing: jax.Array) -> jax.Array:
    """The same average over t, with all distances from one matrix product ``u . x``."""
    product, square = u @ points.T, (points * points).sum(-1)
    own = (u * u).sum(-1)
    log_weight, fields = [], []
    for i in range(t.shape[1]):
        a, b = 1 - t[:, i], t[:, i]
        distance = own[:, None] - 2 * a[:, None] * product + (a * a)[:, None] * square[None]
        z = -0.5 * distance / (b * b)[:, None]
        log_weight.append(jax.nn.logsumexp(z, axis=1) - DIM * jnp.log(b) + jnp.log(spacing[:, i]))
        fields.append((u - jax.nn.softmax(z, axis=1) @ points) / b[:, None])
    weight = jax.nn.softmax(jnp.stack(log_weight, axis=1), axis=1)
    return (weight[..., None] * jnp.stack(fields, axis=1)).sum(axis=1)


def main() -> None:
    """Run the benchmark."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, size=(COUNT, DIM)).astype(np.float32)
    b = np.repeat(LEVELS, REPEATS)[:, None]
    u = ((1 - b) * points[rng.integers(0, COUNT, len(b))] + b * rng.normal(size=(len(b), DIM))).astype(np.float32)
    marginal = Marginal(FiniteSet(points), PROCESS, LAW)
    field = marginal.field(jnp.asarray(u))
    with jax.enable_x64(True):
        fine = Marginal(FiniteSet(points.astype(np.float64)), PROCESS, LAW, accuracy=1e-8)
        exact = np.asarray(fine.field(jnp.asarray(u, jnp.float64)))
        posterior = fine.posterior(jnp.asarray(u, jnp.float64))
        spacing = posterior.weights / posterior.density
    rough = plain(*(jnp.asarray(x, jnp.float32) for x in (points, u, posterior.t, spacing)))

    def errors(value: jax.Array) -> np.ndarray:
        relative = np.abs(np.asarray(value, np.float64) - exact).max(axis=1) / np.abs(exact).max(axis=1)
        return relative.reshape(len(LEVELS), REPEATS).max(axis=1)

    print(f"N = {COUNT}, D = {DIM}; largest relative error of {REPEATS} fields in float32")
    print("      b   this package   plain matrix product")
    for level, mine, other in zip(LEVELS, errors(field), errors(rough), strict=True):
        print(f"{level:7.3f}   {mine:12.1e}   {other:20.1e}")


if __name__ == "__main__":
    main()
