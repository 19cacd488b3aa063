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
from geonoise_jax.checks import integer, refused
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.laws import laws
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.restore import Trained, fresh_field, restore, saved_steps
from geonoise_jax.exact import FiniteSet
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.process.keys import root_key
from geonoise_jax.progress import Progress
from geonoise_jax.training.checkpoint_errors import DamagedCheckpointError
from geonoise_jax.training.sharding import sampling_mesh

TRAIN, HELD_OUT = "train", "held out"
# The number of draws is a multiple of twice this many bins.
BINS = 16
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        workdir: workdir of the run.
        num: draws of (x, eps, t) per split, a multiple of 32.
        seed: seed of the draws.
        checkpoints: number of checkpoints, spread geometrically over those of the workdir, first and last included.
        held_out: the split that training did not see.
        batch_size: draws that a field is evaluated on at once.
        accuracy: relative accuracy of the exact fields, see :class:`geonoise_jax.exact.Marginal`.
    """

    workdir: Path
    num: int = 2048
    seed: int = 0
    checkpoints: int = 12
    held_out: str = "test"
    batch_size: int = 256
    accuracy: float | None = None

    def __post_init__(self) -> None:
        """Validate the sizes."""
        for name, low in (("num", 1), ("checkpoints", 2), ("batch_size", 1), ("seed", 0)):
            integer(name, getattr(self, name), low=low)
        if self.num % (2 * BINS):
            raise refused("num", self.num, f"a positive multiple of {2 * BINS}")


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
        title: what is compared.
        steps: updates of each checkpoint; 0 is the network before training.
        laws: names of the laws that have an exact field.
        splits: names of the splits.
        t: noise levels of the draws.
        noise: their noise-to-signal ratios b / a.
        loss: w |f - r|^2 of the network.
        floor: w |f* - r|^2 of the exact fields.
        excess: w |f - f*|^2.
    """

    title: str
    steps: Int[np.ndarray, "K"]
    laws: tuple[str, ...]
    splits: tuple[str, ...]
    t: Float[np.ndarray, "n"]
    noise: Float[np.ndarray, "n"]
    loss: Float[np.ndarray, "K S n"]
    floor: Float[np.ndarray, "L S n"]
    excess: Float[np.ndarray, "K L S n"]


def measure(options: Options) -> Study:
    """Measure the excess risk of every chosen checkpoint of a workdir, on one device.

    Raises:
        ValueError: if the folder is no workdir, has no readable checkpoint, or has no exact field to compare with, or
            if training saw the held-out points.
    """
    folder, mesh = options.workdir, sampling_mesh(jax.devices()[:1])
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
        along = _along(folder, mesh, fresh, chosen, progress)
        study = compare(fields, draws, along, options.batch_size, _title(config))
    if study.steps[-1] == 0:
        raise DamagedCheckpointError(f"workdir = {str(folder)!r}: none of the checkpoints {chosen} can be read")
    return study


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
    exact: Mapping[str, Field],
    draws: Mapping[str, Draws],
    trained: Iterable[tuple[int, Field]],
    batch_size: int,
    title: str = "",
) -> Study:
    """Measure fields against exact fields on given draws.

    Args:
        exact: exact fields by the name of their law, one of ``POPULATION`` and ``TRAINING_SET``.
        draws: draws of the same noise levels by the name of their split, one of ``TRAIN`` and ``HELD_OUT``.
        trained: fields and their steps.
        batch_size: draws that a field is evaluated on at once.
        title: what is compared.
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
        title=title,
        steps=np.asarray(steps),
        laws=tuple(exact),
        splits=tuple(draws),
        t=splits[0].t,
        noise=splits[0].noise,
        loss=np.asarray(loss),
        floor=np.asarray(floor),
        excess=np.asarray(excess),
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
