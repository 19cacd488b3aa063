"""The models of the study: configs of named systems on circles in R^D, their training on all seeds, and samples."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from geonoise_jax import build, config
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.evaluation.modes import circle_distances
from geonoise_jax.exact import Circles
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.process.keys import root_key
from geonoise_jax.sampling import generate
from geonoise_jax.studies.workdirs import Training
from geonoise_jax.training.many import train_many
from geonoise_jax.training.run import Run

SYSTEMS = ("ddpm", "flow_matching", "edm", "eqm", "x_prediction")
BLIND, CONDITIONAL = "blind", "conditional"
# Root mean square of an entry of the data, of circles of radii 1 and 2, times the root of D.
_SIZE = 2.5**0.5
_SAMPLES = 2
# Far below the errors of networks.
_ACCURACY = 1e-3


class Model(NamedTuple):
    """One system in one dimension.

    Attributes:
        dim: the dimension D.
        system: name of the system.
        conditioning: ``blind`` or ``conditional``.
    """

    dim: int
    system: str
    conditioning: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"D{self.dim}-{self.system}-{self.conditioning}"


def models(dims: Sequence[int], systems: Sequence[str]) -> list[Model]:
    """Return all models, the blind one of each system after the conditional one."""
    return [Model(*each) for each in itertools.product(dims, systems, (CONDITIONAL, BLIND))]


def config_of(model: Model, steps: int, batch_size: int, width: int, depth: int) -> ConfigDict:
    """Return the config of a model: that of its system on circles, at the size of the study."""
    changes = {
        "data.kwargs.dim": model.dim,
        "data.sigma_data": _SIZE / model.dim**0.5,
        "model.kwargs.width": width,
        "model.kwargs.depth": depth,
        "training.num_steps": steps,
        "training.batch_size": batch_size,
    }
    return Training(f"configs/circles.py:{model.system},{model.conditioning}", changes).choose()


def law_of(chosen: ConfigDict) -> Circles:
    """Return the law of the data of a config."""
    law = build.distribution(chosen)
    if not isinstance(law, Circles):
        raise TypeError(f"configs/circles.py: its data must be circles, not {type(law).__name__}")
    return law


def run_of(chosen: ConfigDict) -> Run:
    """Return the run of a config, whose data are drawn as they are needed."""
    return build.run(chosen, Arrays(events=np.zeros((1, chosen.data.kwargs.dim), np.float32)))


def trained(
    chosen: ConfigDict, seeds: Sequence[int], num: int, seed: int, on_call: Callable[[int, int], None]
) -> tuple[Float[np.ndarray, "seeds num D"], Float[np.ndarray, "calls seeds"]]:
    """Train a model once for each seed; return samples of each by the sampler of the config, and losses.

    Samples that are not finite stay so.
    """
    run = run_of(chosen)
    found = train_many(run, law_of(chosen), seeds, on_call=on_call)
    drawn = [_drawn(run.field(found.of(place)), run.sampling.options, num, seed, place) for place in range(len(seeds))]
    return np.stack(drawn), found.losses


def exact(chosen: ConfigDict, num: int, seed: int) -> Float[np.ndarray, "num D"]:
    """Return samples of the exact field that the network of a config approaches, by its sampler."""
    run = run_of(chosen)
    field = ExactField(build.marginal(chosen, law_of(chosen), accuracy=_ACCURACY), run.blind)
    return _drawn(field, run.sampling.options, num, seed, 0)


def of_data(law: Circles, num: int, seed: int, draw: int) -> Float[np.ndarray, "num D"]:
    """Return points of the law itself; draws of other numbers are independent of each other and of all samples."""
    return np.asarray(law.sample(jax.random.fold_in(root_key(seed), draw), num))


def distances(samples: Float[np.ndarray, "*k D"], law: Circles) -> Float[np.ndarray, "*k"]:
    """Return the distance of each sample from the nearest circle, infinite where it is not finite."""
    finite = np.isfinite(samples).all(axis=-1)
    found = np.full(finite.shape, np.inf)
    if finite.any():
        found[finite] = circle_distances(samples[finite], law)
    return found


def digest(chosen: ConfigDict, **more: Any) -> str:
    """Return what the samples of a config depend on, in few letters."""
    return hashlib.sha256(f"{config.dumps(chosen)}{sorted(more.items())}".encode()).hexdigest()[:16]


def _drawn(field: Field, options: Any, num: int, seed: int, place: int) -> np.ndarray:
    key = jax.random.fold_in(jax.random.fold_in(root_key(seed), _SAMPLES), place)
    return generate(field, key, num, **{**options, "batch_size": None}).x
