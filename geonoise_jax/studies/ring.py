"""Points on a circle in a plane of R^D, whose exact fields leave nothing but the sampler to be studied."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from geonoise_jax.exact import Distribution, Marginal
from geonoise_jax.fields import ExactField
from geonoise_jax.process.process import Process
from geonoise_jax.process.times import Uniform

NUM_DATA = 16
ACCURACY = 1e-3


@functools.cache
def ring(dim: int) -> tuple[Float[np.ndarray, "n D"], Float[np.ndarray, "D 2"]]:
    """Return 16 equidistant points of the unit circle in a random plane of R^dim, and the frame of that plane."""
    frame = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, 2)))[0]
    return (circle_points() @ frame.T).astype(np.float32), frame


def circle_points() -> Float[np.ndarray, "n 2"]:
    """Return the 16 points in their plane."""
    angle = 2.0 * np.pi * np.arange(NUM_DATA) / NUM_DATA
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def nearest(samples: Float[np.ndarray, "n D"], points: Float[np.ndarray, "m D"]) -> Float[np.ndarray, "n"]:
    """Return the distance of each sample to its nearest point, infinite where the sample is not finite."""
    distance = np.linalg.norm(samples[:, None].astype(np.float64) - points[None], axis=-1).min(axis=1)
    return np.where(np.isfinite(distance), distance, np.inf)


def exact_field(law: Distribution, process: Process, blind: bool) -> ExactField:
    """Return the exact field of a uniform time law, by quadrature nodes that all queries share."""
    time_law = Uniform(process.schedule.t_min, process.schedule.t_max)
    return ExactField(Marginal(law, process, time_law, accuracy=ACCURACY, adaptive=False), blind)
