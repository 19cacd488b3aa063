"""Adaptive solvers of the sampling ODE du/dt = mu(t) u + nu(t) f(u, t), equation (19), through diffrax.

Every sample chooses its own steps; the loop over a batch ends with its slowest sample. diffrax is imported when a
solver is first used: ``pip install -e '.[adaptive]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.sampling.outcome import Outcome

# Of Tsit5: six new stages a step, the last of which serves the next step; one for the very first stage and two for
# the choice of the first step.
_STAGES, _FIRST = 6, 3


def tsit5(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    max_steps: int = 1024,
) -> Outcome:
    """Integrate by the explicit Runge-Kutta method of Tsitouras (2011), order 5.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: decreasing times, of which the first and the last count.
        rtol: tolerance of the error of a step, relative to the observation.
        atol: tolerance of the error of a step, absolute.
        max_steps: limit of accepted and rejected steps together.

    Returns:
        Observations at ``times[-1]``. Statistics, each [b]: ``evaluations``, ``steps`` (accepted), ``rejected``, and
        ``failed``, which is 1 where the sample did not reach ``times[-1]``, by ``max_steps`` or by numbers that are
        not finite; its u is then what it had come to.

    Raises:
        ImportError: if diffrax is not installed.
        ValueError: if a tolerance is not positive or ``max_steps`` is below 1.
    """
    outcome = _solve(lambda diffrax: diffrax.Tsit5(), field, u, times, rtol, atol, max_steps)
    steps = outcome.statistics["steps"] + outcome.statistics["rejected"]
    return Outcome(outcome.u, {"evaluations": _STAGES * steps + _FIRST, **outcome.statistics})


def kvaerno5(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    max_steps: int = 1024,
) -> Outcome:
    """Integrate by the diagonally implicit Runge-Kutta method of Kvaerno (2004), order 5, for stiff fields.

    Each step forms and factors the Jacobian of the field in the event, so it is meant for events of few dimensions.
    Args, returns and raises as :func:`tsit5`, without ``evaluations``: the iterations of the implicit stages are not
    known to the caller.
    """
    return _solve(lambda diffrax: diffrax.Kvaerno5(), field, u, times, rtol, atol, max_steps)


def _solve(
    method: Callable[[ModuleType], Any],
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    rtol: float,
    atol: float,
    max_steps: int,
) -> Outcome:
    checks.real("rtol", rtol, low=0.0, open_low=True)
    checks.real("atol", atol, low=0.0, open_low=True)
    checks.integer("max_steps", max_steps, low=1)
    diffrax = diffrax_module()
    solver, times = method(diffrax), times.astype(u.dtype)
    controller: Any = diffrax.PIDController(rtol=rtol, atol=atol)
    kinks = field.process.parameterization.kinks
    if kinks:
        controller = diffrax.ClipStepSizeController(controller, step_ts=jnp.asarray(kinks, u.dtype))

    labels, with_labels = split_labels(field)

    def solve(u: Float[Array, "*event"], labels: list[Int[Array, "1"]]) -> tuple[Array, dict[str, Array]]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_velocity_of_one(with_labels(labels))),
            solver,
            times[0],
            times[-1],
            None,
            u,
            stepsize_controller=controller,
            max_steps=max_steps,
            throw=False,
        )
        last, stats = solution.ys[-1], solution.stats
        reached = solution.result == diffrax.RESULTS.successful
        counts = {"steps": stats["num_accepted_steps"], "rejected": stats["num_rejected_steps"], "failed": ~reached}
        return last, {name: count.astype(u.dtype) for name, count in counts.items()}

    return Outcome(*jax.vmap(solve)(u, [each[:, None] for each in labels]))


def _velocity_of_one(
    field: Field,
) -> Callable[[Float[Array, ""], Float[Array, "*event"], Any], Float[Array, "*event"]]:
    """Return the velocity of a single sample, as diffrax calls it."""

    def velocity(t: Float[Array, ""], u: Float[Array, "*event"], _: Any) -> Float[Array, "*event"]:
        return field.process.velocity(u, field(u[None], t[None])[0], t)

    return velocity


def split_labels(field: Field) -> tuple[list[Int[Array, "b"]], Callable[[list[Int[Array, "1"]]], Field]]:
    """Return the labels anywhere inside a field, and the field as a function of them.

    They are what a field holds per sample; everything else is shared by the batch.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(field)
    places = [place for place, (path, _) in enumerate(paths) if getattr(path[-1], "name", None) == "labels"]
    leaves = [leaf for _, leaf in paths]

    def with_labels(labels: list[Int[Array, "1"]]) -> Field:
        replaced = dict(zip(places, labels, strict=True))
        return jax.tree.unflatten(structure, [replaced.get(place, leaf) for place, leaf in enumerate(leaves)])

    return [leaves[place] for place in places], with_labels


def diffrax_module() -> ModuleType:
    """Return diffrax.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import diffrax
    except ImportError as error:
        raise UserError("the adaptive solvers tsit5 and kvaerno5 need diffrax: pip install -e '.[adaptive]'") from error
    return diffrax
