"""Fixed-grid solvers of the sampling ODE du/dt = mu(t) u + nu(t) f(u, t), equation (19), in the schedule's own time."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float

from geonoise_jax import checks
from geonoise_jax.fields import Field
from geonoise_jax.sampling.discrete import ddim_step
from geonoise_jax.sampling.stepping import evaluate, march, recording

_Step = Callable[
    [Field, Float[Array, "b *event"], Float[Array, ""], Float[Array, ""]],
    Float[Array, "b *event"],
]


def euler(field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"]) -> Float[Array, "b *event"]:
    """Integrate by Euler's method: first order, one field evaluation a step.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.

    Returns:
        Observations at ``times[-1]``.
    """
    return march(lambda u, at: _euler_step(field, u, at.t, at.s), u, times.astype(u.dtype))


def heun(field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"]) -> Float[Array, "b *event"]:
    """Integrate by Heun's method (explicit trapezoid): second order, two field evaluations a step.

    Args and returns as :func:`euler`. The field is evaluated at ``times[-1]`` too, which every non-singular process
    allows, so that the last step needs no exception.
    """
    return march(lambda u, at: _heun_step(field, u, at.t, at.s), u, times.astype(u.dtype))


def trajectory(
    solver: str, field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"]
) -> Float[Array, "times b *event"]:
    """Return the observations at every time of the grid, the start included.

    Args:
        solver: a deterministic one-step sampler: ``"euler"``, ``"heun"`` or ``"ddim"``.
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.

    Raises:
        ValueError: if the solver is unknown.
    """
    step = _STEPS[checks.choice("solver", solver, _STEPS)]
    with recording(True) as paths:
        march(lambda u, at: step(field, u, at.t, at.s), u, times.astype(u.dtype))
    return paths[0]


def _velocity(field: Field, u: Float[Array, "b *event"], t: Float[Array, ""]) -> Float[Array, "b *event"]:
    return field.process.velocity(u, evaluate(field, u, t), t)


def _euler_step(
    field: Field, u: Float[Array, "b *event"], t: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, "b *event"]:
    return u + (s - t) * _velocity(field, u, t)


def _heun_step(
    field: Field, u: Float[Array, "b *event"], t: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, "b *event"]:
    first = _velocity(field, u, t)
    second = _velocity(field, u + (s - t) * first, s)
    return u + 0.5 * (s - t) * (first + second)


_STEPS: dict[str, _Step] = {"euler": _euler_step, "heun": _heun_step, "ddim": ddim_step}
