"""Paths, conversions, losses and ODE solvers of flow matching, against flow_matching and torchcfm.

Differences that are conventions, not errors:

* Time runs from noise to data there: theirs is 1 - t, and their velocity is minus ours.
* Their adaptive solver is Dormand and Prince's, ours Tsitouras': both are of order 5, and what agrees is the solution,
  to a little more than the tolerance asked of the two.
* torchcfm's ``sigma`` spreads the path around the straight line; with 0 it is the path of flow_matching and ours.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flow_matching.path import AffineProbPath, CondOTProbPath
from flow_matching.path.scheduler import CondOTScheduler, CosineScheduler, VPScheduler
from flow_matching.solver import ODESolver

from geonoise_jax.fields import NetworkField
from geonoise_jax.process import grids
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear, Schedule, Trigonometric, VPLinear
from geonoise_jax.process.targets import Noise, Signal, Target, Velocity
from geonoise_jax.process.times import Uniform
from geonoise_jax.process.weights import Unit
from geonoise_jax.sampling import euler, heun, tsit5
from geonoise_jax.training.losses import Draws, Objective
from tests.parity.agreement import Agree
from tests.parity.mixture import EVENT, estimates, exact_field, start, tensor
from tests.parity.peers import torchcfm
from tests.stub_networks import Stub

PATHS: dict[str, tuple[Schedule, Any]] = {
    "CondOT": (Linear(), CondOTScheduler()),
    "Cosine": (Trigonometric(), CosineScheduler()),
    "VP": (VPLinear(), VPScheduler(beta_min=0.1, beta_max=20.0)),
}
COUNT = 64
TOLERANCE = 1e-9


def draws() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Data, noise and our times."""
    rng = np.random.default_rng(5)
    x, eps = rng.normal(size=(2, COUNT, *EVENT))
    return jnp.asarray(x), jnp.asarray(eps), jnp.asarray(rng.uniform(0.01, 0.99, size=COUNT))


@pytest.mark.parametrize("name", PATHS)
def test_paths(agree: Agree, name: str) -> None:
    (schedule, scheduler), (x, eps, t) = PATHS[name], draws()
    process, path = Process(schedule, Velocity()), AffineProbPath(scheduler)
    point = path.sample(x_0=tensor(eps), x_1=tensor(x), t=tensor(1.0 - t))
    agree("flow_matching", "observation, 3 paths", process.corrupt(x, eps, t), point.x_t)
    agree("flow_matching", "velocity, 3 paths", -process.target(x, eps, t), point.dx_t)


@pytest.mark.parametrize("name", PATHS)
def test_conversions(agree: Agree, name: str) -> None:
    (schedule, scheduler), (prediction, u, t) = PATHS[name], draws()
    path = AffineProbPath(scheduler)
    arrays = {"x_t": tensor(u), "t": tensor(1.0 - t)[:, None, None]}

    def check(target: Target, name: str, sign: float = 1.0) -> None:
        process, given = Process(schedule, target), tensor(prediction)
        x, eps = process.recover(u, sign * prediction, t)
        converted = {"target": x, "epsilon": eps, "velocity": -process.velocity(u, sign * prediction, t)}
        argument = "x_1" if name == "target" else name
        for other, ours in converted.items():
            if other != name:
                theirs = getattr(path, f"{name}_to_{other}")(**{argument: given}, **arrays)
                agree("flow_matching", "conversions of predictions, 3 paths, 6 pairs", ours, theirs)

    check(Signal(), "target")
    check(Noise(), "epsilon")
    check(Velocity(), "velocity", -1.0)


@pytest.mark.parametrize("name", ["ConditionalFlowMatcher", "VariancePreservingConditionalFlowMatcher"])
def test_matchers_of_torchcfm(agree: Agree, name: str) -> None:
    x, eps, t = draws()
    schedule: Schedule = Linear() if name == "ConditionalFlowMatcher" else Trigonometric()
    process = Process(schedule, Velocity())
    matcher = getattr(torchcfm, name)(sigma=0.0)
    _, u, velocity = matcher.sample_location_and_conditional_flow(tensor(eps), tensor(x), tensor(1.0 - t))
    agree("torchcfm", "observation and flow, 2 matchers", process.corrupt(x, eps, t), u)
    agree("torchcfm", "observation and flow, 2 matchers", -process.target(x, eps, t), velocity)


def test_target_matcher_of_torchcfm(agree: Agree) -> None:
    # The path of Lipman et al. (2023), which draws its own noise around t x.
    x, _, t = draws()
    torch.manual_seed(0)
    matcher = torchcfm.TargetConditionalFlowMatcher(sigma=0.0)
    nothing = torch.zeros(x.shape)
    _, u, velocity, eps = matcher.sample_location_and_conditional_flow(
        nothing, tensor(x), tensor(1.0 - t), return_noise=True
    )
    process, noise = Process(Linear(), Velocity()), jnp.asarray(eps.numpy())
    agree("torchcfm", "observation, target matcher", process.corrupt(x, noise, t), u)
    agree("torchcfm", "flow, target matcher", -process.target(x, noise, t), velocity)


def test_loss_and_its_gradient(agree: Agree) -> None:
    x, eps, t = draws()
    weight = np.random.default_rng(6).normal(size=(EVENT[-1], EVENT[-1]))
    process = Process(Linear(), Velocity())

    def network(params: Any, u: jax.Array, feature: jax.Array, _: Any) -> jax.Array:
        return jnp.tanh(u @ params + feature[:, None, None] * Linear().t_max)

    def loss(params: jax.Array) -> jax.Array:
        field = NetworkField(params, Stub(network), process, EVENT, blind=False)
        return Objective(Uniform(0.001, 0.999), Unit(Linear())).loss(field, Draws(x, eps, t, None))

    ours, gradient = jax.value_and_grad(loss)(jnp.asarray(weight))
    params = torch.tensor(weight, requires_grad=True)
    point = CondOTProbPath().sample(x_0=tensor(eps), x_1=tensor(x), t=tensor(1.0 - t))
    predicted = -torch.tanh(point.x_t @ params + (1.0 - point.t)[:, None, None])
    theirs = torch.nn.functional.mse_loss(predicted, point.dx_t)
    theirs.backward()
    agree("flow_matching", "loss and its gradient", ours, theirs.detach())
    agree("flow_matching", "loss and its gradient", gradient, params.grad)


def their_velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The marginal velocity of the mixture in their time."""
    signal, noise = estimates(x, t, 1.0 - t)
    return signal - noise


@pytest.mark.parametrize("target", [Velocity(), Signal()], ids=["velocity", "signal"])
@pytest.mark.parametrize("method", ["euler", "heun2"])
def test_fixed_grids(agree: Agree, method: str, target: Target) -> None:
    u, x = start()
    field, times = exact_field(Linear(), target), grids.uniform(Linear(), 20)
    solver = {"euler": euler, "heun2": heun}[method]
    theirs = ODESolver(their_velocity).sample(x, None, method, time_grid=tensor(1.0 - times))
    agree("flow_matching", f"ODE solver {method}: 2 targets", solver(field, u, times), theirs)


def test_adaptive(agree: Agree) -> None:
    u, x = start()
    field, times = exact_field(Linear(), Velocity()), grids.uniform(Linear(), 1)
    ends = tensor(1.0 - times)
    theirs = ODESolver(their_velocity).sample(x, None, "dopri5", TOLERANCE, TOLERANCE, time_grid=ends)
    ours = tsit5(field, u, times, rtol=TOLERANCE, atol=TOLERANCE)
    assert not ours.statistics["failed"].any()
    agree("flow_matching", "ODE solver dopri5, as tsit5, tolerance 1e-9", ours.u, theirs, 30 * TOLERANCE)
