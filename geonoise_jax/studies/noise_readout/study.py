r"""How well the noise level is read off a noisy observation, and what else a blind network's features know.

Flow matching's path ``u = (1 - t) x + t eps`` with t uniform on [0.001, 0.999], so that the noise scale b is t.

Of Gaussian data on a subspace of dimension d in R^D, and of the digits, t is read off u by

    posterior   E[t | u], exactly; its root mean square error, the root of E Var[t | u], is the floor of all readers
    geometry    sigma_hat = r / sqrt(D - d), r the distance to the subspace ("The Geometry of Noise", arXiv:2602.18428,
                section 6, appendix C); of digits the principal subspace through the origin whose d reads best
    probe       ridge regression of a blind U-Net's bottleneck, which was trained on the digits by flow matching
    pixels      ridge regression of u itself, which is linear and cannot see a scale

The posterior of digits is that of the training images as points, whose floor holds for noisy training images alone; of
held-out images it may be wrong, as the distance to the nearest training image is not noise.

The class of the digits is read off the same bottleneck by a ridge classifier, at several noise levels and along
training: fitted on noisy training images, asked of noisy held-out ones. Beside it stands the same classifier of u.
What is trained is kept in a folder, where a second call goes on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from geonoise_jax import checks, files
from geonoise_jax.evaluation.restore import fresh_field, restore, saved_steps
from geonoise_jax.exact import Distribution, FiniteSet, Marginal, Subspace
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.fields import NetworkField
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Velocity
from geonoise_jax.process.times import Uniform
from geonoise_jax.progress import Progress
from geonoise_jax.studies.excess_risk.study import spread
from geonoise_jax.studies.labelled import Labelled, flat, labelled
from geonoise_jax.studies.noise_readout.probes import Distances, features, read_class, read_level
from geonoise_jax.studies.quick import replace_defaults
from geonoise_jax.studies.ring import ACCURACY
from geonoise_jax.studies.workdirs import Training, train

PROCESS = Process(Linear(), Velocity())
READERS = ("posterior", "geometry", "probe", "pixels")
POSTERIOR, GEOMETRY, PROBE, PIXELS = range(4)
# The last block in the middle of a U-Net.
BOTTLENECK = "middle_block_1"
SPLITS = ("training images", "held-out images")
_QUICK = {"dims": (4, 16), "num": 200, "num_fit": 1000, "steps": 20, "checkpoints": 1, "levels": (0.1, 0.5)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space of Gaussian data.
        data_dim: dimension d of their subspace, below all D.
        num: noisy observations, each of an own noise level, off which it is read.
        num_fit: those that the probes of the noise level are fitted on.
        steps: updates of the network, of 64 images.
        checkpoints: how many of the network along training, besides the untrained one.
        levels: noise levels t at which the class is read.
        quick: try everything out at a size that shows little: takes the place of numbers that are not given.
        seed: seed of the noise.
        runs: folder of the network.

    Raises:
        ValueError: if a value is out of its range.
    """

    dims: tuple[int, ...] = (4, 16, 64)
    data_dim: int = 2
    num: int = 1000
    num_fit: int = 4000
    steps: int = 300
    checkpoints: int = 3
    levels: tuple[float, ...] = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
    quick: bool = False
    seed: int = 0
    runs: Path = Path("noise_readout")

    def __post_init__(self) -> None:
        """Validate the numbers."""
        if self.quick:
            replace_defaults(self, _QUICK)
        object.__setattr__(self, "runs", Path(self.runs))
        checks.integer("data_dim", self.data_dim, low=1)
        checks.increasing("dims", self.dims, checks.integer, low=self.data_dim + 1)
        for name, low in (("num", 20), ("num_fit", 20), ("steps", 10), ("checkpoints", 1), ("seed", 0)):
            checks.integer(name, getattr(self, name), low=low)
        within = PROCESS.schedule
        checks.increasing("levels", self.levels, checks.real, low=within.t_min, high=within.t_max)


class Readings(NamedTuple):
    """Noise levels read off n observations by several readers.

    Attributes:
        level: the true ones.
        read: what is read, by reader; not a number where one reads nothing.
        width: standard deviation of the posterior.
    """

    level: Float[np.ndarray, "n"]
    read: Float[np.ndarray, "readers n"]
    width: Float[np.ndarray, "n"]

    @property
    def squares(self) -> Float[np.ndarray, "readers n"]:
        """Squared errors."""
        return np.square(self.read - self.level)


class Study(NamedTuple):
    """What was read.

    Attributes:
        options: the choices.
        subspaces: noise levels of Gaussian data by dimension D, by posterior and geometry alone.
        digits: noise levels of digits, by split.
        data_dim: dimension d of the subspace by which geometry reads digits.
        steps: updates of the checkpoints; 0 is the untrained network.
        hits: whether the class is read rightly off the features of K checkpoints, at L levels, of m held-out images.
        pixel_hits: the same of u itself.
    """

    options: Options
    subspaces: tuple[Readings, ...]
    digits: tuple[Readings, Readings]
    data_dim: int
    steps: tuple[int, ...]
    hits: Bool[np.ndarray, "K L m"]
    pixel_hits: Bool[np.ndarray, "L m"]


@in_one_warning()
def measure(options: Options) -> Study:
    """Train a blind network on the digits, or go on with it, and read noise level and class off its features.

    Raises:
        ValueError: if the folder cannot be written, or is of another run.
    """
    folder = files.usable_folder(options.runs, "runs")
    chosen = config_of(options.steps)
    workdir = Path(folder) / f"network-{options.steps}"
    train(chosen, workdir)
    steps = spread(saved_steps(workdir), options.checkpoints)
    progress = Progress("noise_readout", 2 + len(options.dims) + len(steps), "parts")
    subspaces = []
    for done, dim in enumerate(options.dims):
        subspaces.append(of_subspace(dim, options))
        progress.update(done + 1, f"subspace of R^{dim}")
    splits = [labelled(chosen, split) for split in (None, "test")]
    fields = {0: fresh_field(workdir).field, **{step: restore(workdir, step=step).field for step in steps}}
    digits, data_dim = of_digits(fields[steps[-1]], splits, options)
    progress.update(1 + len(options.dims), "noise levels of digits")
    hits = []
    for number, (step, field) in enumerate(fields.items()):
        hits.append(class_hits(field, splits, options))
        progress.update(2 + len(options.dims) + number, f"classes at step {step}")
    progress.close()
    pixels = class_hits(None, splits, options)
    return Study(options, tuple(subspaces), digits, data_dim, tuple(fields), np.stack(hits), pixels)


def config_of(steps: int) -> ConfigDict:
    """Return the config of the network: blind flow matching on digits, with checkpoints all along."""
    changes = {
        "training.num_steps": steps,
        "training.log_every": max(1, steps // 4),
        "checkpoint.every": steps // 10,
        "checkpoint.keep": 20,
        "optimizer.decay": "constant",
        "sampling.every": 0,
    }
    return Training("configs/digits.py:flow_matching,blind", changes).choose()


def observed(
    x: Float[np.ndarray, "n *event"], level: Float[np.ndarray, "n"], generator: np.random.Generator
) -> Float[np.ndarray, "n *event"]:
    """Return ``(1 - t) x + t eps``."""
    t = level.reshape(-1, *(1,) * (x.ndim - 1))
    return ((1.0 - t) * x + t * generator.standard_normal(x.shape)).astype(np.float32)


def of_subspace(dim: int, options: Options) -> Readings:
    """Return noise levels of standard Gaussian data on a random subspace of R^dim, by posterior and geometry."""
    generator = np.random.default_rng([options.seed, dim])
    frame = np.linalg.qr(generator.standard_normal((dim, options.data_dim)))[0].astype(np.float32)
    law = Subspace(frame, 1.0)
    x = np.asarray(law.sample(jax.random.fold_in(root_key(options.seed), dim), options.num))
    level = _levels(options.num, generator)
    u = observed(x, level, generator)
    mean, width = exact_posterior(law, u)
    away = u - (u @ frame) @ frame.T
    sigma_hat = np.linalg.norm(away, axis=1) / np.sqrt(dim - options.data_dim)
    nothing = np.full(options.num, np.nan)
    return Readings(level, np.stack([mean, sigma_hat, nothing, nothing]), width)


def exact_posterior(
    law: Distribution, u: Float[np.ndarray, "n *event"]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Return mean and standard deviation of the noise level given each observation, of a uniform time law."""
    time_law = Uniform(PROCESS.schedule.t_min, PROCESS.schedule.t_max)
    found = Marginal(law, PROCESS, time_law, accuracy=ACCURACY, adaptive=False).posterior(jnp.asarray(u))
    return np.asarray(found.mean, np.float64), np.sqrt(np.asarray(found.var, np.float64))


def of_digits(field: NetworkField, splits: list[Labelled], options: Options) -> tuple[tuple[Readings, Readings], int]:
    """Return noise levels of training and of held-out digits by all readers, and the dimension that geometry takes."""
    generator = np.random.default_rng([options.seed, 1])
    known, level = _draws(splits[0].x, options.num_fit, generator)
    of_known = features(field, known, BOTTLENECK)
    rows, distances = flat(known), Distances.of(flat(splits[0].x))
    data_dim = distances.best(rows, level)
    law, found = FiniteSet(splits[0].x), []
    for split in splits:
        u, true = _draws(split.x, options.num, generator)
        mean, width = exact_posterior(law, u)
        read = [
            mean,
            distances.sigma_hat(flat(u), data_dim),
            read_level((of_known, level), features(field, u, BOTTLENECK)),
            read_level((rows, level), flat(u)),
        ]
        found.append(Readings(true, np.stack(read), width))
    return (found[0], found[1]), data_dim


def class_hits(field: NetworkField | None, splits: list[Labelled], options: Options) -> Bool[np.ndarray, "L m"]:
    """Return whether the class of noisy held-out digits is read rightly, at each level; off u without a field."""
    found = []
    for level in options.levels:
        # The same noise for all networks.
        generator = np.random.default_rng([options.seed, 2])
        seen = [observed(each.x, np.full(len(each.x), level), generator) for each in splits]
        known, asked = (flat(u) if field is None else features(field, u, BOTTLENECK) for u in seen)
        found.append(read_class((known, splits[0].labels), asked) == splits[1].labels)
    return np.stack(found)


def _draws(
    x: Float[np.ndarray, "m *event"], num: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "n *event"], Float[np.ndarray, "n"]]:
    """Return observations of random images at random noise levels, and these."""
    level = _levels(num, generator)
    return observed(x[generator.integers(len(x), size=num)], level, generator), level


def _levels(num: int, generator: np.random.Generator) -> Float[np.ndarray, "n"]:
    return generator.uniform(PROCESS.schedule.t_min, PROCESS.schedule.t_max, num)
