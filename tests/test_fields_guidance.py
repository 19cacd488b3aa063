"""Classifier-free guidance and sums of fields, against exact densities."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Distribution, Gaussian, Marginal, Mixture
from geonoise_jax.fields import ExactField, Field, GuidedField, NetworkField, SumField
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Target
from tests.exact_laws import whole_range
from tests.stub_networks import Stub

MEANS, VARS = np.array([[1.0, 0.0], [-0.5, 0.8]]), np.array([[0.1, 0.2], [0.3, 0.05]])
CLASS = Gaussian(MEANS[0], VARS[0])
ALL = Mixture(MEANS, VARS, [0.4, 0.6])
LINEAR = Process(schedules.Linear(), targets.Velocity())
PROCESSES = pytest.mark.parametrize(
    ("schedule", "target"),
    [(schedules.VE(), targets.Score()), (schedules.Linear(), targets.Velocity()), (schedules.VE(), targets.Signal())],
    ids=lambda value: type(value).__name__,
)


def exact(law: Distribution, process: Process) -> ExactField:
    return ExactField(Marginal(law, process, whole_range(process.schedule)), blind=False)


def score(field: Field, u: jax.Array, t: jax.Array) -> jax.Array:
    eps = field.process.recover(u, field(u, t), t)[1]
    return -eps / field.process.coeffs(t).b[:, None]


def observations(schedule: Schedule) -> tuple[jax.Array, jax.Array]:
    t = schedule.t_of_eta(jnp.linspace(-2.0, 1.0, 5))
    return jax.random.normal(jax.random.key(0), (5, 2), t.dtype), t


@PROCESSES
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_raises_the_posterior_of_the_class_to_a_power(
    schedule: Schedule, target: Target, scale: float, x64: None
) -> None:
    """The score of p(u) (p(u | class) / p(u))^w, by differentiation of the exact densities."""
    process = Process(schedule, target)
    u, t = observations(schedule)
    guided = GuidedField(exact(CLASS, process), scale, exact(ALL, process))
    k = process.coeffs(t)

    def log_density(u: jax.Array) -> jax.Array:
        whole, part = (law.log_density(u, k.a, k.b) for law in (ALL, CLASS))
        return (whole + scale * (part - whole)).sum()

    np.testing.assert_allclose(score(guided, u, t), jax.grad(log_density)(u), rtol=1e-8, atol=1e-8)


def test_outside_of_the_interval_there_is_no_guidance() -> None:
    conditional, unconditional = exact(CLASS, LINEAR), exact(ALL, LINEAR)
    u, t = jnp.ones((5, 2)), jnp.array([0.1, 0.2, 0.4, 0.5, 0.6])
    guided = GuidedField(conditional, 3.0, unconditional, interval=(0.2, 0.5))(u, t)
    plain, full = conditional(u, t), GuidedField(conditional, 3.0, unconditional)(u, t)
    inside = np.array([False, True, True, True, False])
    np.testing.assert_array_equal(guided[~inside], plain[~inside])
    np.testing.assert_array_equal(guided[inside], full[inside])
    assert np.abs(np.asarray(full - plain)).max(axis=1).min() > 1e-3


def network(blind: bool = True) -> NetworkField:
    """Class y adds y to the params' multiple of u; 3 is the null class."""
    return NetworkField(jnp.asarray(2.0), Stub(lambda p, u, _, y: p * u + y[:, None], 3), LINEAR, (2,), blind)


def test_a_network_is_called_once_on_a_doubled_batch() -> None:
    field = network()
    u, t = jnp.ones((2, 2)), jnp.array([0.1, 0.9])
    scale = jnp.array([1.5, 4.0])  # one per sample
    guided = GuidedField(field, scale).with_labels(jnp.array([0, 2]))
    got = guided(u, t)
    assert field.module.batches == [4]
    # f_null + w (f - f_null), f = 2 u + y, f_null = 2 u + 3
    want = 2.0 + np.array([3 + 1.5 * (0 - 3), 3 + 4.0 * (2 - 3)])[:, None] * np.ones((1, 2))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_new_scale_does_not_retrace() -> None:
    traces: list[Any] = []

    @jax.jit
    def run(field: GuidedField, u: jax.Array, t: jax.Array) -> jax.Array:
        traces.append(field.interval)
        return field(u, t)

    guided = GuidedField(network(), 1.0).with_labels(jnp.array([0, 1]))
    u, t = jnp.ones((2, 2)), jnp.full(2, 0.5)
    results = [run(dataclasses.replace(guided, scale=scale), u, t) for scale in (1.0, 2.0, 3.0)]
    assert len(traces) == 1
    assert not np.allclose(results[0], results[1])


def test_what_guidance_sees_of_the_time() -> None:
    assert GuidedField(network(), 2.0).blind
    assert not GuidedField(network(), 2.0, interval=(0.1, 0.5)).blind
    assert not GuidedField(network(), 2.0, exact(ALL, LINEAR)).blind
    assert not GuidedField(network(blind=False), 2.0).blind
    assert isinstance(GuidedField(network(), 2.0), Field)


def test_what_guidance_refuses() -> None:
    u, t = jnp.ones((2, 2)), jnp.full(2, 0.5)
    unlabelled = dataclasses.replace(network(), module=Stub(lambda _, u, *__: u))
    for field in (network(), unlabelled.with_labels(jnp.zeros(2, jnp.int32))):
        with pytest.raises(ValueError, match="null_field = None: must be a field"):
            GuidedField(field, 2.0)(u, t)
    with pytest.raises(ValueError, match="GuidedField.field = ExactField: must be a NetworkField"):
        GuidedField(exact(CLASS, LINEAR), 2.0)(u, t)
    for interval in ((0.5, 0.5), (0.6, 0.1)):
        with pytest.raises(ValueError, match=r"GuidedField.interval = .*: must be \(lo, hi\) with lo < hi"):
            GuidedField(network(), 2.0, interval=interval)
    other = exact(ALL, Process(schedules.Linear(), targets.Signal()))
    with pytest.raises(ValueError, match="GuidedField: the fields must not differ in process"):
        GuidedField(network(), 2.0, other)


@PROCESSES
def test_sums_are_products_of_densities(schedule: Schedule, target: Target, x64: None) -> None:
    """For any weights if c = 0; for weights that sum to one whatever the target."""
    process = Process(schedule, target)
    weights = (1.3, 0.9) if isinstance(target, targets.Score) else (1.3, -0.3)
    total = SumField((exact(ALL, process), exact(CLASS, process)), weights)
    u, t = observations(schedule)
    k = process.coeffs(t)

    def log_density(u: jax.Array) -> jax.Array:
        whole, part = (law.log_density(u, k.a, k.b).sum() for law in (ALL, CLASS))
        return weights[0] * whole + weights[1] * part

    np.testing.assert_allclose(score(total, u, t), jax.grad(log_density)(u), rtol=1e-8, atol=1e-8)


def energy_field(scale: float) -> NetworkField:
    """Energy scale * |u|^2."""
    return dataclasses.replace(network(), module=Stub(lambda p, u, *_: p * u), params=jnp.asarray(scale), output="dot")


def test_the_energy_of_a_sum_is_the_sum_of_the_energies() -> None:
    total = SumField((energy_field(1.0), energy_field(3.0)), jnp.array([2.0, 0.5]))
    u, t = jnp.array([[1.0, 2.0], [0.5, 0.0]]), jnp.full(2, 0.5)
    np.testing.assert_allclose(total.energy(u), 3.5 * (u**2).sum(1), rtol=1e-6)
    np.testing.assert_allclose(total(u, t), 7.0 * u, rtol=1e-6)
    for weights in (total.weights, (2.0, 0.5)):
        jitted = jax.jit(lambda f, u: f(u, t))(dataclasses.replace(total, weights=weights), u)
        np.testing.assert_allclose(jitted, total(u, t), rtol=1e-6)
    assert total.blind
    assert isinstance(total, Field)
    assert (total.process, total.event_shape) == (LINEAR, (2,))
    assert not SumField((network(), network(blind=False)), (1.0, 1.0)).blind


def test_what_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="SumField.fields = .*: must hold at least one field"):
        SumField((), ())
    with pytest.raises(ValueError, match="SumField: the fields must not differ in event_shape"):
        SumField((network(), dataclasses.replace(network(), event_shape=(3,))), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"SumField.weights = .*: must be 2 numbers, one per field"):
        SumField((network(), network()), (1.0,))
    with pytest.raises(ValueError, match="all of them must have an energy"):
        SumField((exact(ALL, LINEAR), network()), (1.0, 1.0)).energy(jnp.ones((1, 2)))
