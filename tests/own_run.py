"""A run of own objects, as a notebook makes it: own Flax module, own data, no config."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from geonoise_jax.data import Arrays
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.training.run import Budget, Run, Sampling


class Net(nn.Module):
    """A network that no table of the project knows: nothing but the call that is asked for."""

    width: int = 8

    @nn.compact
    def __call__(self, u: Any, t: Any, labels: Any = None, train: bool = False) -> Any:  # noqa: ARG002
        hidden = nn.silu(nn.Dense(self.width)(jnp.concatenate([u, t[:, None]], axis=1)))
        return nn.Dense(u.shape[-1])(hidden)


PROCESS = Process(schedules.Trigonometric(), targets.Velocity())


def own_run(**changes: Any) -> Run:
    """Ten updates on 64 points of the plane."""
    points = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)
    budget = Budget(num_steps=10, batch_size=16, log_every=5, checkpoint_every=5)
    sampling = Sampling(every=10, num=4, options={"sampler": "heun", "num_steps": 2})
    parts = {
        "network": Net(),
        "process": PROCESS,
        "data": Arrays(events=points),
        "budget": budget,
        "sampling": sampling,
    }
    return Run(**{**parts, **changes})
