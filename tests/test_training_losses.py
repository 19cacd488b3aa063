"""Training objectives: the loss of a preconditioned network, and dual score matching."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geonoise_jax.exact import Mixture
from geonoise_jax.fields import DensityField, NetworkField, Preconditioner
from geonoise_jax.nets import ResidualMLP
from geonoise_jax.process import schedules, targets, times, weights
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.training.dual_score import DualScore, time_target
from geonoise_jax.training.losses import Draws, Objective
from geonoise_jax.training.state import init_params
from tests.stub_networks import Stub

SIGMA = 0.7
ALL_SCHEDULES = pytest.mark.parametrize("schedule", [cls() for cls in SCHEDULES], ids=lambda s: type(s).__name__)


def law(schedule: Schedule) -> times.Uniform:
    return times.Uniform(schedule.t_min, schedule.t_max)


@pytest.mark.parametrize(
    ("schedule", "target"),
    [(schedules.VE(), targets.Signal()), (schedules.Linear(), targets.Velocity())],
    ids=lambda value: type(value).__name__,
)
def test_the_weighted_loss_of_a_preconditioned_network_is_that_of_what_is_inside(
    schedule: Schedule, target: targets.Target, x64: None
) -> None:
    inside = Stub(lambda p, v, *_: jnp.sin(p * v))
    process, precondition = Process(schedule, target), Preconditioner(SIGMA)
    field = NetworkField(jnp.asarray(2.0), inside, process, (3,), False, preconditioner=precondition)
    objective = Objective(law(schedule), weights.Preconditioned(schedule, target, SIGMA))
    draws = objective.draw(jax.random.key(0), SIGMA * jax.random.normal(jax.random.key(1), (8, 3)), None)
    k = process.coeffs(draws.t)
    a, b, sign = k.a[:, None], k.b[:, None], jnp.sign(k.det)[:, None]
    size = jnp.sqrt((a * SIGMA) ** 2 + b**2)
    wanted = sign * (a * SIGMA * draws.eps - b * draws.x / SIGMA) / size
    error = jnp.sin(2.0 * (a * draws.x + b * draws.eps) / size) - wanted
    np.testing.assert_allclose(objective.loss(field, draws), jnp.mean(error**2), rtol=1e-9)


@ALL_SCHEDULES
def test_the_time_target_is_the_derivative_of_the_corruption_kernels_energy(schedule: Schedule, x64: None) -> None:
    t = jnp.asarray(schedule.t_min + (schedule.t_max - schedule.t_min) * np.array([0.1, 0.35, 0.75, 0.95]))
    x, eps = jax.random.normal(jax.random.key(0), (2, 4, 2, 3), t.dtype)
    process = Process(schedule, targets.Noise())
    u = process.corrupt(x, eps, t)

    def energy(t: jax.Array) -> jax.Array:
        a, b = (scale[:, None, None] for scale in schedule.scales(t))
        return (0.5 * ((u - a * x) / b) ** 2 + jnp.log(b)).sum()

    got = time_target(Draws(x, eps, t, None), process.coeffs(t))
    np.testing.assert_allclose(got, jax.grad(energy)(t), rtol=1e-9)


def quadrature(schedule: Schedule, num: int = 24, dim: int = 1) -> tuple[Draws, jax.Array]:
    """Nodes and weights for x ~ N(0, SIGMA^2 I), eps ~ N(0, I) and four noise levels: exact means of polynomials."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(num)
    normal = np.stack(np.meshgrid(*[nodes] * 2 * dim, indexing="ij"), axis=-1).reshape(-1, 2 * dim)
    weight = np.stack(np.meshgrid(*[mass] * 2 * dim, indexing="ij"), axis=-1).reshape(-1, 2 * dim).prod(axis=1)
    t = np.asarray(schedule.t_of_eta(jnp.array([-2.0, -0.5, 0.5, 1.5])))
    x, eps = (jnp.asarray(part).repeat(4, axis=0) for part in (SIGMA * normal[:, :dim], normal[:, dim:]))
    draws = Draws(x, eps, jnp.asarray(np.tile(t, len(normal))), None)
    return draws, jnp.asarray(weight / weight.sum() / 4).repeat(4)


def perturbed(p: jax.Array, v: jax.Array, feature: jax.Array, _: Any) -> jax.Array:
    """Polynomials in u and the noise level."""
    eta = 400.0 * feature[:, None]
    return p[0] * v**2 + p[1] * v * eta + p[2] * eta + p[3] * v**4 * eta**2


def dual(schedule: Schedule, time_weight: float = 0.8) -> DualScore:
    return DualScore(law(schedule), weights.Unit(schedule), sigma_data=SIGMA, time_weight=time_weight)


@pytest.mark.parametrize(
    "schedule", [schedules.VE(), schedules.VPLinear(), schedules.Linear()], ids=lambda s: type(s).__name__
)
def test_the_exact_density_is_the_minimum_of_the_dual_score_loss(schedule: Schedule, x64: None) -> None:
    """For Gaussian data the unperturbed field is exact: its gradient is 0, and the excess loss is the mean square of
    what a perturbation adds to each of the two scores."""
    process = Process(schedule, targets.Noise())
    field = DensityField(jnp.zeros(4), Stub(perturbed), process, (1,), False, preconditioner=Preconditioner(SIGMA))
    draws, weight = quadrature(schedule)
    objective = dual(schedule)

    def loss(params: jax.Array) -> jax.Array:
        return weight @ objective.per_sample(dataclasses.replace(field, params=params), draws)

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.zeros(4)), 0.0, atol=1e-10)
    params = jnp.array([0.3, -0.2, 0.5, 0.01])
    k, u = process.coeffs(draws.t), process.corrupt(draws.x, draws.eps, draws.t)
    exact, other = (f.scores(u, draws.t) for f in (field, dataclasses.replace(field, params=params)))
    scale = 2 * (k.db / k.b) ** 2 + (k.da * SIGMA / k.b) ** 2
    excess = (k.b * (other[0] - exact[0])[:, 0]) ** 2 + 0.8 * (other[1] - exact[1]) ** 2 / (2 * scale)
    np.testing.assert_allclose(loss(params) - loss(jnp.zeros(4)), weight @ excess, rtol=1e-8)


@ALL_SCHEDULES
def test_the_scale_of_both_errors(schedule: Schedule, x64: None) -> None:
    """Of a field whose scores are 0, for data of the stated size, at each noise level: 1 and 1 / 2D."""
    process = Process(schedule, targets.Noise())
    zero = DensityField(None, Stub(lambda _, u, *__: 0 * u), process, (2,), False, preconditioner=None)
    draws, weight = quadrature(schedule, num=3, dim=2)
    for error, scale in zip(dual(schedule).errors(zero, draws), (1.0, 0.25), strict=True):
        per_level = (weight * error).reshape(-1, 4).sum(0) / weight.reshape(-1, 4).sum(0)
        np.testing.assert_allclose(per_level, scale, rtol=1e-9)


def test_the_loss_is_the_weighted_sum_of_both_errors() -> None:
    schedule = schedules.VE()
    process = Process(schedule, targets.Noise())
    field = DensityField(None, Stub(lambda _, u, *__: jnp.sin(u)), process, (3,), False)
    objective = dataclasses.replace(dual(schedule, 0.25), loss_weight=weights.NoisePower(schedule, 0.5))
    draws = objective.draw(jax.random.key(0), jax.random.normal(jax.random.key(1), (5, 3)), None)
    space, time = objective.errors(field, draws)
    np.testing.assert_allclose(
        objective.loss(field, draws), jnp.mean(jnp.sqrt(draws.t) * (space + 0.25 * time)), rtol=1e-6
    )


def test_what_dual_score_matching_refuses() -> None:
    schedule = schedules.VE()
    for name, value in (("sigma_data", 0.0), ("time_weight", -1.0), ("label_dropout", 2.0)):
        with pytest.raises(ValueError, match=f"{name} = {value}"):
            dataclasses.replace(dual(schedule), **{name: value})  # type: ignore[arg-type]
    field = NetworkField(None, Stub(lambda _, u, *__: u), Process(schedule, targets.Noise()), (3,), False)
    draws = dual(schedule).draw(jax.random.key(0), jnp.zeros((2, 3)), None)
    with pytest.raises(ValueError, match="field is a NetworkField: dual score matching needs a DensityField"):
        dual(schedule).loss(field, draws)


@pytest.mark.slow
def test_a_trained_density_is_normalised_at_all_noise_levels() -> None:
    """A mixture in two dimensions. Without the time score the constants of the noise levels drift by several nats."""
    data = Mixture([[1.0, 0.0], [-1.0, 0.3]], [[0.04, 0.04], [0.09, 0.02]], [0.3, 0.7])
    schedule = schedules.VPLinear(t_min=0.01)
    net = ResidualMLP(width=64, depth=2)
    params = init_params(net, (2,), jax.random.key(1))
    field = DensityField(
        params, net, Process(schedule, targets.Noise()), (2,), False, preconditioner=Preconditioner(0.7)
    )
    objective = DualScore(law(schedule), weights.Unit(schedule), sigma_data=0.7)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, 1500))

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        key_x, key_draw = jax.random.split(key)
        draws = objective.draw(key_draw, data.sample(key_x, 256), None)
        grads = jax.grad(lambda p: objective.loss(dataclasses.replace(field, params=p), draws))(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(3), 1500)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, optimizer.init(params)))
    learnt = dataclasses.replace(field, params=params).normalised(jax.random.key(9))
    for level in (0.01, 0.1, 0.3, 0.6):
        t = jnp.full(512, level)
        u = field.process.corrupt(
            data.sample(jax.random.key(5), 512), jax.random.normal(jax.random.key(6), (512, 2)), t
        )
        k = field.process.coeffs(t)
        error = np.asarray(learnt.log_density(u, t) - data.log_density(u, k.a, k.b))
        assert abs(error.mean()) < 0.1
        assert error.std() < 0.35
