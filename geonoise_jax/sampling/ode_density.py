r"""The log density that a field defines through its sampling ODE (Song et al. 2021, section 4.3 and appendix D.2).

With y and w of :mod:`geonoise_jax.sampling.flow`, along the ODE from an observation u at the end time (w_0) to the
start time of sampling (w_1), where the law of y is known:

(1)  log p(u) = log q(y_0) - D log s_0
(2)  log q(y_0) = log q(y_1) + int_{w_0}^{w_1} div(dy/dw) dw

p is the law in which the exact solution of the ODE ends that starts from the law at w_1, which unless another is given
is the one that samplers start from, N(0, b^2). It is the law of noised data only where the field is the conditional
optimum; the ODE of a blind field defines a density too, of its own samples.

Errors. All is computed twice, the second time ten times less precisely (with half the steps). The differences of the
parts, of q(y_1) and of the integral piece by piece, are added up without sign and stated as the error, an overestimate
where the solver converges, with a bound on what rounding of u and of the sums moves. What the field itself rounds is
not in it: an exact field of data on a manifold needs float64, above all its derivatives at low noise. Random probes
have a standard error of their own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.fields import Field
from geonoise_jax.process.keys import root_key, threefry
from geonoise_jax.process.process import check_start
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling import divergence as divergences
from geonoise_jax.sampling import flow, flow_solvers, given
from geonoise_jax.sampling.adaptive import split_labels
from geonoise_jax.sampling.batches import batches, size_of
from geonoise_jax.sampling.divergence import Divergence
from geonoise_jax.sampling.flow_solvers import SOLVES, End, Solver
from geonoise_jax.sampling.planning import sampled_range

_ROUNDING = 4.0

_LogPrior = Callable[[Float[Array, "b *event"]], Float[Any, "b"]]


class LogDensity(NamedTuple):
    """Log densities of observations at the end time, in nats, on the host.

    Attributes:
        values: log p(u); NaN where the solver did not arrive.
        error: estimated error of the integration, see the module docstring.
        probe_error: standard error over the probes; 0 of an exact trace, infinite of a single probe.
        evaluations: evaluations of the field, each with its divergence.
        failed: whether the solver did not arrive.
        protocol: how they were computed and what they are densities of, in words.
    """

    values: Float[np.ndarray, "b"]
    error: Float[np.ndarray, "b"]
    probe_error: Float[np.ndarray, "b"]
    evaluations: Int[np.ndarray, "b"]
    failed: Int[np.ndarray, "b"]
    protocol: str


def ode_log_density(
    field: Field,
    u: Float[np.ndarray | Array, "b *event"],
    key: Key[Array, ""] | None = None,
    *,
    solver: str = "tsit5",
    tolerance: float | None = None,
    num_steps: int | None = None,
    divergence: str = "auto",
    probes: int | None = None,
    noise: str | None = None,
    start_time: float | None = None,
    end_time: float | None = None,
    prior: Callable[[Float[Array, "b *event"]], Float[Array, "b"]] | None = None,
    labels: Int[np.ndarray | Array, "b"] | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> LogDensity:
    """Return the log density of observations at the end time of sampling, of the law that a field's ODE samples.

    The density of samples x = u / a is that of u = a x, plus D log a: :func:`geonoise_jax.evaluation.log_likelihood`.
    The value of observation i depends on (u_i, key, i) alone, but for rounding.

    Args:
        field: any Field: exact or trained, blind or conditional.
        u: observations at the end time, floats.
        key: PRNG key of the probes, needed if there are some.
        solver: ``"tsit5"``, adaptive, through diffrax; or ``"heun"`` with equal steps in w.
        tolerance: of ``tsit5``: error of a step in an entry of the observation, relative to its noise, and in the log
            density, in nats a dimension; 1e-5 by default.
        num_steps: of ``heun``, even; 256 by default.
        divergence: ``"exact"``, ``"hutchinson"``, or ``"auto"``: exact up to 32 dimensions.
        probes: number of probes of each observation; 8 by default.
        noise: their entries, ``"rademacher"`` by default, or ``"gaussian"``.
        start_time: time at which the law is known, where sampling starts; by default the schedule's t_max.
        end_time: time of the observations, where sampling ends; by default the schedule's t_min.
        prior: log density of observations at the start time, in nats; by default that of N(0, b^2), from which
            samplers start, which needs a negligible signal there.
        labels: class of each observation, for a class-conditional network.
        batch_size: observations computed at once; all by default. It is rounded up to a multiple of the devices.
        mesh: devices to shard each batch over.
        on_batch: called as ``on_batch(done, num)`` after each batch.

    Raises:
        ValueError: on an unknown word, a value out of its range, an argument without effect, no key although there are
            probes, u or labels of another type or shape, an end time without noise, or a signal at the start time that
            is not negligible without a prior.
        UserError: if diffrax is needed and not installed.
    """
    given.field(field)
    given.model_space("u", u, ("b", *field.event_shape))
    num = checks.integer("len(u)", len(u), low=1)
    if labels is not None:
        given.labels("labels", labels, num)
    trace = divergences.chosen(math.prod(field.event_shape), divergence, probes, noise)
    if key is not None:
        given.key(key)
    elif trace.probes:
        raise refused("key", None, f"a PRNG key, such as jax.random.key(0), of the {trace}")
    plan = _plan(field, flow_solvers.chosen(solver, tolerance, num_steps), trace, start_time, end_time)
    log_prior = _sampler_start(plan) if prior is None else prior
    rows, own = np.asarray(u).astype(jnp.result_type(float)), threefry(root_key(0) if key is None else key)
    parts = []
    with in_one_warning():
        for start, size, batch in batches(own, num, size_of(num, batch_size, mesh), mesh, rows, labels):
            parts.append(_of_batch(field, plan, log_prior, *batch))
            if on_batch is not None:
                on_batch(start + size, num)
    whole = _Part(*(np.concatenate(each)[:num] for each in zip(*parts, strict=True)))
    return LogDensity(
        np.where(whole.arrived, whole.values.mean(axis=1), np.nan),
        np.where(whole.arrived, whole.error, np.inf),
        _probe_error(whole.values, trace),
        whole.evaluations,
        (~whole.arrived).astype(int),
        _protocol(field, plan, prior is not None),
    )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is the same for all observations.

    Attributes:
        within: the schedule from the end time, its t_min, to the start time, its t_max.
        solver: how the ODE is solved.
        trace: how the divergence is found.
        end, start: the ends in the variables of the flow.
        breaks: w at the ends and where the field is not smooth.
        dim: number D of entries of an observation.
    """

    within: Schedule
    solver: Solver
    trace: Divergence
    end: flow.Point
    start: flow.Point
    breaks: tuple[float, ...]
    dim: int


def _plan(field: Field, solver: Solver, trace: Divergence, start_time: float | None, end_time: float | None) -> _Plan:
    within = sampled_range(field.process.schedule, start_time, end_time)
    corners = (*field.process.parameterization.kinks, *(getattr(field, "interval", None) or ()))
    inside = sorted(t for t in corners if within.t_min < t < within.t_max)
    end, *between, start = (flow.point(within, t) for t in (within.t_min, *inside, within.t_max))
    breaks = tuple(point.w for point in (end, *between, start))
    return _Plan(within, solver, trace, end, start, breaks, math.prod(field.event_shape))


class _Part(NamedTuple):
    """One batch: log densities by estimates of the trace, and the rest of :class:`LogDensity`."""

    values: Float[np.ndarray, "b estimates"]
    error: Float[np.ndarray, "b"]
    evaluations: Int[np.ndarray, "b"]
    arrived: Bool[np.ndarray, "b"]


def _of_batch(
    field: Field, plan: _Plan, log_prior: _LogPrior, keys: Key[Array, "b"], u: Float[Array, "b *event"], classes: Any
) -> _Part:
    starts, integrals, evaluations, arrived = [], [], np.zeros(len(u), int), np.ones(len(u), bool)
    for run in plan.solver.runs(plan.breaks):
        settings = [jnp.asarray(each, u.dtype) for each in run]
        last, end = _integrate(
            field, u, keys, classes, *settings, within=plan.within, solver=plan.solver.name, trace=plan.trace
        )
        starts.append(np.asarray(log_prior(last), np.float64))
        checks.shape("prior(u)", starts[-1], (len(u),))
        integrals.append(plan.dim * np.asarray(end.integrals, np.float64))
        evaluations += np.asarray(end.evaluations)
        arrived &= np.asarray(end.arrived)
    integral = integrals[0].sum(axis=1)
    values = starts[0][:, None] + plan.dim * math.log(plan.start.s / plan.end.s) + integral
    rounding = _rounding(plan, np.asarray(u), np.abs(starts[0]) + np.abs(integral).max(axis=1))
    error = np.abs(starts[0] - starts[1]) + _difference(*integrals) + rounding
    return _Part(values, error, evaluations, arrived & np.isfinite(values).all(axis=1))


def _difference(fine: Float[np.ndarray, "b n k"], coarse: Float[np.ndarray, "b m k"]) -> Float[np.ndarray, "b"]:
    """Return by how much the integrals between the nodes that two runs share differ, summed, so that none cancel."""
    shared = fine.reshape(len(fine), coarse.shape[1], -1, fine.shape[2]).sum(axis=2)
    return np.abs((shared - coarse).mean(axis=2)).sum(axis=1)


@functools.partial(jax.jit, static_argnames=("within", "solver", "trace"))
def _integrate(
    field: Any,
    u: Float[Array, "b *event"],
    keys: Key[Array, "b"],
    classes: Int[Array, "b"] | None,
    nodes: Float[Array, "n"],
    tolerance: Float[Array, ""],
    coarser: Float[Array, ""],
    *,
    within: Schedule,
    solver: str,
    trace: Divergence,
) -> tuple[Float[Array, "b *event"], End]:
    """Return the observations at the start time, and the integrals of the divergence over D."""
    if classes is not None:
        field = field.with_labels(classes)
    labels, with_labels = split_labels(field)
    low, high = (jnp.hypot(*within.scales(jnp.asarray(t, u.dtype))) for t in (within.t_min, within.t_max))

    def solve(u: Float[Array, "*event"], key: Key[Array, ""], labels: list[Int[Array, "1"]]) -> End:
        own, vectors = with_labels(labels), trace.vectors(key, u.shape, u.dtype)

        def rates(w: Float[Array, ""], y: Float[Array, "*event"]) -> tuple[Array, Array]:
            dy, products = divergences.products(functools.partial(flow.velocity, own, within, w), y, vectors)
            return dy, trace.traces(products) / u.size

        return SOLVES[solver](rates, u / low, trace.estimates, nodes, tolerance, coarser)

    end = jax.vmap(solve)(u, keys, [each[:, None] for each in labels])
    return high * end.y, end


def _sampler_start(plan: _Plan) -> _LogPrior:
    """Return the log density of N(0, b^2), from which samplers start.

    Raises:
        ValueError: if the signal at the start is not negligible.
    """
    try:
        check_start(plan.within)
    except UserError as error:
        raise UserError(f"prior = None: must be the log density of observations at the start ({error})") from error
    b = plan.start.b

    def log_density(u: Float[Array, "b *event"]) -> Float[np.ndarray, "b"]:
        z = np.asarray(u, np.float64).reshape(len(u), -1) / b
        return -0.5 * np.square(z).sum(axis=1) - plan.dim * (0.5 * math.log(2.0 * math.pi) + math.log(b))

    return log_density


def _rounding(plan: _Plan, u: Float[np.ndarray, "b *event"], size: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """Bound what rounding moves: the sum, and u itself, whose score is at most about sqrt(D) / b."""
    length = np.sqrt(np.square(u.reshape(len(u), -1).astype(np.float64)).sum(axis=1))
    return _ROUNDING * float(np.finfo(u.dtype).eps) * (size + length / plan.end.b)


def _probe_error(values: Float[np.ndarray, "b estimates"], trace: Divergence) -> Float[np.ndarray, "b"]:
    if trace.probes > 1:
        return values.std(axis=1, ddof=1) / math.sqrt(trace.probes)
    return np.full(len(values), math.inf if trace.probes else 0.0)


def _protocol(field: Field, plan: _Plan, own_prior: bool) -> str:
    """Say how the density is computed and of what it is one."""
    kind = "density of the ODE that the blind field defines" if field.blind else "density of the probability-flow ODE"
    end, start = plan.end, plan.start
    law = "the given prior" if own_prior else f"N(0, {start.b:g}^2), a = {start.a:.2g} taken for 0"
    return (
        f"{kind}, from t = {plan.within.t_min:g} (a = {end.a:.6g}, b = {end.b:.3g}) to t = {plan.within.t_max:g}, "
        f"{law}; {plan.solver}; {plan.trace}"
    )
