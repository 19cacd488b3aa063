"""Ratios of modified Bessel functions, accurate at small and large arguments (Abramowitz & Stegun 9.6.10, 9.7.1)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float

_SMALL = 1e-2
_RATIO_SERIES = (1.0 / 2.0, 1.0 / 8.0, 1.0 / 8.0, 25.0 / 128.0, 13.0 / 32.0, 1073.0 / 1024.0)


def log_i0e(k: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """Return ``log(exp(-k) I0(k))``, k >= 0."""
    return jnp.log(i0e(k))


def ratio_slope(k: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """Return ``I1(k) / (k I0(k))``, which is 1/2 at k = 0."""
    small = k < _SMALL
    square = jnp.where(small, k, 0.0) ** 2
    safe = jnp.where(small, 1.0, k)
    return jnp.where(small, 0.5 - square / 16.0 + square * square / 96.0, i1e(safe) / (safe * i0e(safe)))


def ratio_deficit(k: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """Return ``1 - I1(k) / I0(k)`` in full relative accuracy."""
    threshold = 500.0 if k.dtype == jnp.float64 else 30.0
    large = k > threshold
    near, far = jnp.where(large, 1.0, k), jnp.where(large, k, threshold)
    series = jnp.zeros_like(k)
    for coefficient in reversed(_RATIO_SERIES):
        series = (series + coefficient) / far
    return jnp.where(large, series, 1.0 - i1e(near) / i0e(near))
