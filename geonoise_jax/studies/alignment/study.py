r"""Does blind DDIM work once its forward process is that of flow matching (arXiv:2604.25289)?

"Exploring time conditioning in diffusion generative models from disjoint noisy data manifolds" (arXiv:2604.25289) says
that DDIM, which breaks without the noise level, samples well without it where the noisy data are those of flow
matching, ``a = 1 - t``, ``b = t``. The target stays the noise. Equation (63) of "The Geometry of Noise" gives, for the
noise target of any schedule,

    mu = a' / a,   nu = b' - b a' / a                   on the linear schedule -1 / (1 - t) and 1 / (1 - t)
    du / dlog a = u - f / b (VP),   u - f (Linear)      one unit of log a is an e-fold of the signal

so that alignment leaves the amplifier where it was: an error of the radius made at t_max grows by ``1 / a(t_max)``, 152
on VP and 1000 on the linear schedule up to t = 0.999, of 5.0 and 6.9 e-folds. What it changes is the prior of the noise
level: a uniform t makes b uniform, while on VP half of all times have b above 0.96. The blind field at pure noise,
``f = E[1 / b | u] u`` but for the data's part, takes less noise to be likely, so that the radius shrinks faster than it
should, on the linear schedule more than on VP (:class:`Push`). The amplifier makes the most of it: a sample is denoised
too early, and then rests on a datum, where f may have any length up to E[s]. Where the e-folds are too few for the
push, as with times up to 0.95 alone, or the first step too long for it, some samples stay noise.

Exact fields are those of 16 points on a circle in R^D with a uniform time law, as in ``blind_sampling``; networks are
residual MLPs on two circles in R^D, as in ``circles``, over seeds. Both are sampled in two ways: by Heun's method on a
grid that is even in log SNR, and by DDIM on a grid even in t. What is made is kept in a folder, where a second call
goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geonoise_jax import checks, files
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear, VPLinear
from geonoise_jax.process.targets import Noise, Velocity
from geonoise_jax.stability import drift_factor
from geonoise_jax.studies.alignment import models
from geonoise_jax.studies.alignment.models import BLIND, WAYS, Push
from geonoise_jax.studies.circles.models import distances
from geonoise_jax.studies.concurrency import at_once
from geonoise_jax.studies.quantiles import QUANTILE, quantile, quantile_interval
from geonoise_jax.studies.quick import replace_defaults

_QUICK = {"dims": (2,), "train_dims": (), "num": 64, "num_steps": 40, "ddim_steps": 30}


@dataclasses.dataclass(frozen=True)
class System:
    """One process of the comparison.

    Attributes:
        name: as in the table.
        process: schedule and target.
        trained: whether networks are trained on it too.
    """

    name: str
    process: Process
    trained: bool = True

    @property
    def amplification(self) -> float:
        """What the drift alone makes of an error on the whole way, ``exp(-int mu)``."""
        schedule = self.process.schedule
        return float(drift_factor(self.process, schedule.t_max, schedule.t_min))


MISALIGNED, ALIGNED, SHORT, VELOCITY = range(4)
SYSTEMS = (
    System("VP, noise", Process(VPLinear(), Noise())),
    System("Linear, noise", Process(Linear(), Noise())),
    System("Linear, noise, t < 0.95", Process(Linear(t_max=0.95), Noise()), trained=False),
    System("Linear, velocity", Process(Linear(), Velocity())),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of exact fields.
        num: samples of each field.
        num_steps: steps of Heun's method.
        ddim_steps: steps of DDIM.
        train_dims: dimensions D of networks; none of them if empty.
        seeds: trainings of each network.
        steps: updates of each, of 256 fresh points.
        quick: try everything out at a size that shows little: takes the place of numbers that are not given.
        seed: seed of the samples; trainings have the seeds 0, 1, 2, ...
        runs: folder of what was made.

    Raises:
        ValueError: if a value is out of its range.
    """

    dims: tuple[int, ...] = (2, 8, 32)
    num: int = 256
    num_steps: int = 150
    ddim_steps: int = 100
    train_dims: tuple[int, ...] = (8,)
    seeds: int = 3
    steps: int = 1000
    quick: bool = False
    seed: int = 0
    runs: Path = Path("alignment")

    def __post_init__(self) -> None:
        """Validate the numbers."""
        if self.quick:
            replace_defaults(self, _QUICK)
        object.__setattr__(self, "runs", Path(self.runs))
        for name in ("dims", "train_dims") if self.train_dims else ("dims",):
            checks.increasing(name, getattr(self, name), checks.integer, low=2)
        for name, low in (("num", 20), ("num_steps", 1), ("ddim_steps", 1), ("seeds", 2), ("steps", 1), ("seed", 0)):
            checks.integer(name, getattr(self, name), low=low)

    @property
    def num_of(self) -> dict[str, int]:
        """Steps of each way to sample."""
        return dict(zip(WAYS, (self.num_steps, self.ddim_steps), strict=True))


class Study(NamedTuple):
    """All distances: S systems, K dimensions, 2 ways to sample, n samples; the conditional field before the blind one.

    Attributes:
        options: the choices.
        exact: distance of the samples of exact fields to the nearest datum, infinite where one is not finite.
        levels: median over blind samples of |u - nearest datum| / sqrt(D) along the way of Heun's method.
        signal: a(t) at these times.
        push: what the blind field does to pure noise, by system and dimension.
        trained: distance of the samples of T trained systems to the nearest circle.
    """

    options: Options
    exact: Float[np.ndarray, "S K 2 2 n"]
    levels: Float[np.ndarray, "S K times"]
    signal: Float[np.ndarray, "S times"]
    push: tuple[tuple[Push, ...], ...]
    trained: Float[np.ndarray, "T K 2 2 seeds n"]

    @property
    def quantile(self) -> Float[np.ndarray, "S K 2 2"]:
        """90% quantile of the distance, of exact fields."""
        return quantile(self.exact)

    @property
    def interval(self) -> Float[np.ndarray, "S K 2 2 2"]:
        """Ends of its 95% interval."""
        return quantile_interval(self.exact, QUANTILE)

    @property
    def ratio(self) -> Float[np.ndarray, "S K 2 3"]:
        """Blind over conditional quantile, and the ends of an interval of at least 90%, from those of both."""
        known, blind = np.moveaxis(self.interval, 3, 0)
        value = self.quantile[..., 1] / self.quantile[..., 0]
        return np.stack([value, blind[..., 0] / known[..., 1], blind[..., 1] / known[..., 0]], axis=-1)

    @property
    def trained_quantile(self) -> Float[np.ndarray, "T K 2 2 seeds"]:
        """90% quantile of the distance, of each network."""
        return quantile(self.trained)


def trained_systems() -> tuple[System, ...]:
    """Return the systems that networks are trained on."""
    return tuple(each for each in SYSTEMS if each.trained)


@in_one_warning()
def measure(options: Options) -> Study:
    """Sample exact fields, train and sample networks, and measure how far from the data they end.

    What is there already is not done again.

    Raises:
        ValueError: if the folder cannot be written, or a training diverges.
    """
    folder = files.usable_folder(options.runs, "runs")
    with files.locked(folder, "runs"):
        found = at_once("alignment", "models", _tasks(options, folder))
    count = len(SYSTEMS) * len(options.dims)
    return _study(options, found[:count], found[count:])


def _tasks(options: Options, folder: PurePath) -> dict[str, Callable[[], Any]]:
    """Return what makes the exact fields' samples, then the networks', conditional before blind."""
    num, steps, seed = options.num, options.num_of, options.seed
    tasks: dict[str, Callable[[], Any]] = {}
    for system, dim in itertools.product(SYSTEMS, options.dims):
        exact = functools.partial(models.exact, folder, system.process, dim, num, steps, seed)
        tasks[f"{system.name}, exact, D = {dim}"] = exact
    for system, dim, kind in itertools.product(trained_systems(), options.train_dims, models.CONDITIONING):
        wanted = models.Wanted(system.process, dim, kind == BLIND, options.steps, options.seeds)
        tasks[f"{system.name}, {kind} network, D = {dim}"] = functools.partial(_network, folder, wanted, options)
    return tasks


def _network(folder: PurePath, wanted: models.Wanted, options: Options) -> Float[np.ndarray, "2 seeds n"]:
    return distances(models.trained(folder, wanted, options.num, options.num_of, options.seed), models.law(wanted))


def _study(options: Options, exact: list[models.Exact], networks: list[np.ndarray]) -> Study:
    rows, columns = len(SYSTEMS), len(options.dims)
    of_system = [exact[row * columns : (row + 1) * columns] for row in range(rows)]
    times = [each[0].times for each in of_system]
    schedules = [each.process.schedule for each in SYSTEMS]
    signal = [np.asarray(each.scales(jnp.asarray(t))[0]) for each, t in zip(schedules, times, strict=True)]
    shape = (len(trained_systems()), len(options.train_dims), 2, 2, options.seeds, options.num)
    # The conditional field is beside the blind one, of each way to sample.
    trained = np.asarray(networks).reshape(*shape[:2], 2, 2, *shape[4:]).swapaxes(2, 3)
    return Study(
        options,
        np.asarray([[each.distances for each in row] for row in of_system]),
        np.asarray([[each.levels for each in row] for row in of_system]),
        np.asarray(signal),
        tuple(tuple(each.push for each in row) for row in of_system),
        trained,
    )
