"""The ODE solvers of diffusers: DPM-Solver++(2M), Euler, Heun, flow matching's Euler, and the VE predictor.

Differences that are conventions, not errors:

* The solvers of Euler and Heun live in sigma = b / a, on u / a: ours are then those of the VE schedule. Euler's method
  there is DDIM on any schedule, which the same samples show.
* All end at sigma = 0 by an Euler step; our Heun evaluates the field at its last time, so that there it ends at the
  last sigma before 0 and the step to 0 is one more, as ``denoise=True`` makes it.
* DPM-Solver++(2M) lowers the order of its last step if that goes to sigma = 0, or if there are fewer than 15 steps;
  ours if it is asked to (and to sigma = 0, where the step is infinitely long).
* Trailing spacing starts cosine betas at sigma = 2e4 beside 12 one step later: a step of Heun's method multiplies the
  rounding of its second stage by 800 there, so that it is compared with leading spacing.
* Timesteps are handed to the model in float32 or as integers. The mixture is evaluated at the sigmas instead.
* The VE predictor's times and its corrector's step from norms averaged over the batch are not compared: ours depends
  on each sample alone.
"""

from __future__ import annotations

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_sde_ve import ScoreSdeVeScheduler

from geonoise_jax.process import grids
from geonoise_jax.process.schedules import VE, Linear
from geonoise_jax.process.targets import EDMNetwork, Noise, Score, Signal, Velocity, VPrediction
from geonoise_jax.sampling import ddim, dpmpp_2m, euler, heun, predictor_corrector
from tests.parity.agreement import Agree
from tests.parity.mixture import estimates, exact_field, fresh_noise, keys, start
from tests.parity.peers import draw_from, in_float64
from tests.parity.test_diffusers_discrete import BETAS, SHORT, TARGETS, prediction

WIDE = VE(t_min=1e-4, t_max=1e4)


def scales(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise scale of variance-preserving observations."""
    a = (sigma**2 + 1) ** -0.5
    return a, sigma * a


def steps_of(scheduler: Any, model: Any, u: torch.Tensor) -> torch.Tensor:
    """Sample as the peer's pipelines do, with a model that is told the index of the noise level."""
    for number, timestep in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(u, timestep) if hasattr(scheduler, "scale_model_input") else u
        u = scheduler.step(model(scaled, scheduler.sigmas[number]), timestep, u).prev_sample
    return u


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("last", ["zero", "sigma_min"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", TARGETS)
def test_dpm_solver_2m_on_vp(
    monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, betas: str, last: str, steps: int
) -> None:
    ours, theirs = start()
    scheduler = in_float64(monkeypatch, DPMSolverMultistepScheduler)(
        beta_schedule=betas,
        prediction_type=kind,
        timestep_spacing="leading",
        steps_offset=1,
        final_sigmas_type=last,
    )
    scheduler.set_timesteps(steps)
    theirs = steps_of(scheduler, lambda u, sigma: prediction(kind, u, *scales(sigma)), theirs)
    times = np.append(scheduler.timesteps.numpy() + 1.0, {"zero": 0.0, "sigma_min": 1.0}[last])
    field = exact_field(BETAS[betas], TARGETS[kind])
    ours = dpmpp_2m(field, ours, jnp.asarray(times), lower_order_final=last == "zero" or steps < 15)
    agree("diffusers", f"DPM-Solver++(2M), VP, {SHORT[betas]}: 3 targets, 2 ends", ours, theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_dpm_solver_2m_on_flows(monkeypatch: pytest.MonkeyPatch, agree: Agree, shift: float) -> None:
    ours, theirs = start()
    scheduler = in_float64(monkeypatch, DPMSolverMultistepScheduler)(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(20)
    theirs = steps_of(scheduler, velocity, theirs)
    ours = dpmpp_2m(exact_field(Linear(), Velocity()), ours, jnp.asarray(scheduler.sigmas.numpy()))
    agree("diffusers", "DPM-Solver++(2M), flow", ours, theirs)


def test_dpm_solver_2m_of_edm(monkeypatch: pytest.MonkeyPatch, agree: Agree) -> None:
    ours, theirs = start(80.0)
    scheduler = in_float64(monkeypatch, EDMDPMSolverMultistepScheduler)()
    scheduler.set_timesteps(20)

    def network(scaled: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        total = (sigma**2 + 0.25).sqrt()
        u = scaled * total
        x, _ = estimates(u, 1.0, sigma)
        return (x - 0.25 / total**2 * u) * total / (0.5 * sigma)

    theirs = steps_of(scheduler, network, theirs)
    ours = dpmpp_2m(exact_field(VE(), EDMNetwork()), ours, jnp.asarray(scheduler.sigmas.numpy()))
    agree("diffusers", "DPM-Solver++(2M), EDM preconditioned", ours, theirs)


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", TARGETS)
def test_euler(monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, betas: str, karras: bool) -> None:
    scheduler = in_float64(monkeypatch, EulerDiscreteScheduler)(
        beta_schedule=betas, prediction_type=kind, timestep_spacing="trailing", use_karras_sigmas=karras
    )
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.numpy()
    u, x = start(float(sigmas[0]))
    theirs = steps_of(scheduler, lambda u, sigma: prediction(kind, u, *scales(sigma)), x)
    ours = euler(exact_field(WIDE, TARGETS[kind]), u, jnp.asarray(sigmas))
    agree("diffusers", f"Euler in sigma, {SHORT[betas]}: 3 targets, 2 grids", ours, theirs)
    if not karras:
        vp = exact_field(BETAS[betas], TARGETS[kind])
        times = jnp.append(jnp.asarray(scheduler.timesteps.numpy()) + 1.0, 0.0)
        ours = ddim(vp, u * vp.process.schedule.scales(times[0])[0], times)
        agree("diffusers", f"Euler in sigma, as DDIM on VP, {SHORT[betas]}", ours, theirs)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", TARGETS)
def test_heun(monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, betas: str) -> None:
    scheduler = in_float64(monkeypatch, HeunDiscreteScheduler)(
        beta_schedule=betas, prediction_type=kind, timestep_spacing="leading"
    )
    scheduler.set_timesteps(20)
    sigmas = np.append(scheduler.sigmas.numpy()[:-1:2], 0.0)
    u, x = start(float(sigmas[0]))
    # Between its two stages the peer's index has moved on, so that the model is asked at the level of `sigmas`.
    theirs = steps_of(scheduler, lambda u, sigma: prediction(kind, u, *scales(sigma)), x)
    field = exact_field(WIDE, TARGETS[kind])
    ours = heun(field, u, jnp.asarray(sigmas[:-1]))
    ours = ddim(field, ours, jnp.asarray(sigmas[-2:]))
    agree("diffusers", f"Heun in sigma, {SHORT[betas]}: 3 targets", ours, theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(monkeypatch: pytest.MonkeyPatch, agree: Agree, shift: float) -> None:
    ours, theirs = start()
    scheduler = in_float64(monkeypatch, FlowMatchEulerDiscreteScheduler)(shift=shift)
    scheduler.set_timesteps(20)
    theirs = steps_of(scheduler, velocity, theirs)
    times = jnp.asarray(scheduler.sigmas.numpy())
    for target in (Velocity(), Signal(), VPrediction()):
        field = exact_field(Linear(), target)
        agree("diffusers", "flow Euler: 3 targets, as Euler and as DDIM", euler(field, ours, times), theirs)
        agree("diffusers", "flow Euler: 3 targets, as Euler and as DDIM", ddim(field, ours, times), theirs)


@pytest.mark.parametrize("target", [Score(), Noise()], ids=["score", "noise"])
def test_ve_predictor(monkeypatch: pytest.MonkeyPatch, agree: Agree, target: Any) -> None:
    count = 30
    noise, (ours, theirs) = fresh_noise(count), start(50.0)
    scheduler = in_float64(monkeypatch, ScoreSdeVeScheduler)(num_train_timesteps=count, sigma_min=0.01, sigma_max=50.0)
    draw_from(monkeypatch, sys.modules[ScoreSdeVeScheduler.__module__], noise)
    # The index of a level is read off a time by rounding down, so the times are those of the indices, raised a little.
    for index in reversed(range(count)):
        sigma = scheduler.discrete_sigmas[index]
        score = -estimates(theirs, 1.0, sigma)[1] / sigma
        theirs = scheduler.step_pred(score, torch.tensor((index + 0.5) / (count - 1)), theirs).prev_sample
    schedule = VE(t_min=0.01, t_max=50.0)
    times = jnp.append(grids.log_snr(schedule, count - 1), 0.0)
    agree("diffusers", "exponential sigmas, as the log-SNR grid", times[:-1], scheduler.discrete_sigmas.flip(0))
    ours = predictor_corrector(
        exact_field(schedule, target), ours, times, keys(), predictor="reverse_diffusion", corrector_steps=0
    )
    agree("diffusers", "VE predictor without corrector", ours, theirs)


def velocity(u: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Flow matching's model: E[eps - x | u]."""
    x, eps = estimates(u, 1.0 - sigma, sigma)
    return eps - x
