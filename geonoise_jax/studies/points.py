"""A few points of the plane, alone or in R^D, with the processes whose exact fields the pictures show.

Near a datum the noise scale b of a prior flat in t has a density ``b^(kappa - 1)``, and ``u - a x_k = e + (b rho) x_k``
with the shrinkage ``rho = (1 - a) / b`` of the limit b -> 0; ``m = D - kappa`` rules every limit there.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geonoise_jax.checks import choice
from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, Linear, Schedule, VPLinear
from geonoise_jax.process.targets import Equilibrium, Noise, Signal, Target, Velocity, VPrediction
from geonoise_jax.process.times import Uniform

POINTS = {
    1: np.array([[0.4, 0.3]]),
    3: np.array([[-1.2, -0.9], [1.3, -0.6], [0.1, 1.3]]),
    5: np.array([[-1.5, -1.0], [-1.2, 1.3], [0.2, 0.3], [1.2, 1.5], [1.6, -1.2]]),
}
TARGETS: dict[str, type[Target]] = {each.__name__: each for each in (Velocity, Noise, Signal, VPrediction, Equilibrium)}
ACCURACY = 1e-9


class Family(NamedTuple):
    """A schedule with its behaviour at low noise.

    Attributes:
        schedule: its class.
        kappa: exponent of the density of b.
        rho: limit of (1 - a) / b.
        law: how b goes to zero, in words.
    """

    schedule: type[Schedule]
    kappa: int
    rho: float
    law: str

    def from_noise(self, b_min: float) -> Schedule:
        """Return the schedule that begins at a noise scale b, small beside 1."""
        with jax.enable_x64(True):
            t_min = float(self.schedule(t_min=1e-30).t_of_eta(jnp.asarray(math.log(b_min))))
        return self.schedule(t_min=t_min)


SCHEDULES = {
    "Linear": Family(Linear, 1, 1.0, "b ~ t"),
    "VPLinear": Family(VPLinear, 2, 0.0, "b ~ √t"),
    "VE": Family(VE, 1, 0.0, "b = t"),
}


def check_system(schedule: str, target: str) -> None:
    """Require names of a schedule and a target.

    Raises:
        ValueError: if one is unknown.
    """
    choice("schedule", schedule, SCHEDULES)
    choice("target", target, TARGETS)


def embedded(points: Float[np.ndarray, "n 2"], dim: int) -> Float[np.ndarray, "n D"]:
    """Return points of the plane in R^dim: with zeros behind, or their first coordinate alone."""
    return np.pad(points, ((0, 0), (0, max(0, dim - points.shape[1]))))[:, :dim]


def marginal(points: Float[np.ndarray, "n D"], schedule: Schedule, target: str, accuracy: float = ACCURACY) -> Marginal:
    """Return the exact fields of points, for times that are uniform between the ends of the schedule.

    Made and used in float64.
    """
    law = Uniform(schedule.t_min, schedule.t_max)
    return Marginal(FiniteSet(jnp.asarray(points)), Process(schedule, TARGETS[target]()), law, accuracy=accuracy)


@functools.cache
def directions(dim: int, pairs: int, seed: int) -> Float[np.ndarray, "2*pairs D"]:
    """Return random unit vectors, each beside its opposite."""
    found = np.random.default_rng([seed, dim]).standard_normal((pairs, dim))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.concatenate([found, -found])


def around(
    datum: Float[np.ndarray, "D"], radii: Float[np.ndarray, "R"], unit: Float[np.ndarray, "K D"]
) -> Float[np.ndarray, "R K D"]:
    """Return points at given distances from a datum, along given directions."""
    return datum + radii[:, None, None] * unit
