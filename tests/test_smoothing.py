"""Smoothed blind fields: each against another way to the same field, the clock against its closed forms, verdicts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, Linear, VPLinear
from geonoise_jax.process.targets import Equilibrium, Noise, Signal, Velocity
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import sample
from geonoise_jax.stability import chi_moment
from geonoise_jax.studies import smoothing, table
from geonoise_jax.studies.smoothing.fields import RingField, Smoothing, normal_nodes, ring_field, ring_points
from geonoise_jax.studies.smoothing.radial import attractor, radial_field
from geonoise_jax.studies.smoothing.study import CLEAN, TARGETS, Ends, Options, Study, quantile
from geonoise_jax.studies.verdicts import Outcome

PROCESSES = [target.process for target in TARGETS]
VELOCITY = Process(Linear(), Velocity())


def points(dim: int, num: int = 24) -> np.ndarray:
    """Return points at distances of 0.003 to 1 per coordinate from the data."""
    generator = np.random.default_rng(dim)
    radius = np.exp(generator.uniform(math.log(3e-3), 0.0, num))[:, None]
    return (ring_points(dim)[generator.integers(0, 16, num)] + radius * generator.standard_normal((num, dim))).astype(
        np.float32
    )


@pytest.mark.parametrize("process", PROCESSES, ids=[target.name for target in TARGETS])
@pytest.mark.parametrize("change", [Smoothing(), Smoothing(floor=0.1, ceiling=1.0)], ids=["exact", "truncated"])
def test_field_is_that_of_the_marginal(process: Process, change: Smoothing) -> None:
    u = points(8)
    low, high = change.times(process)
    marginal = Marginal(FiniteSet(ring_points(8)), process, Uniform(low, high), accuracy=1e-4, adaptive=False)
    wanted = np.asarray(marginal.field(u))
    error = np.linalg.norm(np.asarray(ring_field(process, 8, change)(u)) - wanted, axis=1)
    assert (error / np.linalg.norm(wanted, axis=1)).max() < 2e-4
