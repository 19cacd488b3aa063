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
from matplotlib.figure import Figure

from geonoise_jax import build
from geonoise_jax.checks import integer, real, several
from geonoise_jax.drawing import style
from geonoise_jax.drawing.pictures import image_grid, to_pixels
from geonoise_jax.drawing.text import aligned, with_error
from geonoise_jax.evaluation.floors import Distance, floor, with_spread
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.fields import GuidedField
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import class_turns, generate
from geonoise_jax.sampling.samplers import SAMPLERS
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.labelled import Neighbours, class_conditional, labelled
from geonoise_jax.studies.verdicts import Verdict
from geonoise_jax.training.sharding import sampling_mesh

_RATIO = 4.0
_OF_A_CLASS = 2


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        workdir: workdir of a class-conditional model.
        scales: guidance weights; 0 ignores the class, 1 is no guidance.
        interval: noise levels, lowest and highest, for the runs whose guidance is limited; None: where b / a is between
            1 / 4 and 4. Autonomous samplers have no such runs.
        num: samples per run, at least 2, whose classes take turns.
        held_out: the split that training did not see.
        seed: seed of the samples.

    Raises:
        ValueError: if there is no scale or fewer than 2 samples.
    """

    workdir: Path
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    interval: tuple[float, float] | None = None
    num: int = 500
    held_out: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the numbers; the samplers check the interval."""
        several("scales", self.scales, real)
        integer("num", self.num, low=2)
        integer("seed", self.seed, low=0)


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


def measure(options: Options) -> Study:
    """Sample a class-conditional workdir at several guidance scales, over all devices.

    Raises:
        ValueError: if the folder is no workdir, its network was not trained with and without classes, or training saw
            the held-out data.
    """
    trained = class_conditional(options.workdir)
    config = trained.config
    labels = np.asarray(class_turns(options.num, trained.field.module.num_classes))
    known, reference = (labelled(config, split) for split in (None, options.held_out))
    check_held_out(options.held_out, known.x, reference.x)
    neighbours = Neighbours(known)
    chosen, runs = _chosen(trained, options), []
    measure = SlicedWasserstein(reference.x)
    progress = Progress("guidance", len(chosen), "runs")
    for scale, interval in chosen:
        samples = _samples(trained, scale, interval, labels, options.seed)
        distance = with_spread(samples, measure, labels=labels)
        runs.append(Run(scale, interval, samples, Share.of(neighbours.hits(samples, labels)), distance))
        progress.update(len(runs))
    progress.close()
    base = floor(known.x, options.num, measure, labels=known.labels, like=labels)
    title = f"{config.data.name}, {config.schedule.name}, {config.target.name}, step {trained.step}"
    accuracy = Share.of(neighbours.hits(*reference))
    return Study(title, labels, tuple(runs), accuracy, base)


def table(study: Study) -> str:
    """Return the runs as text, with the held-out data and the chance of guessing beside them."""
    heading = (
        f"{study.title}: {len(study.labels)} samples per run\n"
        "of its class: share of samples whose nearest training data have the class that was asked for\n"
        "distance: sliced 2-Wasserstein, to held-out data; data: mean over draws of training data, classes alike\n"
        "+-: standard deviation over such samples; the held-out data and the network are the same for all"
    )
    rows = [["scale", "noise levels", "of its class", "distance"]]
    rows += [[f"{run.scale:g}", _levels(run), _percent(run.accuracy), with_error(*run.distance)] for run in study.runs]
    rows.append(["data", "", _percent(study.accuracy), with_error(*study.floor)])
    return "\n".join([heading, "", *aligned(rows, left=2), "", *findings(study)])


def findings(study: Study) -> list[str]:
    """Return a sentence that names the runs which are as near to the held-out data as training data."""
    near = [f"{run.scale:g} ({_levels(run)})" for run in study.runs if not run.distance.differs(study.floor)]
    return [f"As near to the held-out data as training data, within the spread: {'; '.join(near) or 'no scale'}."]


def verdicts(study: Study) -> list[Verdict]:
    """Return whether guidance at all noise levels buys class for variety (Ho & Salimans 2022, section 4)."""
    plain = next((run for run in study.runs if run.scale == 1.0 and run.interval is None), None)
    guided = [run for run in study.runs if run.scale > 1.0 and run.interval is None]
    if plain is None or not guided:
        return []
    condition = f"against scale 1, {len(study.labels)} samples a run, scale"
    return [
        over_cases(
            [_difference(run, plain, name) for run in guided],
            Claim("Ho & Salimans 2022", claim, condition, quantity),
            at_least=0.0,
        )
        for name, claim, quantity in (
            ("accuracy", "guidance draws more samples of the class that is asked for", "gain in share"),
            ("distance", "guidance moves samples away from the data", "gain in distance"),
        )
    ]


def _difference(run: Run, plain: Run, name: str) -> Case:
    """Return how much more a guided run has of something, with the interval of independent runs."""
    (value, error), (before, error_before) = getattr(run, name), getattr(plain, name)
    return Case.of(f"{run.scale:g}", value - before, math.hypot(error, error_before))


@style.paper()
def picture(study: Study) -> Figure:
    """Return accuracy and distance by scale and, of images, some samples of each class."""
    images = study.runs[0].samples.ndim == 4
    figure = Figure(figsize=(13.0 if images else 4.6, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 2 if images else 1, width_ratios=[1, 3] if images else None)
    accuracy, distance = (figure.add_subplot(grid[row, 0]) for row in range(2))
    _curve(accuracy, study, "accuracy", study.accuracy)
    accuracy.set(title="Share that is of the class asked for", ylabel="share")
    _curve(distance, study, "distance", study.floor)
    distance.set(title="Distance to held-out data", xlabel="guidance scale", ylabel="sliced 2-Wasserstein")
    accuracy.legend()
    if images:
        _show_samples(figure.add_subplot(grid[:, 1]), study)
    style.headed(figure, f"{study.title}: classifier-free guidance")
    return figure


def arrays(study: Study) -> dict[str, Any]:
    """Return the fields of all runs, stacked, with the class that was asked for, of each sample.

    Accuracies and distances, like those of the data (``data_accuracy`` and ``floor``), are pairs of a value and its
    error.
    """
    columns = {name: np.asarray([getattr(each, name) for each in study.runs]) for name in Run._fields[2:]}
    intervals = np.asarray([each.interval or (-np.inf, np.inf) for each in study.runs])
    found: dict[str, Any] = {**columns, "interval": intervals, "scale": [each.scale for each in study.runs]}
    return found | {"labels": study.labels, "data_accuracy": study.accuracy, "floor": study.floor}


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


def _curve(axes: Any, study: Study, name: str, reference: tuple[float, float]) -> None:
    looks: tuple[dict[str, Any], ...] = (
        {"marker": "o"},
        {"marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    )
    for limited, label, look in zip((False, True), ("at all noise levels", "in the middle"), looks, strict=True):
        # Without guidance there is nothing to limit: that run belongs to both curves.
        runs = [run for run in study.runs if run.scale == 1.0 or (run.interval is not None) == limited]
        runs.sort(key=lambda run: run.scale)
        if runs:
            values, errors = zip(*(getattr(run, name) for run in runs), strict=True)
            axes.errorbar([run.scale for run in runs], values, errors, label=label, **look)
    value, error = reference
    axes.axhline(value, color=style.REFERENCE, linestyle=":", label="data")
    axes.axhspan(value - error, value + error, color="0.6", alpha=0.2, linewidth=0)


def _show_samples(axes: Any, study: Study) -> None:
    order = np.argsort(study.labels, kind="stable")
    firsts = [row for label in np.unique(study.labels) for row in order[study.labels[order] == label][:_OF_A_CLASS]]
    tiles = np.concatenate([to_pixels(run.samples[firsts]) for run in study.runs])
    shown = image_grid(tiles, columns=len(firsts))
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, aspect="equal")
    height = shown.height / len(study.runs)
    labels = [f"{run.scale:g}" + ("" if run.interval is None else " (middle)") for run in study.runs]
    axes.set_yticks([(row + 0.5) * height for row in range(len(labels))], labels)
    width, classes = shown.width / len(firsts), study.labels[firsts]
    centres = [(np.flatnonzero(classes == label).mean() + 0.5) * width for label in np.unique(classes)]
    axes.set_xticks(centres, [str(label) for label in np.unique(classes)])
    axes.set(title="Samples, by guidance scale and class", xlabel="class asked for", ylabel="guidance scale")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _levels(run: Run) -> str:
    return "all" if run.interval is None else f"{run.interval[0]:.3g} to {run.interval[1]:.3g}"


def _percent(share: Share) -> str:
    return f"{share.value:.1%} +- {share.error:.1%}"
