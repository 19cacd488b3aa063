"""What classifier-free guidance buys and costs: more samples of the class that was asked for, less variety.

The class of a sample is told by its nearest neighbours in the training set; their accuracy on held-out data says how
far they can be trusted. What is lost in variety is told by the distance to held-out data, beside that of training data
with the classes of the samples.

Errors are those of samples alone: a share has the standard deviation of its posterior under Jeffreys' prior,
Beta(k + 1/2, n - k + 1/2), which is not zero where all samples agree; a distance has its spread over sets of samples
(:mod:`geonoise_jax.evaluation.floors`). The start noise is the same in all runs, which makes the errors of differences
between runs smaller than those of independent ones.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict
from sklearn.neighbors import KNeighborsClassifier

from geonoise_jax import build
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import Distance, floor, with_spread
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.evaluation.restore import Trained, restore
from geonoise_jax.fields import GuidedField
from geonoise_jax.figures import guidance as figure
from geonoise_jax.figures.outputs import write
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import class_turns, generate
from geonoise_jax.sampling.samplers import SAMPLERS
from geonoise_jax.training.sharding import sampling_mesh

_NEIGHBOURS = 5
_RATIO = 4.0


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        scales: guidance weights; 0 ignores the class, 1 is no guidance.
        interval: noise levels, lowest and highest, for the runs whose guidance is limited; None: where b / a is between
            1 / 4 and 4. Autonomous samplers have no such runs.
        num: samples per run, at least 2, whose classes take turns.
        held_out: the split that training did not see.
        seed: seed of the samples.

    Raises:
        ValueError: if there is no scale or fewer than 2 samples.
    """

    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    interval: tuple[float, float] | None = None
    num: int = 500
    held_out: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the sizes."""
        if not self.scales:
            raise UserError("scales = (): must be one or more weights")
        if self.num < 2:
            raise UserError(f"num = {self.num}: must be at least 2")


class Share(NamedTuple):
    """A share of n points, and the standard deviation of its posterior."""

    value: float
    error: float

    @classmethod
    def of(cls, hits: Bool[np.ndarray, "n"]) -> Share:
        """Return the share of the hits."""
        yes, no = hits.sum() + 0.5, (~hits).sum() + 0.5
        total = yes + no
        return cls(float(hits.mean()), math.sqrt(yes * no / (total**2 * (total + 1.0))))


class Run(NamedTuple):
    """Samples at one scale.

    Attributes:
        scale: guidance weight.
        interval: noise levels at which it was applied; None for all.
        samples: samples in model space.
        accuracy: share of them that are of the class that was asked for.
        distance: sliced Wasserstein distance to the held-out data; infinite if a sample is not finite.
    """

    scale: float
    interval: tuple[float, float] | None
    samples: Float[np.ndarray, "n *event"]
    accuracy: Share
    distance: Distance


class Study(NamedTuple):
    """All runs, and what they are compared with.

    Attributes:
        title: config and step.
        labels: class that was asked for, of each sample.
        runs: the runs.
        accuracy: accuracy of the neighbours on held-out data.
        floor: distance of training data to the held-out data, over draws with the classes of the samples.
    """

    title: str
    labels: Int[np.ndarray, "n"]
    runs: tuple[Run, ...]
    accuracy: Share
    floor: Distance


def run(folder: str | Path, out: str | Path, options: Options | None = None) -> str:
    """Sample a class-conditional workdir at several guidance scales, and write ``OUT.npz`` and ``OUT.png``.

    The .npz holds the fields of :class:`Run`, stacked; accuracies and distances, like those of the data
    (``data_accuracy`` and ``floor``), are pairs of a value and its error.

    Returns:
        The results as text.

    Raises:
        ValueError: if the folder is no workdir, its network was not trained with and without classes, or training saw
            the held-out data.
    """
    study = measure(folder, options or Options())
    columns = {name: np.asarray([getattr(each, name) for each in study.runs]) for name in Run._fields[2:]}
    intervals = np.asarray([each.interval or (-np.inf, np.inf) for each in study.runs])
    arrays: dict[str, Any] = {**columns, "interval": intervals, "scale": [each.scale for each in study.runs]}
    arrays |= {"labels": study.labels, "data_accuracy": study.accuracy, "floor": study.floor}
    write(Path(out), figure.picture(study), arrays)
    return figure.table(study)


def measure(folder: str | Path, options: Options) -> Study:
    """Return all runs, sampled over all devices.

    Raises:
        ValueError: see :func:`run`.
    """
    trained = restore(folder)
    config = trained.config
    labels = class_turns(options.num, trained.field.module.num_classes)
    if labels is None or not config.model.label_dropout > 0.0:
        raise UserError(f"workdir = {str(folder)!r}: must hold a class-conditional model with model.label_dropout > 0")
    (known, classes), (reference, true_classes) = (_labelled(config, split) for split in (None, options.held_out))
    check_held_out(options.held_out, known, reference)
    neighbours = KNeighborsClassifier(_NEIGHBOURS).fit(_flat(known), classes)
    chosen, runs = _chosen(trained, options), []
    measure = SlicedWasserstein(reference)
    progress = Progress("guidance", len(chosen), "runs")
    for scale, interval in chosen:
        samples = _samples(trained, scale, interval, labels, options.seed)
        finite = np.isfinite(samples).reshape(len(samples), -1).all(axis=1)
        told = neighbours.predict(_flat(np.nan_to_num(samples)))
        distance = with_spread(samples, measure, labels=labels)
        runs.append(Run(scale, interval, samples, Share.of(finite & (told == labels)), distance))
        progress.update(len(runs))
    progress.close()
    base = floor(known, options.num, measure, labels=classes, like=labels)
    title = f"{config.data.name}, {config.schedule.name}, {config.target.name}, step {trained.step}"
    accuracy = Share.of(neighbours.predict(_flat(reference)) == true_classes)
    return Study(title, labels, tuple(runs), accuracy, base)


def _chosen(trained: Trained, options: Options) -> list[tuple[float, tuple[float, float] | None]]:
    """Return scale and interval of each run."""
    everywhere: list[tuple[float, tuple[float, float] | None]] = [(scale, None) for scale in options.scales]
    if not SAMPLERS[trained.config.sampling.sampler.name].timed:
        return everywhere
    interval = options.interval or _middle(trained.field.process.schedule)
    return everywhere + [(scale, interval) for scale in options.scales if scale != 1.0]


def _middle(schedule: Schedule) -> tuple[float, float]:
    low, high = (float(schedule.t_of_eta(jnp.asarray(eta))) for eta in (-math.log(_RATIO), math.log(_RATIO)))
    return low, high


def _samples(
    trained: Trained, scale: float, interval: tuple[float, float] | None, labels: np.ndarray, seed: int
) -> np.ndarray:
    field = GuidedField(trained.field, scale, interval=interval)
    options, mesh = build.sampling_options(trained.config), sampling_mesh()
    return generate(field, root_key(seed), len(labels), **options, labels=labels, mesh=mesh).x


def _labelled(config: ConfigDict, split: str | None) -> tuple[Float[np.ndarray, "n *event"], Int[np.ndarray, "n"]]:
    """Return the items of a split that have a class, and their classes."""
    data = build.arrays(config, split)
    labels = np.asarray(data.labels)
    return build.model_points(data)[labels >= 0], labels[labels >= 0]


def _flat(points: Float[np.ndarray, "n *event"]) -> Float[np.ndarray, "n d"]:
    return points.reshape(len(points), -1)
