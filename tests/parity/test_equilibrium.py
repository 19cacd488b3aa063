"""Equilibrium matching's samplers, written out in numpy from the description of the released ones.

They have no package to install. In theirs the field points from the noise to the data, time runs from noise to data,
and samples are raised: with f_theirs = -f, ``x <- x + step f_theirs``. Their accelerated one looks ahead by the last
gradient times the step, and moves from where it was, not from the point ahead (``eqm_nesterov_released``). 250 steps
are 249 evaluations there, as the last of the points is not left.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Equilibrium
from geonoise_jax.sampling import eqm_descent, eqm_nesterov, eqm_nesterov_released
from tests.parity.agreement import Agree
from tests.parity.mixture import exact_field, start

STEP, MOMENTUM, POINTS = 0.0017, 0.3, 250
Ascent = Callable[[np.ndarray], np.ndarray]


def plain(toward_data: Ascent, x: np.ndarray) -> np.ndarray:
    """Gradient descent of the energy whose negative gradient is the field."""
    for _ in range(POINTS - 1):
        x = x + STEP * toward_data(x)
    return x


def released(toward_data: Ascent, x: np.ndarray) -> np.ndarray:
    """Look ahead along the last gradient; move from where the sample is."""
    last = np.zeros_like(x)
    for _ in range(POINTS - 1):
        last = toward_data(x + STEP * MOMENTUM * last)
        x = x + STEP * last
    return x


def accelerated(toward_data: Ascent, x: np.ndarray) -> np.ndarray:
    """Nesterov's method: move from the point ahead, as published in 1983."""
    before = x
    for _ in range(POINTS - 1):
        ahead = x + MOMENTUM * (x - before)
        before, x = x, ahead + STEP * toward_data(ahead)
    return x


@pytest.mark.parametrize("decay", ["linear", "truncated"])
def test_descent(agree: Agree, decay: str) -> None:
    field = exact_field(Linear(), Equilibrium(decay), blind=True)
    u, _ = start()
    blind = jax.jit(field.marginal.field)

    def toward_data(x: np.ndarray) -> np.ndarray:
        return -np.asarray(blind(jnp.asarray(x)))

    ours = eqm_descent(field, u, step_size=STEP, max_steps=POINTS - 1).u
    agree("numpy", "EqM descent, 249 evaluations: 2 decays", ours, plain(toward_data, np.asarray(u)))
    ours = eqm_nesterov_released(field, u, step_size=STEP, momentum=MOMENTUM, max_steps=POINTS - 1).u
    agree("numpy", "EqM Nesterov as released: 2 decays", ours, released(toward_data, np.asarray(u)))
    ours = eqm_nesterov(field, u, step_size=STEP, momentum=MOMENTUM, max_steps=POINTS - 1).u
    agree("numpy", "EqM Nesterov of 1983: 2 decays", ours, accelerated(toward_data, np.asarray(u)))
