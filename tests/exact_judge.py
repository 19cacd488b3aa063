"""Brute force: the blind field and the posterior of the noise level by a float64 sum over points and a dense grid of t.

It knows nothing of windows, panels, near points or log-SNR: plain distances, Gauss-Legendre panels that are uniform in
log b and log(b / a) together and several times finer than the posterior of one point, one softmax over (t, k).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from geonoise_jax.process.process import Process
from geonoise_jax.process.times import Discrete, TimeLaw

_ORDER = 16
_CHUNK = 2**24
_NEGLIGIBLE = 150.0


class Judged(NamedTuple):
    """Brute-force values: ``log_density``, ``mean`` and ``std`` of t, each [B]; ``field``, ``energy_grad`` [B, D]."""

    log_density: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    field: np.ndarray
    energy_grad: np.ndarray


class Grid(NamedTuple):
    """Nodes: log of prior density times quadrature weight, time, and the process's a, b, c, d."""

    log_weight: np.ndarray
    t: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray


def grid(process: Process, law: TimeLaw, dim: int) -> Grid:
    """A grid over the whole range on which the posterior of every single point is resolved to rounding."""
    with jax.enable_x64(True):
        if isinstance(law, Discrete):
            t = np.arange(law.lo, law.hi + 1.0)
            k = process.coeffs(jnp.asarray(t))
            return Grid(
                np.asarray(law.log_density(jnp.asarray(t))), t, *(np.asarray(value) for value in (k.a, k.b, k.c, k.d))
            )
        fine = np.linspace(law.lo, law.hi, 200_001)[1:-1]
        fine = np.unique(np.concatenate([np.geomspace(max(law.lo, 1e-6), law.hi, 50_001), fine, [law.lo, law.hi]]))
        k = process.coeffs(jnp.asarray(fine))
        a, b = np.maximum(np.asarray(k.a), 1e-12), np.maximum(np.asarray(k.b), 1e-12)
        measure = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(np.log(b))) * 0.35 * np.sqrt(dim + 8))])
        measure += np.concatenate([[0.0], np.cumsum(np.abs(np.diff(np.log(b / a))))])
        panels = int(np.ceil(measure[-1])) + 4
        edges = np.interp(np.linspace(0.0, measure[-1], panels + 1), measure, fine)
        marks = [t for t in process.parameterization.kinks if law.lo < t < law.hi]
        edges = np.unique(np.concatenate([edges, marks]))
        x, w = np.polynomial.legendre.leggauss(_ORDER)
        half = 0.5 * np.diff(edges)[:, None]
        t = (0.5 * (edges[:-1] + edges[1:])[:, None] + half * x).ravel()
        k = process.coeffs(jnp.asarray(t))
        log_weight = np.asarray(law.log_density(jnp.asarray(t))) + np.log((half * w).ravel())
        return Grid(log_weight, t, *(np.asarray(value) for value in (k.a, k.b, k.c, k.d)))


def judge(
    points: np.ndarray,
    weights: np.ndarray | None,
    process: Process,
    law: TimeLaw,
    u: np.ndarray,
    at: Grid | None = None,
) -> Judged:
    """Return brute-force values at queries u [B, D] for points [N, D]."""
    points, u = np.asarray(points, np.float64), np.asarray(u, np.float64)
    count, dim = points.shape
    log_pi = (
        np.full(count, -np.log(count)) if weights is None else np.log(np.maximum(weights / np.sum(weights), 1e-300))
    )
    at = grid(process, law, dim) if at is None else at
    rows = [_one(points, log_pi, at, query) for query in u]
    return Judged(*(np.stack(values) for values in zip(*rows, strict=True)))


def _one(points: np.ndarray, log_pi: np.ndarray, at: Grid, u: np.ndarray) -> tuple[np.ndarray, ...]:
    # Products relative to the nearest point, which lose no digits where b is small.
    nearest = points[((u - points) ** 2).sum(1).argmin()]
    delta = points - nearest
    along, square = delta @ u, (delta * (points + nearest)).sum(1)
    residual2 = (
        ((u[None] - at.a[:, None] * nearest[None]) ** 2).sum(1)
        if at.a.size * u.size < _CHUNK
        else np.array([((u - a * nearest) ** 2).sum() for a in at.a])
    )
    half_b2 = 2.0 * at.b**2
    # Panels whose middle is hundreds of nats below the highest hold nothing: a panel is a few widths of a peak.
    own = at.log_weight - residual2 / half_b2 - u.size * np.log(at.b) - 0.5 * u.size * np.log(2.0 * np.pi)
    keep = _near_the_top(along, square, log_pi, at, own, half_b2) if len(at.t) % _ORDER == 0 else slice(None)
    at, own, half_b2 = Grid(*(values[keep] for values in at)), own[keep], half_b2[keep]
    top, step = -np.inf, max(1, _CHUNK // len(points))
    partial = []
    for start in range(0, len(at.t), step):
        part = slice(start, start + step)
        a, b2 = at.a[part, None], half_b2[part, None]
        z = (2.0 * a * along[None] - a * a * square[None]) / b2 + log_pi[None] + own[part, None]
        top_here = max(top, z.max())
        weight = np.exp(z - top_here)
        partial.append((top_here, part, weight.sum(1), _sums(at, part, weight)))
        top = top_here
    node = np.concatenate([weight * np.exp(high - top) for high, _, weight, _ in partial])
    alpha_sums = sum(sums * np.exp(high - top) for high, _, _, sums in partial)
    total = node.sum()
    node /= total
    mean = node @ at.t
    std = np.sqrt(node @ (at.t - mean) ** 2)
    beta = node @ (at.d / at.b), node @ (1.0 / at.b**2)
    fields = alpha_sums / total
    field = beta[0] * (u - 0.0) + fields[0] @ points
    grad = beta[1] * u + fields[1] @ points
    return np.asarray(top + np.log(total)), mean, std, field, grad


def _near_the_top(
    along: np.ndarray, square: np.ndarray, log_pi: np.ndarray, at: Grid, own: np.ndarray, half_b2: np.ndarray
) -> np.ndarray:
    middle = np.arange(_ORDER // 2, len(at.t), _ORDER)
    a = at.a[middle]
    step = max(1, _CHUNK // len(along))
    heights = [
        own[m] + ((2.0 * at.a[m, None] * along - at.a[m, None] ** 2 * square) / half_b2[m, None] + log_pi).max(1)
        for m in (middle[start : start + step] for start in range(0, len(middle), step))
    ]
    height = np.concatenate(heights)
    kept = np.flatnonzero(height > height.max() - _NEGLIGIBLE)
    panels = np.unique(np.clip(np.concatenate([kept + shift for shift in (-2, -1, 0, 1, 2)]), 0, len(a) - 1))
    return (panels[:, None] * _ORDER + np.arange(_ORDER)).ravel()


def _sums(at: Grid, part: slice, weight: np.ndarray) -> np.ndarray:
    """Sums over t of weight x (c - d a / b) and of weight x (-a / b^2), per point."""
    a, b, c, d = (values[part] for values in (at.a, at.b, at.c, at.d))
    return np.stack([(c - d * a / b) @ weight, (-a / b**2) @ weight])
