"""What the models of the demo did, and what gives it a scale."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from geonoise_jax.evaluation.floors import Distance


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one model of the demo did.

    Attributes:
        system: name of the system.
        blind: whether the network had no noise input.
        loss: running mean of the training loss by step.
        samples: generated digits in model space.
        distance: sliced Wasserstein distance of the samples to held-out digits, and its spread over such samples.
        train_seconds: training time, compilation included.
        sample_seconds: sampling time, compilation included.
    """

    system: str
    blind: bool
    loss: list[tuple[int, float]]
    samples: Float[np.ndarray, "n 8 8 1"]
    distance: Distance
    train_seconds: float
    sample_seconds: float


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Distances that give the others a scale, for as many points as there are samples.

    Attributes:
        floor: training digits to held-out digits, over draws.
        noise: standard normal noise to held-out digits, over draws.
        held_out: how much the distance of training digits varies with the held-out digits, which all models share.
    """

    floor: Distance
    noise: Distance
    held_out: float
