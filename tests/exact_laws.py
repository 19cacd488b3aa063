"""One small law of every kind, for tests of what holds for all."""

from __future__ import annotations

import numpy as np

from geonoise_jax.exact import Circles, Distribution, FiniteSet, Gaussian, Mixture, Subspace
from geonoise_jax.process import schedules, times

DIM = 3


def frame(dim: int = DIM, columns: int = 2, seed: int = 0) -> np.ndarray:
    """Random orthonormal columns."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, columns)))[0]


def laws() -> dict[str, Distribution]:
    """Laws in three dimensions, by name."""
    rng = np.random.default_rng(1)
    root = rng.normal(size=(DIM, DIM))
    return {
        "FiniteSet": FiniteSet(rng.normal(size=(4, DIM)), [0.1, 0.2, 0.3, 0.4]),
        "Gaussian": Gaussian(rng.normal(size=DIM), root @ root.T / 4),
        "Mixture": Mixture(rng.normal(size=(2, DIM)), rng.uniform(0.1, 1.0, size=(2, DIM)), [0.3, 0.7]),
        "Subspace": Subspace(frame(), 0.8),
        "Circles": Circles([0.5, 2.0], [0.3, 0.7], frame()),
    }


def queries(count: int = 2, seed: int = 2) -> np.ndarray:
    """Points in three dimensions."""
    return np.random.default_rng(seed).normal(size=(count, DIM))


def whole_range(schedule: schedules.Schedule) -> times.TimeLaw:
    """The uniform law over all times of a schedule, discrete for a discrete one."""
    if isinstance(schedule, schedules.VPDiscrete):
        return times.Discrete(int(schedule.t_min), int(schedule.t_max))
    return times.Uniform(schedule.t_min, schedule.t_max)
