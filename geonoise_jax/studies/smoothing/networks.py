"""Small networks of growing size, trained blind on the ring by the usual loss, beside the exact fields of theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.exact import FiniteSet
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.process.keys import root_key
from geonoise_jax.sampling import generate
from geonoise_jax.studies.circles.models import BLIND, Model, config_of, run_of
from geonoise_jax.studies.ring import ACCURACY
from geonoise_jax.studies.smoothing.fields import ring_points
from geonoise_jax.studies.smoothing.radial import RadialField, tabulated
from geonoise_jax.training.many import train_many

_DEPTH = 2
_RADII, _SMALLEST, _LARGEST, _DIRECTIONS = 48, 3e-3, 2.0, 128


class Trained(NamedTuple):
    """One network.

    Attributes:
        field: what it predicts.
        samples: points drawn by the sampler of its config.
        loss: mean loss of the last updates.
    """

    field: Field
    samples: Float[np.ndarray, "num D"]
    loss: float


def config(system: str, dim: int, width: int, steps: int, batch_size: int) -> ConfigDict:
    """Return the config of a blind system on the ring in R^dim."""
    return config_of(Model(dim, system, BLIND), steps, batch_size, width, _DEPTH)


def train(chosen: ConfigDict, num: int, seed: int, on_call: Callable[[int, int], None]) -> Trained:
    """Train a network of a config on the ring, and sample it."""
    run = run_of(chosen)
    found = train_many(run, FiniteSet(ring_points(chosen.data.kwargs.dim)), [seed], on_call=on_call)
    field = run.field(found.of(0))
    return Trained(field, _drawn(field, chosen, num, seed), float(found.losses[-1, 0]))


def exact(chosen: ConfigDict, num: int, seed: int) -> Float[np.ndarray, "num D"]:
    """Return samples of the exact blind field that the network of a config approaches, by its sampler."""
    law = FiniteSet(ring_points(chosen.data.kwargs.dim))
    return _drawn(ExactField(build.marginal(chosen, law, accuracy=ACCURACY)), chosen, num, seed)


def speed(field: Field, seed: int) -> RadialField:
    """Return the speed at which a field leads away from a datum, by distance: the mean over data and directions."""
    dim = field.event_shape[0]
    radii = np.geomspace(_SMALLEST, _LARGEST, _RADII) * np.sqrt(dim)
    normal = np.random.default_rng(seed).standard_normal((_DIRECTIONS, dim))
    away = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    points = ring_points(dim)
    data = points[np.arange(_DIRECTIONS) % len(points)]
    u = jnp.asarray(data + radii[:, None, None] * away, jnp.float32).reshape(-1, dim)
    values = np.asarray(field(u, jnp.ones(len(u)))).reshape(_RADII, _DIRECTIONS, dim)
    return tabulated(field.process, radii, (values * away).sum(-1).mean(1) / radii)


def _drawn(field: Field, chosen: ConfigDict, num: int, seed: int) -> np.ndarray:
    return generate(field, root_key(seed), num, **{**run_of(chosen).sampling.options, "batch_size": None}).x
