"""The models of the study: their configs, and samplers that take a given number of evaluations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from geonoise_jax import checks, files
from geonoise_jax.config import AUTONOMOUS
from geonoise_jax.data.idx import read_splits
from geonoise_jax.data.repacked import FOLDERS
from geonoise_jax.errors import UserError
from geonoise_jax.studies.workdirs import Training

SYSTEMS = ("ddpm", "flow_matching", "edm", "eqm")
CONDITIONING = ("conditional", "blind")
DIGITS, FASHION = "digits", "fashion_mnist"
# Where Debian's package dataset-fashion-mnist puts its four files.
FASHION_FOLDER = FOLDERS[FASHION]
# What a CPU can train in minutes at 28 x 28 pixels, and without an end, so that training can go on.
_SMALL = {
    "model.kwargs.base_channels": 12,
    "model.kwargs.channel_multipliers": (1, 2, 2),
    "model.kwargs.blocks_per_level": 1,
    "model.kwargs.attention_resolutions": (),
    "model.kwargs.middle_attention": False,
    "training.batch_size": 64,
    "optimizer.learning_rate": 2e-3,
}
# Evaluations of the network in a step of a sampler on a grid.
_OF_A_STEP = {"heun": 2, "edm_churn": 2, "ddim": 1}


class Model(NamedTuple):
    """One of the models.

    Attributes:
        system: name of the system.
        conditioning: ``blind`` or ``conditional``.
    """

    system: str
    conditioning: str

    @property
    def name(self) -> str:
        """Name of its workdir."""
        return f"{self.system}-{self.conditioning}"


class Way(NamedTuple):
    """How a model is sampled with a number of evaluations of the network.

    Attributes:
        num_steps: steps of the grid; none of samplers without one.
        options: options of the sampler.
    """

    num_steps: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]


def models(systems: Sequence[str] = SYSTEMS) -> list[Model]:
    """Return all models, the blind one of each system after the conditional one."""
    return [Model(*pair) for pair in itertools.product(systems, CONDITIONING)]


def config_of(model: Model, data: str, steps: int, folder: Path, path: Path | None) -> ConfigDict:
    """Return the config of a model: that of its data set, of a constant learning rate so that it can be trained on.

    Args:
        model: the model.
        data: ``digits`` or ``fashion_mnist``.
        steps: number of updates.
        folder: where arrays of the data set are kept.
        path: of the data set, see :class:`~geonoise_jax.studies.images.Options`.

    Raises:
        ValueError: if the data set is not there.
    """
    changes: dict[str, Any] = {
        "training.num_steps": steps,
        "training.log_every": max(1, min(100, steps // 4)),
        "checkpoint.every": max(1, min(500, steps)),
        "optimizer.decay": "constant",
        "sampling.every": 0,
    }
    if data == FASHION:
        changes |= _SMALL | {"data.name": "npz", "data.kwargs.path": _fashion(folder, path)}
    return Training(f"configs/{data}.py:{model.system},{model.conditioning}", changes).choose()


def way(chosen: ConfigDict, evaluations: int) -> Way:
    """Return how the sampler of a config takes this number of evaluations of the network, or one less.

    Descent of an equilibrium field takes longer steps where it takes fewer, of the same length together.

    Raises:
        ValueError: if nothing is known of the sampler, or there are too few for a step.
    """
    sampling = chosen.sampling
    name, options = sampling.sampler.name, sampling.sampler.kwargs
    if name in AUTONOMOUS:
        length = options.step_size * options.max_steps
        return Way((), (("max_steps", evaluations), ("step_size", length / evaluations)))
    if name not in _OF_A_STEP:
        raise UserError(f"sampler = {name!r}: must be one of {', '.join((*_OF_A_STEP, *AUTONOMOUS))}")
    steps = (evaluations - sampling.denoise) // _OF_A_STEP[name]
    return Way((checks.integer(f"steps of {name} with {evaluations} evaluations", steps, low=1),), ())


def _fashion(folder: Path, path: Path | None) -> Path:
    found = FASHION_FOLDER if path is None else path
    if not found.exists():
        raise UserError(
            f"path = {str(found)!r}: does not exist; must be a folder with the four files of Fashion-MNIST (Debian's "
            "package dataset-fashion-mnist), or a .npz made of them"
        )
    if found.suffix == ".npz":
        return found
    made = folder / f"{FASHION}.npz"
    if not made.exists():
        files.write_arrays(made, read_splits(found))
    return made
