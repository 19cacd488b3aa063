"""EDM's loss and preconditioner against k-diffusion, averages of parameters against diffusers.

Differences that are conventions, not errors:

* The peer's loss is that of the network inside the preconditioner, without a weight; ours is the weighted error of the
  denoiser. With EDM's weight they are one number.
* The peer hands sigma itself to the network; ours is shown log(sigma) / 4.
* ``EMAModel`` always starts slowly, and its first update copies the parameters: its update n + 1 is our update n, with
  the parameters of its first update as our initial ones.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel

from geonoise_jax.fields import NetworkField, Preconditioner
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE
from geonoise_jax.process.targets import Signal
from geonoise_jax.process.times import LogNormal
from geonoise_jax.process.weights import EDM
from geonoise_jax.training import ema
from geonoise_jax.training.losses import Draws, Objective
from tests.parity.agreement import Agree
from tests.parity.mixture import EVENT
from tests.parity.peers import k_layers
from tests.stub_networks import Stub


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_loss_and_preconditioner(agree: Agree, sigma_data: float) -> None:
    rng = np.random.default_rng(8)
    x, eps = rng.normal(size=(2, 40, *EVENT))
    sigma = np.exp(-1.2 + 1.2 * rng.normal(size=40))
    weight = rng.normal(size=(EVENT[-1], EVENT[-1]))

    def ours_inside(params: Any, v: jax.Array, feature: jax.Array, _: Any) -> jax.Array:
        return jnp.tanh(v @ params + feature[:, None, None])

    class Inside(torch.nn.Module):
        def forward(self, v: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return torch.tanh(v @ torch.as_tensor(weight) + 0.25 * sigma.log()[:, None, None])

    field = NetworkField(
        jnp.asarray(weight),
        Stub(ours_inside),
        Process(VE(), Signal()),
        EVENT,
        blind=False,
        noise_feature="log_snr",
        preconditioner=Preconditioner(sigma_data),
    )
    denoiser = k_layers.Denoiser(Inside(), sigma_data)
    u, level = torch.as_tensor(x + sigma[:, None, None] * eps), torch.as_tensor(sigma)
    agree("k-diffusion", "EDM preconditioner", field(jnp.asarray(u.numpy()), jnp.asarray(sigma)), denoiser(u, level))
    objective = Objective(LogNormal(), EDM(VE(), sigma_data))
    ours = objective.per_sample(field, Draws(jnp.asarray(x), jnp.asarray(eps), jnp.asarray(sigma), None))
    theirs = denoiser.loss(torch.as_tensor(x), torch.as_tensor(eps), level)
    agree("k-diffusion", "EDM loss of every sample", ours, theirs)


def averages(rule: ema.EMA, **options: Any) -> tuple[jax.Array, torch.Tensor]:
    """Our average of a history of parameters by a rule, and the peer's."""
    history = np.random.default_rng(9).normal(size=(200, 7))
    ours = jnp.asarray(history[0])
    for number, values in enumerate(history[1:], start=1):
        ours = ema.update(rule, ours, jnp.asarray(values), jnp.asarray(number))
    parameter = torch.nn.Parameter(torch.zeros(7))
    average = EMAModel([parameter], **options)
    for values in history:
        parameter.data.copy_(torch.as_tensor(values))
        average.step([parameter])
    return ours, average.shadow_params[0]


@pytest.mark.parametrize("rate", [0.9, 0.9999])
def test_average_with_slow_start(agree: Agree, rate: float) -> None:
    ours, theirs = averages(ema.Constant(rate, warmup=True), decay=rate)
    agree("diffusers", "EMA with slow start", ours, theirs)


@pytest.mark.parametrize("rate", [0.9, 0.999])
def test_average_of_constant_rate(agree: Agree, rate: float) -> None:
    # Their least decay, which they apply after the slow start, makes the rate constant from the second update on.
    ours, theirs = averages(ema.Constant(rate), decay=rate, min_decay=rate)
    agree("diffusers", "EMA of constant rate", ours, theirs)
