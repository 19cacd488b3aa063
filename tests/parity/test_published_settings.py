"""Options and defaults that carry a published name, against the packages that have them too.

Differences that are conventions, not errors:

* diffusers keeps the network's eps when it clips x (``use_clipped_model_output=False``) in DDIM; the released code of
  DDPM, improved DDPM and DDIM recomputes eps from the clipped x and the sample, as ours does and as it can be asked to.
* The corrector's norms are averaged over the batch there. Ours are each sample's own, which a batch of one is as well.
* The peer's time embedding is float32, with angles up to 999.
"""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_sde_ve import ScoreSdeVeScheduler

from geonoise_jax.fields import noise_feature
from geonoise_jax.nets.conditioning import sinusoidal_features
from geonoise_jax.process import grids
from geonoise_jax.process.schedules import VE, VPDiscrete
from geonoise_jax.process.targets import Noise, Score, Signal
from geonoise_jax.sampling import SAMPLERS, ancestral, ddim, edm_churn, heun, predictor_corrector
from geonoise_jax.systems import SYSTEMS
from tests.parity.agreement import Agree
from tests.parity.mixture import estimates, exact_field, fresh_noise, keys, start, tensor
from tests.parity.peers import draw_from, in_float64, k_sampling
from tests.parity.test_diffusers_discrete import BETAS, SHORT, STEPS, TARGETS, run
from tests.parity.test_equilibrium import MOMENTUM, POINTS, STEP
from tests.parity.test_k_diffusion import LEVELS, ROOM, model, sigmas, to_clean


@pytest.mark.parametrize("clip", [np.inf, 1.0])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", TARGETS)
def test_ddpm(monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, betas: str, variance: str, clip: float) -> None:
    noise, (ours, theirs) = fresh_noise(50), start()
    scheduler = in_float64(monkeypatch, DDPMScheduler)(
        beta_schedule=betas, prediction_type=kind, variance_type=variance, clip_sample=clip == 1.0
    )
    scheduler.set_timesteps(50)
    draw_from(monkeypatch, sys.modules[DDPMScheduler.__module__], noise)
    times, theirs = run(scheduler, theirs)
    # fixed_large would add noise in the step to clean data, which neither side takes.
    field = exact_field(BETAS[betas], TARGETS[kind])
    ours = ancestral(field, ours, jnp.asarray(times[:-1]), keys(), variance=variance, clip=clip)
    ours = ddim(field, ours, jnp.asarray(times[-2:]), clip=clip)
    agree("diffusers", f"DDPM, 50 steps, {variance}, {SHORT[betas]}, clipped or not", ours, theirs)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", TARGETS)
def test_ddim_clipped(monkeypatch: pytest.MonkeyPatch, agree: Agree, kind: str, eta: float) -> None:
    noise, (ours, theirs) = fresh_noise(STEPS), start()
    scheduler = in_float64(monkeypatch, DDIMScheduler)(prediction_type=kind, clip_sample=True)
    scheduler.set_timesteps(STEPS)
    options = {"eta": eta, "use_clipped_model_output": True}
    times, theirs = run(scheduler, theirs, lambda number: {**options, "variance_noise": noise[number]})
    ours = ddim(exact_field(VPDiscrete(), TARGETS[kind]), ours, jnp.asarray(times), keys(), eta=eta, clip=1.0)
    agree("diffusers", "DDIM, x clipped: 3 eta, 3 targets", ours, theirs)


@pytest.mark.parametrize("s_churn", [1.0, 5.0])
def test_churn_below_its_limit(monkeypatch: pytest.MonkeyPatch, agree: Agree, s_churn: float) -> None:
    u, x = start(80.0)
    options = {"s_churn": s_churn, "s_tmin": 0.01, "s_noise": 1.007}
    draw_from(monkeypatch, k_sampling, fresh_noise(LEVELS))
    theirs = k_sampling.sample_heun(model, x, sigmas(), disable=True, **options)
    field, times = exact_field(ROOM, Signal()), grids.rho(VE(), LEVELS - 1)
    ours = to_clean(field, edm_churn(field, u, times, keys(), **options), times)
    agree("k-diffusion", "EDM Algorithm 2, S_churn over N levels", ours, theirs)


def test_defaults_of_edm(agree: Agree) -> None:
    settings = SYSTEMS["edm"].common
    steps, grid = settings["sampling.num_steps"], settings["sampling.grid"]
    assert settings["sampling.denoise"]
    times = grids.GRIDS[grid](VE(), steps)
    u, x = start(80.0)
    calls = []

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(sigma)
        return model(x, sigma)

    theirs = k_sampling.sample_heun(counted, x, k_sampling.get_sigmas_karras(18, 0.002, 80.0), disable=True)
    field = exact_field(VE(), Signal())
    agree("k-diffusion", "EDM's 35 evaluations, our defaults", to_clean(field, heun(field, u, times), times), theirs)
    assert len(calls) == 2 * steps + 1 == 35


def test_defaults_of_equilibrium_matching() -> None:
    options = SAMPLERS["eqm_nesterov_released"].options
    assert (options["step_size"], options["momentum"], options["max_steps"]) == (STEP, MOMENTUM, POINTS - 1)


@pytest.mark.parametrize("target", [Score(), Noise()], ids=["score", "noise"])
def test_ve_predictor_corrector(monkeypatch: pytest.MonkeyPatch, agree: Agree, target: Score | Noise) -> None:
    count, schedule = 30, VE(t_min=0.01, t_max=50.0)
    scheduler = in_float64(monkeypatch, ScoreSdeVeScheduler)(
        num_train_timesteps=count, sigma_min=0.01, sigma_max=50.0, snr=0.16
    )
    draw_from(monkeypatch, sys.modules[ScoreSdeVeScheduler.__module__], [each[:1] for each in fresh_noise(2 * count)])
    u, theirs = (each[:1] for each in start(50.0))
    for index in reversed(range(count)):
        sigma, t = scheduler.discrete_sigmas[index], torch.tensor((index + 0.5) / (count - 1))
        theirs = scheduler.step_correct(-estimates(theirs, 1.0, sigma)[1] / sigma, theirs).prev_sample
        theirs = scheduler.step_pred(-estimates(theirs, 1.0, sigma)[1] / sigma, t, theirs).prev_sample
    ours = predictor_corrector(
        exact_field(schedule, target),
        u,
        jnp.append(grids.log_snr(schedule, count - 1), 0.0),
        keys()[:1],
        predictor="reverse_diffusion",
        corrector="langevin",
        order="corrector_first",
    )
    agree("diffusers", "VE predictor and corrector as released", ours, theirs)


def test_embedding_of_the_noise_level(agree: Agree) -> None:
    options = {"flip_sin_to_cos": True, "downscale_freq_shift": 1}
    sigma = np.geomspace(0.002, 80.0, 50)
    ours = sinusoidal_features(noise_feature(VE(), jnp.asarray(sigma), "c_noise"))
    theirs = get_timestep_embedding(tensor(0.25 * np.log(sigma)), ours.shape[1], **options)
    agree("diffusers", "sinusoids of c_noise, theirs in float32", ours, theirs, 1e-6)
    steps = np.arange(1000)
    ours = sinusoidal_features(jnp.asarray(steps / 1000.0))
    theirs = get_timestep_embedding(torch.as_tensor(steps), ours.shape[1], **options)
    agree("diffusers", "sinusoids of DDPM's steps, theirs in float32", ours, theirs, 1e-4)
