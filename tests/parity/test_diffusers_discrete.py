"""DDIM and DDPM of diffusers on its own variance schedules, and its noising, against ours on VPDiscrete.

Differences that are conventions, not errors:

* The peer's timestep n = 0, ..., T - 1 is our t = n + 1; our t = 0 is clean data, for which the peer has no index.
* The last step goes to ``final_alpha_cumprod``: 1 by default (``set_alpha_to_one``), which is our t = 0; otherwise that
  of n = 0, our t = 1, so that with leading spacing the last step does nothing.
* DDIM goes from n to ``n - T // steps``, whatever the next timestep is: with trailing spacing and a number of steps
  that does not divide T, the model is then shown other noise levels than the samples have. Ours has one grid for both.
* Its tables are float32; the tests run its formulas in float64 and look at the tables as shipped on their own.
* Cosine betas end at a = 5e-5. A noise prediction is multiplied by 1 / a there, and with it the rounding of either
  side: what is left of that after the first step is the largest difference found with these betas.
* Its variance is never below 1e-20 (``fixed_small``), which changes nothing here: the last step adds no noise.
"""

from __future__ import annotations

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VPDiscrete
from geonoise_jax.process.targets import Noise, Signal, Target, VPrediction
from geonoise_jax.sampling import ancestral, ddim
from tests.parity.agreement import SINGLE, Agree
from tests.parity.mixture import estimates, exact_field, fresh_noise, keys, start
from tests.parity.peers import draw_from, in_float64

BETAS = {"linear": VPDiscrete(), "squaredcos_cap_v2": VPDiscrete(betas="cosine")}
SHORT = {"linear": "linear betas", "squaredcos_cap_v2": "cosine betas"}
TARGETS: dict[str, Target] = {"epsilon": Noise(), "sample": Signal(), "v_prediction": VPrediction()}
STEPS = 20


def prediction(kind: str, u: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What the peer's model returns for the mixture."""
    x, eps = estimates(u, a, b)
    return {"epsilon": eps, "sample": x, "v_prediction": a * eps - b * x}[kind]


def run(scheduler: Any, u: torch.Tensor, options: Any = lambda _: {}) -> tuple[np.ndarray, torch.Tensor]:
    """Sample as the peer's pipelines do; return our times and the samples."""
    kind = scheduler.config.prediction_type
    for number, timestep in enumerate(scheduler.timesteps):
        signal = scheduler.alphas_cumprod[timestep]
        output = prediction(kind, u, signal.sqrt(), (1 - signal).sqrt())
        u = scheduler.step(output, timestep, u, **options(number)).prev_sample
    return np.append(scheduler.timesteps.numpy() + 1.0, 0.0), u


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", TARGETS)
def test_ddim(monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, betas: str, spacing: str, eta: float) -> None:
    noise, (ours, theirs) = fresh_noise(STEPS), start()
    scheduler = in_float64(monkeypatch, DDIMScheduler)(
        beta_schedule=betas, prediction_type=kind, timestep_spacing=spacing, clip_sample=False
    )
    scheduler.set_timesteps(STEPS)
    times, theirs = run(scheduler, theirs, lambda number: {"eta": eta, "variance_noise": noise[number]})
    ours = ddim(exact_field(BETAS[betas], TARGETS[kind]), ours, jnp.asarray(times), keys(), eta=eta)
    agree("diffusers", f"DDIM, eta {eta:g}, {SHORT[betas]}: 2 spacings, 3 targets", ours, theirs)


def test_the_last_step_of_ddim_without_alpha_one(monkeypatch: pytest.MonkeyPatch, agree: Agree) -> None:
    ours, theirs = start()
    scheduler = in_float64(monkeypatch, DDIMScheduler)(
        set_alpha_to_one=False, timestep_spacing="trailing", clip_sample=False
    )
    scheduler.set_timesteps(STEPS)
    times, theirs = run(scheduler, theirs)
    ours = ddim(exact_field(VPDiscrete(), Noise()), ours, jnp.asarray(times).at[-1].set(1.0))
    agree("diffusers", "DDIM to the first noise level, not to clean data", ours, theirs)


def test_ddim_of_the_peer_leaves_its_grid_where_the_steps_do_not_divide() -> None:
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(30)
    reached = scheduler.timesteps[:-1] - 1000 // 30
    assert (reached != scheduler.timesteps[1:]).any()


@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", TARGETS)
def test_ddpm(monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, betas: str, steps: int) -> None:
    noise, (ours, theirs) = fresh_noise(steps), start()
    scheduler = in_float64(monkeypatch, DDPMScheduler)(
        beta_schedule=betas, prediction_type=kind, variance_type="fixed_small", clip_sample=False
    )
    scheduler.set_timesteps(steps)
    draw_from(monkeypatch, sys.modules[DDPMScheduler.__module__], noise)
    times, theirs = run(scheduler, theirs)
    ours = ancestral(exact_field(BETAS[betas], TARGETS[kind]), ours, jnp.asarray(times), keys())
    agree("diffusers", f"DDPM, {steps} steps, fixed_small, {SHORT[betas]}: 3 targets", ours, theirs)


@pytest.mark.parametrize("betas", BETAS)
def test_noising_and_its_velocity(monkeypatch: pytest.MonkeyPatch, agree: Agree, betas: str) -> None:
    rng = np.random.default_rng(3)
    x, eps = rng.normal(size=(2, 1000, 2, 3))
    n = np.arange(1000)
    scheduler = in_float64(monkeypatch, DDPMScheduler)(beta_schedule=betas)
    arguments = (torch.as_tensor(x), torch.as_tensor(eps), torch.as_tensor(n))
    process = Process(BETAS[betas], VPrediction())
    agree("diffusers", "add_noise, all steps", process.corrupt(x, eps, n + 1), scheduler.add_noise(*arguments))
    agree("diffusers", "get_velocity, all steps", process.target(x, eps, n + 1), scheduler.get_velocity(*arguments))


@pytest.mark.parametrize("betas", BETAS)
def test_tables_as_shipped(agree: Agree, betas: str) -> None:
    a, _ = BETAS[betas].scales(jnp.arange(1.0, 1001.0))
    theirs = DDPMScheduler(beta_schedule=betas).alphas_cumprod
    assert theirs.dtype == torch.float32
    agree("diffusers", "alphas_cumprod as shipped, float32", a**2, theirs, SINGLE)
