"""What the study samples: exact fields of points on a circle, and small networks on circles, each kept in a file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from geonoise_jax import systems
from geonoise_jax.config import spec
from geonoise_jax.exact import Circles, FiniteSet
from geonoise_jax.fields import Field
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process, expand
from geonoise_jax.sampling import Samples, generate
from geonoise_jax.studies.circles import models as small
from geonoise_jax.studies.circles.models import BLIND as BLIND
from geonoise_jax.studies.circles.models import CONDITIONAL
from geonoise_jax.studies.kept import kept
from geonoise_jax.studies.ring import exact_field, nearest, ring
from geonoise_jax.training.many import train_many

CONDITIONING = (CONDITIONAL, BLIND)
# Sampler and grid.
WAYS = {"Heun": ("heun", "log_snr"), "DDIM": ("ddim", "uniform")}
# The one whose way is kept.
_FOLLOWED = "Heun"
_BATCH, _WIDTH, _DEPTH = 256, 128, 3
_PATHS, _NOISE = 3, 4
_PUSHED = 512


class Push(NamedTuple):
    """What a blind field does to the radius of pure noise, in units of that radius and per e-fold of a.

    Attributes:
        inward: mean over noise of the inward speed of the radius.
        error: its standard error.
        outward: share of draws whose radius grows.
    """

    inward: float
    error: float
    outward: float


class Exact(NamedTuple):
    """Samples of the exact fields of one system in one dimension.

    Attributes:
        distances: to the nearest datum, by way to sample, and conditional before blind.
        levels: see ``Study.levels``.
        times: of the levels.
        push: see :class:`Push`.
    """

    distances: Float[np.ndarray, "2 2 n"]
    levels: Float[np.ndarray, "times"]
    times: Float[np.ndarray, "times"]
    push: Push


class Wanted(NamedTuple):
    """A network that is trained on several seeds.

    Attributes:
        process: schedule and target.
        dim: dimension D.
        blind: whether it is shown no noise level.
        steps: updates.
        seeds: trainings.
    """

    process: Process
    dim: int
    blind: bool
    steps: int
    seeds: int


def exact(folder: PurePath, process: Process, dim: int, num: int, steps: Mapping[str, int], seed: int) -> Exact:
    """Sample the exact fields of points on a circle in R^dim, or read what was sampled before.

    Args:
        folder: where it is kept.
        process: schedule and target.
        dim: dimension D.
        num: samples.
        steps: steps of each of ``WAYS``.
        seed: seed of the samples.
    """
    made = functools.partial(_exact, process, dim, num, steps, seed)
    found = kept(folder, f"exact-D{dim}", (process, dim, num, sorted(steps.items()), seed), made)
    return Exact(found["distances"], found["levels"], found["times"], Push(*map(float, found["push"])))


def _exact(process: Process, dim: int, num: int, steps: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    points, key = ring(dim)[0], root_key(seed)
    known, blind = (exact_field(FiniteSet(points), process, each) for each in (False, True))
    found = [
        [_draw(each, key, num, way, steps[way], path=each.blind and way == _FOLLOWED) for each in (known, blind)]
        for way in WAYS
    ]
    followed = found[list(WAYS).index(_FOLLOWED)][1]
    path = np.asarray(followed.trajectory)
    away = nearest(path.reshape(-1, dim), points).reshape(path.shape[:2])
    return {
        "distances": np.asarray([[nearest(each.x, points) for each in row] for row in found]),
        "levels": np.median(away, axis=1) / dim**0.5,
        "times": np.asarray(followed.times),
        "push": np.asarray(push(blind, seed)),
    }


def push(field: Field, seed: int, num: int = _PUSHED) -> Push:
    """Return what a field does to the radius of pure noise at t_max, per e-fold of the signal scale.

    Args:
        field: a field of one process; a conditional one is told t_max.
        seed: seed of the noise.
        num: draws.
    """
    process = field.process
    t = jnp.full(num, process.schedule.t_max)
    k = process.coeffs(t)
    eps = jax.random.normal(jax.random.fold_in(root_key(seed), _NOISE), (num, *field.event_shape))
    u = expand(k.b, eps) * eps
    outward = process.velocity(u, field(u, t), t) / expand(k.da / k.a, u)
    speed = np.asarray((outward * u).sum(-1) / (u * u).sum(-1), np.float64)
    return Push(-float(speed.mean()), float(speed.std(ddof=1)) / num**0.5, float((speed > 0.0).mean()))


def config_of(wanted: Wanted) -> ConfigDict:
    """Return the config of a network: flow matching's on circles, with another schedule and target."""
    model = small.Model(wanted.dim, "flow_matching", BLIND if wanted.blind else CONDITIONAL)
    config = small.config_of(model, wanted.steps, _BATCH, _WIDTH, _DEPTH)
    names = (type(wanted.process.schedule).__name__, type(wanted.process.parameterization).__name__)
    return systems.apply(config, {"schedule": spec(names[0]), "target": spec(names[1])})


def law(wanted: Wanted) -> Circles:
    """Return the law of the data of a network."""
    return small.law_of(config_of(wanted))


def trained(
    folder: PurePath, wanted: Wanted, num: int, steps: Mapping[str, int], seed: int
) -> Float[np.ndarray, "2 seeds num D"]:
    """Train a network on all seeds and sample it in each of ``WAYS``, or read what was made before.

    Args:
        folder: where it is kept.
        wanted: the network.
        num: samples of each training.
        steps: steps of each of ``WAYS``.
        seed: seed of the samples.

    Raises:
        ValueError: if a training diverges.
    """
    kind = BLIND if wanted.blind else CONDITIONAL
    key = (small.digest(config_of(wanted)), wanted.seeds, num, sorted(steps.items()), seed)
    made = functools.partial(_trained, wanted, num, steps, seed)
    return kept(folder, f"{kind}-D{wanted.dim}", key, made)["samples"]


def _trained(wanted: Wanted, num: int, steps: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    config = config_of(wanted)
    run, key = small.run_of(config), jax.random.fold_in(root_key(seed), _PATHS)
    found = train_many(run, small.law_of(config), range(wanted.seeds))
    fields = [run.field(found.of(place)) for place in range(wanted.seeds)]
    samples = [[_draw(each, key, num, way, steps[way]).x for each in fields] for way in WAYS]
    return {"samples": np.asarray(samples), "losses": found.losses}


def _draw(field: Field, key: Any, num: int, way: str, steps: int, *, path: bool = False) -> Samples:
    sampler, grid = WAYS[way]
    return generate(field, key, num, sampler, steps, grid=grid, trajectory=path)
