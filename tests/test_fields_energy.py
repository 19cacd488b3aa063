"""Energies made of networks, and the energy that is a log density."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.fields import ENERGIES, DensityField, ExactField, Field, NetworkField, Preconditioner
from geonoise_jax.fields.base import EnergyField
from geonoise_jax.nets import Network, ResidualMLP, UNet
from geonoise_jax.process import schedules, targets, times, weights
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Target
from geonoise_jax.training.losses import Draws, Objective
from geonoise_jax.training.state import init_params
from tests.exact_laws import whole_range
from tests.stub_networks import Stub

SIGMA = 0.7
EQM = Process(schedules.Linear(), targets.Equilibrium())
FORMS = pytest.mark.parametrize("form", ENERGIES)


def fresh(net: Network, event_shape: tuple[int, ...], **options: Any) -> NetworkField:
    params = init_params(net, event_shape, jax.random.key(0))
    return NetworkField(params, net, EQM, event_shape, not net.conditional, **options)


def trained(field: NetworkField) -> NetworkField:
    """The same network with random parameters: a fresh one predicts 0 whatever the input."""
    leaves, structure = jax.tree.flatten(field.params)
    rng = np.random.default_rng(1)
    params = [jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype) for leaf in leaves]
    return dataclasses.replace(field, params=jax.tree.unflatten(structure, params))


def mlp(form: str, *, blind: bool = True, **options: Any) -> NetworkField:
    net = ResidualMLP(width=8, depth=1, conditional=not blind, dtype="float64")
    return trained(fresh(net, (3,), output=form, **options))


@jax.jit
def jacobian(field: Any, u: jax.Array, t: jax.Array) -> jax.Array:
    return jax.vmap(jax.jacfwd(lambda u, t: field(u[None], t[None])[0]))(u, t)


@pytest.mark.parametrize("options", [{}, {"blind": False}, {"blind": False, "preconditioner": Preconditioner(SIGMA)}])
@pytest.mark.parametrize("form", ["direct", *ENERGIES])
def test_the_field_of_an_energy_is_free_of_curl(form: str, options: dict[str, Any], x64: None) -> None:
    u, t = jax.random.normal(jax.random.key(0), (4, 3), jnp.float64), jnp.array([0.1, 0.3, 0.6, 0.9])
    slopes = np.asarray(jacobian(mlp(form, **options), u, t))
    size, curl = np.abs(slopes).max(), np.abs(slopes - slopes.transpose(0, 2, 1)).max()
    assert size > 0.01
    assert (curl > 1e-2 * size) if form == "direct" else (curl < 1e-11 * size)


@FORMS
def test_energies_of_a_linear_network(form: str, x64: None) -> None:
    matrix = jax.random.normal(jax.random.key(0), (3, 3))
    u, t = jax.random.normal(jax.random.key(1), (4, 3)), jnp.full(4, 0.5)
    field = NetworkField(matrix, Stub(lambda p, u, *_: u @ p.T), EQM, (3,), True, output=form)
    want = {
        "dot": (jnp.einsum("bi,ij,bj->b", u, matrix, u), u @ (matrix + matrix.T)),
        "l2": (0.5 * ((u + u @ matrix.T) ** 2).sum(1), (u + u @ matrix.T) @ (jnp.eye(3) + matrix)),
        "affine": (
            jnp.einsum("bi,ij,bj->b", u, matrix, u) / 2 + (u @ matrix.T).mean(1),
            u @ (matrix + matrix.T) / 2 + matrix.mean(0, keepdims=True),
        ),
    }[form]
    np.testing.assert_allclose(field.energy(u), want[0], rtol=1e-12)
    np.testing.assert_allclose(field(u, t), want[1], rtol=1e-12)
    assert isinstance(field, EnergyField)


def loss_and_gradient(field: NetworkField, draws: Draws) -> Callable[[Any], tuple[jax.Array, Any]]:
    objective = Objective(times.Uniform(0.1, 0.9), weights.Unit(field.process.schedule))
    return jax.jit(jax.value_and_grad(lambda params: objective.loss(dataclasses.replace(field, params=params), draws)))


def draws(event_shape: tuple[int, ...]) -> Draws:
    x, eps = jax.random.normal(jax.random.key(2), (2, 4, *event_shape))
    return Draws(x, eps, jnp.array([0.2, 0.4, 0.6, 0.8]), None)


@FORMS
def test_training_moves_a_fresh_energy(form: str) -> None:
    """Its last layer is zero: that must not be a stationary point, as it is for |g|^2 / 2."""
    field = fresh(ResidualMLP(width=8, depth=1), (3,), output=form)
    _, slopes = loss_and_gradient(field, draws((3,)))(field.params)
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes))
    assert 1e-3 < size < 1e3


@pytest.mark.slow
def test_a_u_net_can_be_trained_through_its_gradient() -> None:
    """Against the loss along the gradient, by central differences."""
    net = UNet(base_channels=4, channel_multipliers=(1,), blocks_per_level=1, middle_attention=False, conditional=False)
    field = trained(fresh(net, (4, 4, 1), output="dot"))
    function = loss_and_gradient(field, draws((4, 4, 1)))
    slopes = function(field.params)[1]
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slopes)))
    up, down = (
        function(jax.tree.map(lambda p, g, h=step: p + h * g / norm, field.params, slopes))[0] for step in (2e-3, -2e-3)
    )
    np.testing.assert_allclose((up - down) / 4e-3, norm, rtol=2e-2)


def test_who_has_no_energy() -> None:
    with pytest.raises(ValueError, match="output = 'direct': must be one of dot, l2, affine"):
        NetworkField(None, Stub(lambda _, u, *__: u), EQM, (3,), True).energy(jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="t = None: must be the noise levels"):
        NetworkField(None, Stub(lambda _, u, *__: u), EQM, (3,), False, output="dot").energy(jnp.ones((1, 3)))


ZERO = Stub(lambda _, u, *__: 0 * u)
PROCESSES = pytest.mark.parametrize(
    ("schedule", "target"),
    [
        (schedules.VE(), targets.Score()),
        (schedules.VPLinear(), targets.Noise()),
        (schedules.Linear(), targets.Velocity()),
    ],
    ids=lambda value: type(value).__name__,
)


def density(process: Process, module: Any = ZERO, **options: Any) -> DensityField:
    return DensityField(None, module, process, (3,), False, preconditioner=Preconditioner(SIGMA), **options)


@PROCESSES
def test_a_density_corrects_the_gaussian_of_every_noise_level(schedule: Schedule, target: Target, x64: None) -> None:
    process, law = Process(schedule, target), Gaussian(np.zeros(3), np.full(3, SIGMA**2))
    t = schedule.t_of_eta(jnp.linspace(-3.0, 3.0, 5))
    u = jax.random.normal(jax.random.key(0), (5, 3), t.dtype)
    field, k = density(process), process.coeffs(t)
    np.testing.assert_allclose(field.log_density(u, t), law.log_density(u, k.a, k.b), rtol=1e-10)
    exact = ExactField(Marginal(law, process, whole_range(schedule)), blind=False)
    np.testing.assert_allclose(field(u, t), exact(u, t), rtol=1e-9, atol=1e-12)
    assert isinstance(field, Field)


@PROCESSES
def test_the_energy_and_its_two_scores_belong_together(schedule: Schedule, target: Target, x64: None) -> None:
    """For a correction that depends on u and t: both scores by differences, the field by what it predicts of eps."""
    field = density(Process(schedule, target), Stub(lambda _, v, f, __: jnp.sin(v + 100 * f[:, None])))
    t = schedule.t_of_eta(jnp.linspace(-2.0, 2.0, 4))
    u = jax.random.normal(jax.random.key(0), (4, 3), t.dtype)
    in_space, in_time = field.scores(u, t)
    step = 1e-6
    along = jnp.array([[0.3, -0.5, 0.8]])
    slope = (field.energy(u + step * along, t) - field.energy(u - step * along, t)) / (2 * step)
    np.testing.assert_allclose((in_space * along).sum(1), slope, rtol=1e-6)
    slope = (field.energy(u, t + step * t) - field.energy(u, t - step * t)) / (2 * step * t)
    np.testing.assert_allclose(in_time, slope, rtol=1e-6)
    eps = field.process.recover(u, field(u, t), t)[1]
    np.testing.assert_allclose(eps, field.process.coeffs(t).b[:, None] * in_space, rtol=1e-9)


@PROCESSES
def test_normalisation_finds_the_constant(schedule: Schedule, target: Target, x64: None) -> None:
    """The correction is the same number at all noise levels: (a sigma / b) e = 2.5, at e = 2.5 b / (a sigma)."""

    def correction(_: None, v: jax.Array, feature: jax.Array, __: None) -> jax.Array:
        pairing = v / 2 + 1 / 3
        return 2.5 * jnp.exp(400 * feature)[:, None] / SIGMA * pairing / (pairing**2).sum(1, keepdims=True)

    constant = Stub(correction)
    process = Process(schedule, target)
    shifted, exact = density(process, constant), density(process)
    t = schedule.t_of_eta(jnp.linspace(-2.0, 2.0, 4))
    u = jax.random.normal(jax.random.key(0), (4, 3), t.dtype)
    np.testing.assert_allclose(shifted.log_density(u, t), exact.log_density(u, t) - 2.5, rtol=1e-9)
    normalised = shifted.normalised(jax.random.key(1), 8)
    np.testing.assert_allclose(normalised.log_density(u, t), exact.log_density(u, t), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(lambda f: f.log_density(u, t))(normalised), normalised.log_density(u, t))
    np.testing.assert_array_equal(normalised(u, t), shifted(u, t))


def test_what_a_density_refuses() -> None:
    process = Process(schedules.VE(), targets.Noise())
    for options, message in (
        ({"output": "direct"}, "DensityField.output = 'direct': must be an energy"),
        ({"reads_as": targets.Signal()}, r"DensityField.reads_as = Signal\(\): must be EnergyGradient\(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            density(process, **options)
    with pytest.raises(ValueError, match="DensityField.blind = True"):
        dataclasses.replace(density(process), blind=True)
    labelled = density(process, labels=jnp.zeros(1, jnp.int32))
    for refused in (
        lambda: labelled.log_density(jnp.ones((1, 3)), jnp.ones(1)),
        lambda: labelled.normalised(jax.random.key(0)),
    ):
        with pytest.raises(ValueError, match="labels = .*: must be None"):
            refused()
    with pytest.raises(ValueError, match="num = 0: must be an integer >= 1"):
        density(process).normalised(jax.random.key(0), 0)
    short = Process(schedules.VE(t_max=2.0), targets.Noise())
    with pytest.raises(ValueError, match="is not negligible"):
        density(short).normalised(jax.random.key(0))
