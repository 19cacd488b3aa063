"""Fixed-grid solvers of the sampling ODE du/dt = mu(t) u + nu(t) f(u, t), equation (19), under ``lax.scan``.

Both integrate along a decreasing grid of times (``process.grids``) and return the observation at its last time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geonoise_jax.fields import Field

Solver = Callable[[Field, Float[Array, "b *event"], Float[Array, "times"]], Float[Array, "b *event"]]
_Step = Callable[[Callable, Float[Array, "b *event"], Float[Array, ""], Float[Array, ""]], Float[Array, "b *event"]]


def euler(field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"]) -> Float[Array, "b *event"]:
    """Integrate by Euler's method: first order, one field evaluation a step.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.

    Returns:
        Observations at ``times[-1]``.
    """
    return _integrate(_euler_step, field, u, times)[0]


def heun(field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"]) -> Float[Array, "b *event"]:
    """Integrate by Heun's method (explicit trapezoid): second order, two field evaluations a step.

    Args and returns as :func:`euler`. The field is evaluated at ``times[-1]`` too, which every non-singular process
    allows, so that the last step needs no exception.
    """
    return _integrate(_heun_step, field, u, times)[0]


def trajectory(
    solver: str, field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"]
) -> Float[Array, "times b *event"]:
    """Return the observations at every time of the grid, the start included.

    Raises:
        ValueError: if the solver is unknown.
    """
    if solver not in _STEPS:
        raise ValueError(f"solver = {solver!r}: must be one of {', '.join(_STEPS)}")
    return jnp.concatenate([u[None], _integrate(_STEPS[solver], field, u, times, keep=True)[1]])


def _integrate(
    step: _Step, field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"], *, keep: bool = False
) -> tuple[Float[Array, "b *event"], Any]:
    def velocity(u: Float[Array, "b *event"], t: Float[Array, ""]) -> Float[Array, "b *event"]:
        return field.process.velocity(u, field(u, jnp.full(u.shape[0], t, u.dtype)), t)

    def body(u: Array, interval: tuple[Array, Array]) -> tuple[Array, Array | None]:
        u = step(velocity, u, *interval)
        return u, u if keep else None

    times = times.astype(u.dtype)
    return jax.lax.scan(body, u, (times[:-1], times[1:]))


def _euler_step(
    velocity: Callable, u: Float[Array, "b *event"], t: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, "b *event"]:
    return u + (s - t) * velocity(u, t)


def _heun_step(
    velocity: Callable, u: Float[Array, "b *event"], t: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, "b *event"]:
    first = velocity(u, t)
    second = velocity(u + (s - t) * first, s)
    return u + 0.5 * (s - t) * (first + second)


_STEPS: dict[str, _Step] = {"euler": _euler_step, "heun": _heun_step}
SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun}
EVALUATIONS_PER_STEP = {"euler": 1, "heun": 2}
