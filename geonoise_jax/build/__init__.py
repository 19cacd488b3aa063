"""From a config to objects: literal tables of names, and one function for each object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geonoise_jax.build.dataset import arrays as arrays
from geonoise_jax.build.dataset import distribution as distribution
from geonoise_jax.build.dataset import finite_set as finite_set
from geonoise_jax.build.dataset import marginal as marginal
from geonoise_jax.build.dataset import model_points as model_points
from geonoise_jax.build.dataset import scaling as scaling
from geonoise_jax.build.dataset import split_sizes as split_sizes
from geonoise_jax.build.networks import field_options as field_options
from geonoise_jax.build.networks import guidance as guidance
from geonoise_jax.build.networks import network as network
from geonoise_jax.build.networks import network_field as network_field
from geonoise_jax.build.networks import sampler as sampler
from geonoise_jax.build.networks import sampling_options as sampling_options
from geonoise_jax.build.processes import loss_weight as loss_weight
from geonoise_jax.build.processes import process as process
from geonoise_jax.build.processes import scale as scale
from geonoise_jax.build.processes import schedule as schedule
from geonoise_jax.build.processes import time_law as time_law
from geonoise_jax.build.specs import from_spec as from_spec

if TYPE_CHECKING:
    from geonoise_jax.build.runs import budget as budget
    from geonoise_jax.build.runs import layout as layout
    from geonoise_jax.build.runs import learning_rate as learning_rate
    from geonoise_jax.build.runs import objective as objective
    from geonoise_jax.build.runs import optimizer as optimizer
    from geonoise_jax.build.runs import run as run
    from geonoise_jax.build.runs import sampling as sampling
    from geonoise_jax.build.runs import train as train

# What needs the libraries of training, which exact fields do without.
_OF_TRAINING = ("budget", "layout", "learning_rate", "objective", "optimizer", "run", "sampling", "train")


def __getattr__(name: str) -> Any:
    if name not in _OF_TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from geonoise_jax.build import runs

    return getattr(runs, name)
