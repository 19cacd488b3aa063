"""Finite sets that are hard for an exact field, and the processes to try them with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process

Set = tuple[np.ndarray, np.ndarray | None]


def _surface(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    z = rng.normal(size=(count, 5)) @ rng.normal(size=(5, dim))
    return np.tanh(z + 0.3 * rng.normal(size=(count, dim)))


def _clusters(rng: np.random.Generator, count: int, dim: int) -> Set:
    """Clusters of eight points, from nearly one point to wide."""
    centres = _surface(rng, -(-count // 8), dim)
    scale = np.geomspace(1e-3, 0.3, len(centres))[:, None, None]
    points = centres[:, None] + scale * rng.normal(size=(len(centres), 8, dim))
    return points.reshape(-1, dim)[:count], None


def _nested(rng: np.random.Generator, count: int, dim: int) -> Set:
    """Clusters of clusters of clusters."""
    points = _surface(rng, 4, dim)
    for scale in (0.3, 0.03, 0.003):
        points = (points[:, None] + scale * rng.normal(size=(len(points), 5, dim))).reshape(-1, dim)
    return points[rng.permutation(len(points))[:count]], None


def _duplicates(rng: np.random.Generator, count: int, dim: int) -> Set:
    """Every point fifty times."""
    return np.repeat(_surface(rng, -(-count // 50), dim), 50, axis=0)[:count], None


def _mirrored(rng: np.random.Generator, count: int, dim: int) -> Set:
    """Points and their entries in reverse order, which are as long."""
    points = _surface(rng, count // 2, dim)
    return np.concatenate([points, points[:, ::-1]]), None


def _outlier(rng: np.random.Generator, count: int, dim: int) -> Set:
    """One point far from a crowd."""
    points = 0.05 * _surface(rng, count, dim)
    points[count // 3] = 3.0
    return points, None


def _weighted(rng: np.random.Generator, count: int, dim: int) -> Set:
    """Probabilities over twenty orders of magnitude."""
    weights = 10.0 ** -rng.uniform(0.0, 20.0, count)
    return _surface(rng, count, dim), weights / weights.sum()


def _line(rng: np.random.Generator, count: int, dim: int) -> Set:
    """Points on a line."""
    direction = rng.normal(size=dim)
    return np.outer(rng.uniform(-1.0, 1.0, count), direction / np.abs(direction).max()), None


SETS: dict[str, Callable[[np.random.Generator, int, int], Set]] = {
    "clusters": _clusters,
    "nested": _nested,
    "duplicates": _duplicates,
    "mirrored": _mirrored,
    "outlier": _outlier,
    "weighted": _weighted,
    "line": _line,
}

PROCESSES: dict[str, tuple[Process, times.TimeLaw]] = {
    "Linear": (Process(schedules.Linear(), targets.Velocity()), times.Uniform(1e-3, 0.999)),
    "VPLinear": (Process(schedules.VPLinear(t_max=1.0), targets.Noise()), times.Uniform(1e-3, 1.0)),
    "VPDiscrete": (Process(schedules.VPDiscrete(), targets.Noise()), times.Discrete(1, 1000)),
    "Cosine": (Process(schedules.Cosine(), targets.VPrediction()), times.LogitNormal(lo=1e-3, hi=0.99)),
    "VE": (Process(schedules.VE(), targets.Signal()), times.LogNormal()),
    "Trigonometric": (Process(schedules.Trigonometric(), targets.Velocity()), times.Uniform(1e-3, 0.999)),
    "EDMScaled": (Process(schedules.EDMScaled(), targets.EDMNetwork()), times.LogNormal()),
    "UEDM": (Process(schedules.UEDM(), targets.UEDM()), times.LogUniform(0.002, 80.0)),
}


def observations(
    points: np.ndarray, weights: np.ndarray | None, process: Process, t: np.ndarray, seed: int = 1
) -> np.ndarray:
    """One observation of a random point at each time."""
    rng = np.random.default_rng(seed)
    x = points[rng.choice(len(points), len(t), p=weights)]
    k = process.schedule.coeffs(t)
    return np.asarray(k.a, float)[:, None] * x + np.asarray(k.b, float)[:, None] * rng.normal(size=x.shape)


def levels(law: times.TimeLaw, num: int) -> np.ndarray:
    """Times from one end of a law to the other, equally far apart in the logarithm."""
    t = np.geomspace(max(1.5 * law.lo, 1.0 if isinstance(law, times.Discrete) else 0.0), 0.98 * law.hi, num)
    return np.round(t) if isinstance(law, times.Discrete) else t
