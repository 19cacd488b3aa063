"""Identities of the exact fields on every schedule x target x law."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Marginal
from geonoise_jax.exact.results import posterior_mode
from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process
from tests.exact_laws import laws, queries, whole_range

pytestmark = pytest.mark.usefixtures("x64")

NAMES = ("FiniteSet", "Gaussian", "Mixture", "Subspace", "Circles")
QUICK = ("FiniteSet", "Circles")


def make_schedule(cls: type[schedules.Schedule]) -> schedules.Schedule:
    return cls(t_min=1.0, t_max=48.0) if cls is schedules.VPDiscrete else cls()


def relative(error: jax.Array, *sizes: jax.Array) -> float:
    return float(jnp.abs(error).max() / max(jnp.abs(size).max() for size in sizes))


@pytest.mark.filterwarnings("ignore:integrals over the noise level")
@pytest.mark.parametrize(
    "cls",
    [cls if cls is schedules.VPDiscrete else pytest.param(cls, marks=pytest.mark.slow) for cls in schedules.SCHEDULES],
    ids=[cls.__name__ for cls in schedules.SCHEDULES],
)
def test_decomposition_and_tweedie(cls: type[schedules.Schedule]) -> None:
    """The decomposition holds node by node, so a rough quadrature shows it as well as a fine one."""
    schedule, u, tested = make_schedule(cls), jnp.asarray(queries()), 0
    t = 0.7 * schedule.t_min + 0.3 * schedule.t_max if cls is not schedules.VPDiscrete else 13.0
    for (name, law), target in itertools.product(laws().items(), targets.TARGETS):
        try:
            process = Process(schedule, target())
        except ValueError:
            continue
        marginal = Marginal(law, process, whole_range(schedule), accuracy=1e-2, adaptive=False)
        parts = marginal.decompose(u)
        vectors = parts.natural, parts.transport, parts.drift
        assert relative(sum(vectors) - parts.field, *vectors) < 1e-12, (name, target)
        assert relative(parts.gain[:, None] * parts.energy_grad - parts.natural, parts.natural) < 1e-12
        k = process.coeffs(t)
        denoised, grad = marginal.denoiser(u, t), marginal.energy_grad_at(u, t)
        assert relative(k.a * denoised - (u - k.b**2 * grad), u) < 1e-12, (name, target)
        expected = k.d / k.b * u + (k.c - k.d * k.a / k.b) * denoised
        assert relative(marginal.conditional_field(u, t) - expected, k.d / k.b * u, expected) < 1e-12, (name, target)
        tested += 1
    assert tested >= 30


@pytest.mark.parametrize("name", QUICK)
def test_gain_and_drift_scale_of_flow_matching_and_equilibrium_matching_are_tied(name: str) -> None:
    """lambda + c/a is -1 for the velocity of the linear schedule, and -t for its equilibrium target."""
    law, u = laws()[name], jnp.asarray(queries())
    schedule, time_law = schedules.Linear(), times.Uniform(1e-3, 0.999)
    flow = Marginal(law, Process(schedule, targets.Velocity()), time_law).decompose(u)
    np.testing.assert_allclose(flow.gain + flow.drift_scale, -1.0, rtol=1e-12)
    equilibrium = Marginal(law, Process(schedule, targets.Equilibrium()), time_law)
    parts = equilibrium.decompose(u)
    np.testing.assert_allclose(parts.gain + parts.drift_scale, -equilibrium.posterior(u).mean, rtol=1e-12)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_fields_are_gradients_of_the_densities(name: str) -> None:
    law, u = laws()[name], jnp.asarray(queries())
    schedule = schedules.Linear()
    marginal = Marginal(law, Process(schedule, targets.Velocity()), times.Uniform(1e-3, 0.999))
    a, b, _, _ = schedule.coeffs(0.2)
    score = jax.grad(lambda u: law.log_density(u, a, b).sum())(u)
    np.testing.assert_allclose(marginal.energy_grad_at(u, 0.2), -score, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(marginal.energy_grad(u), jax.grad(lambda u: marginal.energy(u).sum())(u), rtol=1e-10)
    v, h = jnp.asarray(queries(seed=5)), 1e-6
    difference = (marginal.energy_grad(u + h * v) - marginal.energy_grad(u - h * v)) / (2 * h)
    np.testing.assert_allclose(marginal.energy_hvp(u, v), difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", QUICK)
def test_blind_field_is_the_posterior_average_of_the_conditional_one(name: str) -> None:
    """Against a dense trapezoid rule in t that knows nothing of log-SNR, windows or panels."""
    law, u = laws()[name], jnp.asarray(queries())
    process = Process(schedules.VPLinear(t_min=0.05), targets.VPrediction())
    time_law = times.LogitNormal(0.0, 1.0, 0.05, 1.0)
    weight = lambda t: 1.0 + t  # noqa: E731
    marginal = Marginal(law, process, time_law, weight)
    t = jnp.linspace(time_law.lo, time_law.hi, 10001)
    many = jnp.repeat(u[:1], len(t), axis=0)
    k = process.coeffs(t)
    prior = np.asarray(time_law.density(t) * weight(t))
    density = np.exp(law.log_density(many, k.a, k.b)) * prior / np.trapezoid(prior, t)
    evidence = np.trapezoid(density, t)
    average = np.trapezoid(density[:, None] * np.asarray(marginal.conditional_field(many, t)), t, axis=0) / evidence
    np.testing.assert_allclose(marginal.field(u)[0], average, rtol=2e-7, atol=2e-7)
    np.testing.assert_allclose(marginal.log_density(u)[0], np.log(evidence), rtol=1e-7)
    posterior = marginal.posterior(u)
    np.testing.assert_allclose(posterior.mean[0], np.trapezoid(density * t, t) / evidence, rtol=1e-7)
    np.testing.assert_allclose(
        posterior.density[0], np.interp(posterior.t[0], t, density / evidence), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(posterior.mode[0], t[density.argmax()], atol=2e-3)


def test_mode_is_the_vertex_of_a_parabola_and_the_last_node_beside_unused_ones() -> None:
    t = jnp.array([0.1, 0.2, 0.35, 0.6, 0.8])
    parabola, unused = -((t - 0.3) ** 2), -jnp.inf
    rising = [unused, -2.0, -1.0, 0.0, unused]
    alone = [unused, unused, 0.0, unused, unused]
    falling = [unused, 0.0, -1.0, -2.0, unused]
    density = jnp.stack([parabola, *map(jnp.asarray, (rising, alone, falling))])
    np.testing.assert_allclose(posterior_mode(jnp.tile(t, (4, 1)), density), [0.3, 0.6, 0.35, 0.2], rtol=1e-12)


def test_discrete_law_is_a_plain_sum() -> None:
    law, u = laws()["Mixture"], jnp.asarray(queries())
    schedule = schedules.VPDiscrete(t_min=3.0, t_max=40.0)
    marginal = Marginal(law, Process(schedule, targets.Noise()), times.Discrete(5, 40), lambda t: 1.0 / t)
    t = jnp.arange(5.0, 41.0)
    prior = (1.0 / t) / (1.0 / t).sum()
    k = schedule.coeffs(t)
    density = (
        jnp.stack([jnp.exp(law.log_density(u, a, b)) for a, b in zip(k.a, k.b, strict=True)], axis=1) * prior[None]
    )
    evidence = density.sum(axis=1)
    posterior = marginal.posterior(u)
    np.testing.assert_allclose(posterior.weights, density / evidence[:, None], rtol=1e-10)
    np.testing.assert_array_equal(posterior.t[0], t)
    np.testing.assert_array_equal(posterior.mode, t[density.argmax(axis=1)])
    np.testing.assert_allclose(marginal.log_density(u), jnp.log(evidence), rtol=1e-12)
    fields = jnp.stack([marginal.conditional_field(u, float(s)) for s in t], axis=1)
    np.testing.assert_allclose(marginal.field(u), (posterior.weights[..., None] * fields).sum(1), rtol=1e-10)


@pytest.mark.parametrize("name", ["FiniteSet", "Circles"])
def test_jit_does_not_retrace_for_new_values_and_agrees(name: str) -> None:
    process = Process(schedules.Linear(), targets.Equilibrium())
    traces: list[None] = []

    @jax.jit
    def field(marginal: Marginal, u: jax.Array) -> jax.Array:
        traces.append(None)
        return marginal.field(u)

    u = jnp.asarray(queries())
    for scale in (1.0, 2.0):
        law = jax.tree.map(lambda x, scale=scale: scale * x if x.ndim == 1 else x, laws()[name])
        marginal = Marginal(law, process, times.Uniform(1e-3, 0.999))
        np.testing.assert_allclose(field(marginal, u), marginal.field(u), rtol=1e-9, atol=1e-12)
    assert len(traces) == 1
