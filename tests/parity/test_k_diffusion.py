"""Algorithms 1 and 2 of Karras et al. (2022), their grids, and solvers in sigma, against k-diffusion.

Differences that are conventions, not errors:

* The peer samples u / a in sigma = b / a. On other schedules ours are compared there too.
* Its grids end with sigma = 0, and the step there is one of Euler's method: the estimate of x, ours by
  ``denoise=True``. The churn of Algorithm 2 raises that last step too, if ``s_tmin`` is below the last sigma; ours
  never raises it, and the tests set ``s_tmin`` between.
* Ours never raises the level beyond the schedule's t_max; the peer does, and the tests give the schedule that room.
* It draws noise in every step, used or not; ours is numbered by the step.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from geonoise_jax.fields import Field
from geonoise_jax.process import grids
from geonoise_jax.process.schedules import VE, Linear, Schedule, Trigonometric, VPLinear
from geonoise_jax.process.targets import EDMNetwork, Noise, Signal, Target, Velocity
from geonoise_jax.sampling import ddim, dpmpp_2m, edm_churn, euler, heun
from tests.parity.agreement import Agree
from tests.parity.mixture import estimates, exact_field, fresh_noise, keys, start, tensor
from tests.parity.peers import draw_from, k_sampling

LEVELS = 18
ROOM = VE(t_min=0.002, t_max=120.0)
TARGETS: tuple[Target, ...] = (Signal(), Noise(), EDMNetwork())
OTHERS: tuple[Schedule, ...] = (Linear(t_min=0.01), VPLinear(), Trigonometric(t_min=0.01))


def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The peer's denoiser."""
    return estimates(x, 1.0, sigma[0])[0]


def sigmas() -> torch.Tensor:
    """Its grid of the published CIFAR setting, ending with 0."""
    return k_sampling.get_sigmas_karras(LEVELS, 0.002, 80.0)


def to_clean(field: Field, u: Any, times: Any) -> Any:
    """The last step, of Euler's method in sigma to sigma = 0."""
    return ddim(field, u, jnp.append(times[-1:], 0.0))


def on_schedule(field: Field) -> tuple[Any, torch.Tensor, Any, torch.Tensor]:
    """Times, their sigmas ending with 0, and the two starts, for a schedule that is not in sigma."""
    schedule = field.process.schedule
    times = grids.log_snr(schedule, LEVELS - 1)
    a, b = schedule.scales(times)
    ours, _ = start(float(b[0]))
    return times, tensor(jnp.append(b / a, 0.0)), ours, tensor(ours / a[0])


@pytest.mark.parametrize("exponent", [7.0, 3.0])
def test_grids(agree: Agree, exponent: float) -> None:
    theirs = k_sampling.get_sigmas_karras(LEVELS, 0.002, 80.0, exponent)[:-1]
    agree("k-diffusion", "grid: rho (Karras)", grids.rho(VE(), LEVELS - 1, exponent=exponent), theirs)
    theirs = k_sampling.get_sigmas_exponential(LEVELS, 0.002, 80.0)[:-1]
    agree("k-diffusion", "grid: exponential, as log-SNR", grids.log_snr(VE(), LEVELS - 1), theirs)
    vp = VPLinear(t_min=1e-3, t_max=1.0)
    theirs = k_sampling.get_sigmas_vp(LEVELS, 19.9, 0.1, 1e-3)[:-1]
    agree("k-diffusion", "grid: sigma of VP in uniform time", jnp.exp(vp.eta(grids.uniform(vp, LEVELS - 1))), theirs)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_deterministic(agree: Agree, target: Target) -> None:
    u, x = start(80.0)
    field, times = exact_field(VE(), target), grids.rho(VE(), LEVELS - 1)
    theirs = k_sampling.sample_heun(model, x, sigmas(), disable=True)
    agree("k-diffusion", "EDM Algorithm 1: 3 targets", to_clean(field, heun(field, u, times), times), theirs)
    ours = to_clean(field, edm_churn(field, u, times, keys(), s_churn=0.0), times)
    agree("k-diffusion", "EDM Algorithm 1: 3 targets", ours, theirs)
    theirs = k_sampling.sample_euler(model, x, sigmas(), disable=True)
    agree("k-diffusion", "Euler in sigma: 3 targets", to_clean(field, euler(field, u, times), times), theirs)
    agree("k-diffusion", "Euler in sigma: 3 targets", ddim(field, u, jnp.append(times, 0.0)), theirs)
    theirs = k_sampling.sample_dpmpp_2m(model, x, sigmas(), disable=True)
    agree("k-diffusion", "DPM-Solver++(2M), EDM: 3 targets", dpmpp_2m(field, u, jnp.append(times, 0.0)), theirs)


@pytest.mark.parametrize("schedule", OTHERS, ids=lambda schedule: type(schedule).__name__)
def test_deterministic_on_other_schedules(agree: Agree, schedule: Schedule) -> None:
    field = exact_field(schedule, Velocity())
    times, levels, u, x = on_schedule(field)
    theirs = k_sampling.sample_heun(model, x, levels, disable=True)
    ours = to_clean(field, edm_churn(field, u, times, keys(), s_churn=0.0), times)
    agree("k-diffusion", "EDM Algorithm 1 on 3 other schedules", ours, theirs)
    theirs = k_sampling.sample_dpmpp_2m(model, x, levels, disable=True)
    ours = dpmpp_2m(field, u, jnp.append(times, 0.0))
    agree("k-diffusion", "DPM-Solver++(2M) on 3 other schedules", ours, theirs)


@pytest.mark.parametrize("s_tmax", [np.inf, 50.0])
@pytest.mark.parametrize("s_noise", [1.0, 1.007])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_churn_at_its_limit(
    monkeypatch: pytest.MonkeyPatch, agree: Agree, target: Target, s_noise: float, s_tmax: float
) -> None:
    u, x = start(80.0)
    options = {"s_churn": 1e3, "s_tmin": 0.01, "s_tmax": s_tmax, "s_noise": s_noise}
    draw_from(monkeypatch, k_sampling, fresh_noise(LEVELS))
    theirs = k_sampling.sample_heun(model, x, sigmas(), disable=True, **options)
    field, times = exact_field(ROOM, target), grids.rho(VE(), LEVELS - 1)
    ours = to_clean(field, edm_churn(field, u, times, keys(), **options), times)
    agree("k-diffusion", "EDM Algorithm 2, largest churn: 3 targets", ours, theirs)


@pytest.mark.parametrize("schedule", OTHERS, ids=lambda schedule: type(schedule).__name__)
def test_churn_on_other_schedules(monkeypatch: pytest.MonkeyPatch, agree: Agree, schedule: Schedule) -> None:
    field = exact_field(schedule, Velocity())
    times, levels, u, x = on_schedule(field)
    # Churn below the first level only: raised, that one would leave the schedule.
    options = {"s_churn": 1e3, "s_tmin": 1.5 * float(levels[-2]), "s_tmax": 0.5 * float(levels[0])}
    draw_from(monkeypatch, k_sampling, fresh_noise(LEVELS))
    theirs = k_sampling.sample_heun(model, x, levels, disable=True, **options)
    ours = to_clean(field, edm_churn(field, u, times, keys(), **options), times)
    agree("k-diffusion", "EDM Algorithm 2 on 3 other schedules", ours, theirs)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_ancestral(agree: Agree, target: Target, eta: float) -> None:
    u, x = start(80.0)
    noise = iter(fresh_noise(LEVELS))
    theirs = k_sampling.sample_euler_ancestral(
        model, x, sigmas(), disable=True, eta=eta, noise_sampler=lambda *_: next(noise)
    )
    field, times = exact_field(VE(), target), jnp.append(grids.rho(VE(), LEVELS - 1), 0.0)
    agree(
        "k-diffusion", "ancestral in sigma, as DDIM: 2 eta, 3 targets", ddim(field, u, times, keys(), eta=eta), theirs
    )
