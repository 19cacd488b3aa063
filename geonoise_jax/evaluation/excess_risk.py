r"""How far a network is from the Bayes-optimal field of its own config, along training.

With u = a x + b eps, r = c x + d eps, x from a law of the data, and f* the exact field of that law (blind or
conditional like the network), the loss of any field f splits for every draw of (x, eps, t) into

    w |f - r|^2  =  w |f* - r|^2  +  w |f - f*|^2  +  2 w <f - f*, f* - r>
       loss            floor         excess risk           cross term

Where the draws of x follow the law of f*, the cross term vanishes in expectation, since f* is the regression of r on
what f sees: the loss exceeds its floor by the excess risk. All terms are measured on the same draws, so that this tests
the exact field and the training code at once. It holds for each law on its *own* split:

* the points of the training split, on draws from these points: what training minimises;
* the population that the data was drawn from, where it is known, on draws from the held-out split.

Norms are means over entries, as in :mod:`geonoise_jax.training.losses`. Standard errors cover the draws of (x, eps, t)
from the points at hand; another training or held-out set of the same size is not covered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.restore import Trained, fresh_field, restore, saved_steps
from geonoise_jax.exact import Distribution, FiniteSet
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.figures import excess_risk as figure
from geonoise_jax.figures.outputs import write
from geonoise_jax.process.keys import root_key
from geonoise_jax.progress import Progress
from geonoise_jax.training.checkpoint_errors import DamagedCheckpointError
from geonoise_jax.training.sharding import sampling_mesh
from geonoise_jax.training.workdir import read_config

POPULATION, TRAINING_SET = "population", "training set"
TRAIN, HELD_OUT = "train", "held out"
_OWN_SPLIT = {POPULATION: HELD_OUT, TRAINING_SET: TRAIN}
BINS = 16
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        num: draws of (x, eps, t) per split, a multiple of 32.
        seed: seed of the draws.
        checkpoints: number of checkpoints, spread geometrically over those of the workdir, first and last included.
        held_out: the split that training did not see.
        batch_size: draws that a field is evaluated on at once.
        accuracy: relative accuracy of the exact fields, see :class:`geonoise_jax.exact.Marginal`.
    """

    num: int = 2048
    seed: int = 0
    checkpoints: int = 12
    held_out: str = "test"
    batch_size: int = 256
    accuracy: float | None = None

    def __post_init__(self) -> None:
        """Validate the sizes."""
        if self.num < 1 or self.num % (2 * BINS):
            raise UserError(f"num = {self.num}: must be a positive multiple of {2 * BINS}")
        for name, low in (("checkpoints", 2), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise UserError(f"{name} = {getattr(self, name)}: must be at least {low}")


class Estimate(NamedTuple):
    """Monte-Carlo means and their standard errors, of one shape."""

    mean: Float[np.ndarray, "*k"]
    error: Float[np.ndarray, "*k"]


class Draws(NamedTuple):
    """What one split gives to compare fields on, in order of the noise level.

    Attributes:
        u: observations, [n, *event].
        t: noise levels, [n], one in each of n slices of equal probability.
        noise: their noise-to-signal ratios b / a, [n].
        target: regression targets, [n, *event].
        weight: loss weights, [n].
    """

    u: Float[np.ndarray, "n *event"]
    t: Float[np.ndarray, "n"]
    noise: Float[np.ndarray, "n"]
    target: Float[np.ndarray, "n *event"]
    weight: Float[np.ndarray, "n"]

    def squared(self, difference: Float[np.ndarray, "n *event"]) -> Float[np.ndarray, "n"]:
        """Return ``w`` times the mean over entries of the squares."""
        return self.weight * np.mean(difference.reshape(len(self.t), -1).astype(np.float64) ** 2, axis=1)


@dataclasses.dataclass(frozen=True)
class Study:
    """All terms on every draw: K checkpoints, L laws, S splits, n draws in order of the noise level.

    Attributes:
        steps: updates of each checkpoint; 0 is the network before training.
        laws: names of the laws that have an exact field.
        splits: names of the splits.
        t: noise levels of the draws.
        noise: their noise-to-signal ratios b / a.
        loss: w |f - r|^2 of the network.
        floor: w |f* - r|^2 of the exact fields.
        excess: w |f - f*|^2.
    """

    steps: Int[np.ndarray, "K"]
    laws: tuple[str, ...]
    splits: tuple[str, ...]
    t: Float[np.ndarray, "n"]
    noise: Float[np.ndarray, "n"]
    loss: Float[np.ndarray, "K S n"]
    floor: Float[np.ndarray, "L S n"]
    excess: Float[np.ndarray, "K L S n"]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Means over the draws of a study, and over bins of equal probability of its noise levels.

    Attributes:
        title, steps, laws, splits: those of the study.
        num: draws per split.
        own: pairs (law, split) where the cross term vanishes in expectation.
        loss: [K, S].
        floor: [L, S].
        excess: [K, L, S].
        gap: loss over floor on the same draws, [K, L, S].
        cross: gap over excess on the same draws, [K, L, S].
        level_t: noise levels at the ends of the bins, [bins, 2].
        level_noise: b / a there, [bins, 2].
        level_floor: [L, S, bins].
        level_excess: of the last checkpoint, [L, S, bins].
    """

    title: str
    steps: Int[np.ndarray, "K"]
    laws: tuple[str, ...]
    splits: tuple[str, ...]
    num: int
    own: tuple[tuple[int, int], ...]
    loss: Estimate
    floor: Estimate
    excess: Estimate
    gap: Estimate
    cross: Estimate
    level_t: Float[np.ndarray, "bins 2"]
    level_noise: Float[np.ndarray, "bins 2"]
    level_floor: Estimate
    level_excess: Estimate


def run(folder: str | Path, out: str | Path, options: Options | None = None) -> str:
    """Measure the excess risk of every chosen checkpoint of a workdir, and write ``OUT.npz`` and ``OUT.png``.

    The .npz holds the fields of :class:`Study`, and those of :class:`Summary` as ``mean_NAME`` and ``error_NAME``.

    Returns:
        The results as text.

    Raises:
        ValueError: if the folder is no workdir, has no readable checkpoint, or has no exact field to compare with, or
            if training saw the held-out points.
    """
    study, out = measure(folder, options or Options()), Path(out)
    summary = summarise(study, _title(read_config(Path(folder))))
    write(out, figure.curves(summary), _arrays(study, summary))
    return figure.table(summary)


def measure(folder: str | Path, options: Options) -> Study:
    """Return all terms of the study, computed on one device.

    Raises:
        ValueError: see :func:`run`.
    """
    mesh = sampling_mesh(jax.devices()[:1])
    fresh = fresh_field(folder, mesh)
    config = fresh.config
    _check(config)
    chosen = spread(saved_steps(folder), options.checkpoints)
    known, points = laws(config)
    fields = {
        name: ExactField(build.marginal(config, law, accuracy=options.accuracy), config.model.blind)
        for name, law in known.items()
    }
    held_out = build.finite_set(config, options.held_out)
    check_held_out(options.held_out, np.asarray(points.points), np.asarray(held_out.points))
    draws = {name: draw(config, law, options) for name, law in ((TRAIN, points), (HELD_OUT, held_out))}
    progress = Progress("networks", len(chosen) + 1, "checkpoints")
    with contextlib.closing(progress):
        study = compare(fields, draws, _along(folder, mesh, fresh, chosen, progress), options.batch_size)
    if study.steps[-1] == 0:
        raise DamagedCheckpointError(f"workdir = {str(folder)!r}: none of the checkpoints {chosen} can be read")
    return study


def laws(config: ConfigDict) -> tuple[dict[str, Distribution], FiniteSet]:
    """Return the laws of the data that have an exact field, by name, and that of the points of the training split."""
    population, points = build.distribution(config), build.finite_set(config)
    if isinstance(population, FiniteSet):
        return {TRAINING_SET: points}, points
    return {POPULATION: population, TRAINING_SET: points}, points


def draw(config: ConfigDict, law: FiniteSet, options: Options) -> Draws:
    """Draw from a split as training does: every point equally often, stratified noise levels.

    The noise and the noise levels depend on the seed alone, so that two splits share them.
    """
    key_t, key_eps = jax.random.split(root_key(options.seed))
    rng, size = np.random.default_rng(options.seed), law.num_points
    rows = np.concatenate([rng.permutation(size) for _ in range(-(-options.num // size))])[: options.num]
    x = law.points[rows]
    t = build.time_law(config).sample(key_t, options.num, stratified=True)
    eps = jax.random.normal(key_eps, x.shape, x.dtype)
    process = build.process(config)
    k = process.coeffs(t)
    values = process.corrupt(x, eps, t), t, k.b / k.a, process.target(x, eps, t), build.loss_weight(config)(t)
    return Draws(*(np.asarray(value) for value in values))


def compare(
    exact: Mapping[str, Field], draws: Mapping[str, Draws], trained: Iterable[tuple[int, Field]], batch_size: int
) -> Study:
    """Measure fields against exact fields on given draws.

    Args:
        exact: exact fields by the name of their law, one of ``POPULATION`` and ``TRAINING_SET``.
        draws: draws of the same noise levels by the name of their split, one of ``TRAIN`` and ``HELD_OUT``.
        trained: fields and their steps.
        batch_size: draws that a field is evaluated on at once.
    """
    splits = list(draws.values())
    best = [[predict(field, d, batch_size, f"exact field, {name}") for d in splits] for name, field in exact.items()]
    steps, loss, excess = [], [], []
    for step, field in trained:
        values = [predict(field, each, batch_size) for each in splits]
        steps.append(step)
        loss.append([d.squared(f - d.target) for d, f in zip(splits, values, strict=True)])
        excess.append([[d.squared(f - g) for d, f, g in zip(splits, values, law, strict=True)] for law in best])
    floor = [[d.squared(g - d.target) for d, g in zip(splits, law, strict=True)] for law in best]
    return Study(
        steps=np.asarray(steps),
        laws=tuple(exact),
        splits=tuple(draws),
        t=splits[0].t,
        noise=splits[0].noise,
        loss=np.asarray(loss),
        floor=np.asarray(floor),
        excess=np.asarray(excess),
    )


def summarise(study: Study, title: str) -> Summary:
    """Return the means of a study and their standard errors."""
    gap = study.loss[:, None] - study.floor
    edges = np.arange(BINS + 1) * (len(study.t) // BINS)
    ends = np.stack([edges[:-1], edges[1:] - 1], axis=1)
    return Summary(
        title=title,
        steps=study.steps,
        laws=study.laws,
        splits=study.splits,
        num=len(study.t),
        own=tuple((i, study.splits.index(_OWN_SPLIT[law])) for i, law in enumerate(study.laws)),
        loss=estimate(study.loss),
        floor=estimate(study.floor),
        excess=estimate(study.excess),
        gap=estimate(gap),
        cross=estimate(gap - study.excess),
        level_t=study.t[ends],
        level_noise=study.noise[ends],
        level_floor=estimate(study.floor, BINS),
        level_excess=estimate(study.excess[-1], BINS),
    )


def predict(field: Field, draws: Draws, batch_size: int, label: str = "") -> Float[np.ndarray, "n *event"]:
    """Return the field on draws, in batches of one shape; says how far it is if it has a label."""
    n, parts = len(draws.t), []
    size = min(batch_size, n)
    progress = Progress(label, n, "draws") if label else None
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        parts.append(np.asarray(_evaluate(field, draws.u[rows], draws.t[rows]))[: n - start])
        if progress is not None:
            progress.update(min(start + size, n))
    if progress is not None:
        progress.close()
    return np.concatenate(parts)


def estimate(values: Float[np.ndarray, "*k n"], bins: int | None = None) -> Estimate:
    """Return means over draws in order of the noise level, over all or in bins of equal probability.

    Each draw has its own slice of the time law, which lowers the error of the mean; pairs of neighbours, which differ
    by little but their noise, estimate what is left of it (collapsed strata, Cochran 1977, section 5A.12).

    Args:
        values: one number per draw.
        bins: number of bins, so that twice their number divides n; adds an axis [bins] to the result.
    """
    if bins is not None:
        values = values.reshape(*values.shape[:-1], bins, -1)
    n = values.shape[-1]
    squares = (values[..., ::2] - values[..., 1::2]) ** 2
    return Estimate(values.mean(-1), np.sqrt(squares.sum(-1)) / n)


def spread(steps: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` of the ascending steps above 0, about geometrically spaced, first and last included.

    Raises:
        ValueError: if no step is above 0.
    """
    steps = [step for step in steps if step > 0]
    if not steps:
        raise UserError("checkpoints: there is none after the first update; train first")
    wanted = np.geomspace(steps[0], steps[-1], count)
    nearest = np.abs(np.log(np.asarray(steps)[:, None] / wanted)).argmin(axis=0)
    return [steps[i] for i in np.unique(nearest)]


@jax.jit
def _evaluate(field: Any, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b *event"]:
    return field(u, t)


def _along(
    folder: str | Path, mesh: Mesh, fresh: Trained, steps: Sequence[int], progress: Progress
) -> Iterator[tuple[int, Field]]:
    """Yield the fields of a run by step, the untrained one first; damaged checkpoints are said so and passed over."""
    yield 0, fresh.field
    for done, step in enumerate(steps, start=1):
        progress.update(done)
        try:
            yield step, restore(folder, mesh=mesh, step=step).field
        except DamagedCheckpointError as error:
            _LOG.warning("%s: left out", error)
    progress.update(len(steps) + 1)


def _arrays(study: Study, summary: Summary) -> dict[str, np.ndarray]:
    arrays = {field.name: np.asarray(getattr(study, field.name)) for field in dataclasses.fields(study)}
    for field in dataclasses.fields(summary):
        value = getattr(summary, field.name)
        if isinstance(value, Estimate):
            arrays |= {f"mean_{field.name}": value.mean, f"error_{field.name}": value.error}
    return arrays | {"level_t": summary.level_t, "level_noise": summary.level_noise}


def _title(config: ConfigDict) -> str:
    conditioning = "blind" if config.model.blind else "conditional"
    return f"{config.data.name}: {config.schedule.name} schedule, {config.target.name} target, {conditioning}"


def _check(config: ConfigDict) -> None:
    """Refuse another loss, and a network without an unconditional prediction."""
    if config.loss.name != "regression":
        raise UserError(f"loss.name = {config.loss.name!r}: excess risk is defined for 'regression'")
    if config.model.class_conditional and not config.model.label_dropout > 0:
        raise UserError(
            "model.class_conditional = True with model.label_dropout = 0: the network has no prediction without a "
            "label, which is what the exact field of the data is to be compared with"
        )
