"""Solvers of the ODE of :mod:`geonoise_jax.sampling.flow` together with integrals along it, one sample at a time.

The adaptive one asks for errors relative to the noise. What a density sees of an error in an observation is its ratio
to the noise level, which grows over many orders of magnitude on the way, while the solvers of diffrax have one
tolerance: they are run on segments in w, each with the tolerance of the noise at its beginning.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from geonoise_jax import checks
from geonoise_jax.sampling.adaptive import diffrax_module

# dy/dw and the derivatives of the integrals, as a function of w and y.
Rates = Callable[[Float[Array, ""], Float[Array, "*event"]], tuple[Float[Array, "*event"], Float[Array, "k"]]]
_TOLERANCE, _NUM_STEPS, _MAX_STEPS = 1e-5, 256, 4096
# Of the run that errors are estimated with.
_COARSER = 10.0
# Length of a segment in w, over which the noise grows at most tenfold.
_SEGMENT = math.log(10.0)
# Of Tsit5: new stages a step; one for the first stage and two for the choice of the first step.
_STAGES, _FIRST = 6, 3


class End(NamedTuple):
    """Where a solver ended.

    Attributes:
        y: the scaled observation.
        integrals: of the rates beside it, between every two nodes.
        evaluations: number of evaluations of the rates.
        arrived: whether it reached the end.
    """

    y: Float[Array, "*event"]
    integrals: Float[Array, "n-1 k"]
    evaluations: Int[Array, ""]
    arrived: Bool[Array, ""]


class Run(NamedTuple):
    """One integration: nodes in w, increasing, and the tolerance of the steps between them."""

    nodes: Float[np.ndarray, "n"]
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Solver:
    """A solver and how precisely it is used.

    Attributes:
        name: a key of ``SOLVES``.
        setting: tolerance of an adaptive solver, number of steps of one on a grid.
    """

    name: str
    setting: float

    def __str__(self) -> str:
        """Return it as words of a protocol."""
        return f"{self.name}, {f'{self.setting:g} steps' if self.name == 'heun' else f'tolerance {self.setting:g}'}"

    def runs(self, breaks: Sequence[float]) -> tuple[Run, Run]:
        """Return the integration whose result counts, and the coarser one that tells its error.

        Args:
            breaks: ends of the range of w and points inside at which the field is not smooth, increasing.
        """
        if self.name == "heun":
            fine, coarse = (np.linspace(breaks[0], breaks[-1], int(self.setting) // by + 1) for by in (1, 2))
            return Run(fine, 0.0), Run(coarse, 0.0)
        parts = [(low, high, max(1, math.ceil((high - low) / _SEGMENT))) for low, high in itertools.pairwise(breaks)]
        nodes = np.concatenate([np.linspace(low, high, num + 1)[:-1] for low, high, num in parts] + [breaks[-1:]])
        return Run(nodes, self.setting), Run(nodes, _COARSER * self.setting)


def chosen(name: str, tolerance: float | None = None, num_steps: int | None = None) -> Solver:
    """Return a solver.

    Args:
        name: ``"tsit5"`` or ``"heun"``.
        tolerance: of ``tsit5``, of a step: in an entry of y relative to the noise in it, and in the integrals; 1e-5 by
            default.
        num_steps: of ``heun``, even, equal in w; 256 by default.

    Raises:
        ValueError: on an unknown name, a value out of its range, or one that the solver has no use for.
    """
    if checks.choice("solver", name, SOLVES) == "heun":
        checks.without_effect("solver = 'heun'", {"tolerance": (tolerance, None)})
        steps = checks.integer("num_steps", _NUM_STEPS if num_steps is None else num_steps, low=2)
        if steps % 2:
            raise checks.refused("num_steps", num_steps, "even: half of them tell the error")
        return Solver(name, steps)
    checks.without_effect(f"solver = {name!r}", {"num_steps": (num_steps, None)})
    diffrax_module()
    given = _TOLERANCE if tolerance is None else tolerance
    return Solver(name, checks.real("tolerance", given, low=0.0, high=0.1, open_low=True))


def tsit5(
    rates: Rates, y: Float[Array, "*event"], num: int, nodes: Float[Array, "n"], tolerance: Float[Array, ""]
) -> End:
    """Integrate by the explicit Runge-Kutta method of Tsitouras (2011), order 5, segment by segment.

    Args:
        rates: dy/dw and the derivatives of ``num`` integrals.
        y: observation at the first node.
        num: number of integrals.
        nodes: edges of the segments.
        tolerance: see :func:`chosen`.
    """
    diffrax = diffrax_module()

    def scaled(w: Float[Array, ""], state: tuple[Array, Array], noise: Float[Array, ""]) -> tuple[Array, Array]:
        dy, others = rates(w, state[0])
        return dy, noise * others

    def segment(state: _State, edge: tuple[Array, Array]) -> tuple[_State, Array]:
        # In units of the noise the integrals have the tolerance of y.
        noise = 1.0 / jnp.cosh(edge[0])
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(scaled),
            diffrax.Tsit5(),
            *edge,
            None,
            (state.y, jnp.zeros(num, y.dtype)),
            args=noise,
            stepsize_controller=diffrax.PIDController(rtol=tolerance * noise, atol=tolerance * noise, norm=_norm),
            max_steps=_MAX_STEPS,
            throw=False,
        )
        new, part = (last[-1] for last in solution.ys)
        steps = solution.stats["num_accepted_steps"] + solution.stats["num_rejected_steps"]
        arrived = state.arrived & (solution.result == diffrax.RESULTS.successful)
        return _State(new, state.evaluations + _STAGES * steps + _FIRST, arrived), part / noise

    return _over_nodes(segment, y, nodes)


def heun(
    rates: Rates,
    y: Float[Array, "*event"],
    num: int,  # noqa: ARG001
    nodes: Float[Array, "n"],
    tolerance: Float[Array, ""],  # noqa: ARG001
) -> End:
    """Integrate by Heun's method, order 2, one step between two nodes; arguments as of :func:`tsit5`."""

    def step(state: _State, edge: tuple[Array, Array]) -> tuple[_State, Array]:
        w, length = edge[0], edge[1] - edge[0]
        first, part = rates(w, state.y)
        second, other = rates(edge[1], state.y + length * first)
        y = state.y + 0.5 * length * (first + second)
        return _State(y, state.evaluations + 2, jnp.isfinite(y).all()), 0.5 * length * (part + other)

    return _over_nodes(step, y, nodes)


SOLVES: dict[str, Callable[..., End]] = {"tsit5": tsit5, "heun": heun}


class _State(NamedTuple):
    y: Float[Array, "*event"]
    evaluations: Int[Array, ""]
    arrived: Bool[Array, ""]


def _over_nodes(
    step: Callable[[_State, tuple[Array, Array]], tuple[_State, Array]], y: Float[Array, "*event"], nodes: Array
) -> End:
    begin = _State(y, jnp.zeros((), int), jnp.ones((), bool))
    last, integrals = jax.lax.scan(step, begin, (nodes[:-1], nodes[1:]))
    return End(last.y, integrals, last.evaluations, last.arrived)


def _norm(state: Any) -> Float[Array, ""]:
    """The larger of the root mean squares of the observation's and the integrals' errors."""
    return jnp.maximum(*(jnp.sqrt(jnp.mean(jnp.square(part))) for part in state))
