"""Evaluations inside a run, with a small budget: the loss on held-out data by noise level, and cheap distances.

All of them take the same held-out items, noise levels and noise, and start samples from the same noise, so that what
differs along a run is the network. Numbers stand in ``metrics.jsonl`` under names that begin with ``held_out/``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from geonoise_jax import build, checks, processes
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.best import LOSS, directions
from geonoise_jax.evaluation.evaluator.options import LEAST
from geonoise_jax.evaluation.metrics import table
from geonoise_jax.evaluation.metrics.base import Inputs, Value
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.point_sets import finite
from geonoise_jax.evaluation.reference import Reference, of_arrays
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.exact import Circles
from geonoise_jax.fields import NetworkField
from geonoise_jax.process.keys import root_key
from geonoise_jax.sampling.batches import by_rows
from geonoise_jax.sampling.generation import class_turns, generate
from geonoise_jax.training import workdir
from geonoise_jax.training.losses import Draws, Objective
from geonoise_jax.training.run import Run
from geonoise_jax.training.train import Result
from geonoise_jax.training.watched import PREFIX, Best

# Equal parts of the probability of noise levels, lowest first.
_QUARTERS = 4
# Noisy items that the loss is a mean over, or as many more as fill the last batch.
_ITEMS = 1024
# The stream of a run's seed that evaluations draw from.
_STREAM = 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """What a run measures about itself; see ``training.run.Watch`` and :func:`watch`.

    Attributes:
        reference: held-out data, and training data for the floors.
        every: updates between evaluations.
        num: number of samples.
        metrics: names of ``metrics.table.METRICS`` that need no network of features.
        best: by which number the best checkpoint is kept; None for none.
        circles: the law of the data, where it is known to be circles.
    """

    reference: Reference
    every: int
    num: int
    metrics: tuple[str, ...]
    best: Best | None = None
    circles: Circles | None = None

    def measure(self, run: Run, params: PyTree[Array], mesh: Mesh) -> dict[str, float]:
        """Return what the averaged network is like, of run and parameters alone.

        Returns:
            ``loss``, its standard error ``loss_error`` and its means over quarters of the noise levels, lowest first,
            ``loss_quarter1`` to ``4``; of each number of the metrics the value, its ``_spread``, ``_floor`` and
            ``_floor_spread``; ``not_finite``, the number of samples that are not finite, and then no value of samples.
            What is not finite is left out. All names begin with ``watched.PREFIX``.
        """
        found = self._loss(run, params, mesh)
        if self.metrics:
            found |= self._distances(run, params, mesh)
        return {f"{PREFIX}{name}": value for name, value in found.items() if np.isfinite(value)}

    def _loss(self, run: Run, params: PyTree[Array], mesh: Mesh) -> dict[str, float]:
        size, goal, field = run.budget.batch_size, run.goal(), run.field(params)
        t, losses = [], []
        for draws in self._draws(run, size):
            put = jax.device_put(draws, by_rows(mesh))
            t.append(np.asarray(draws.t))
            losses.append(processes.to_host(_losses(goal, field, put)).astype(np.float64))
        ordered = np.concatenate(losses)[np.argsort(np.concatenate(t), kind="stable")]
        found = {LOSS: ordered.mean(), f"{LOSS}_error": ordered.std(ddof=1) / np.sqrt(len(ordered))}
        parts = np.array_split(ordered, _QUARTERS)
        found |= {f"{LOSS}_quarter{number}": part.mean() for number, part in enumerate(parts, start=1)}
        return {name: float(value) for name, value in found.items()}

    def _draws(self, run: Run, size: int) -> list[Draws]:
        """Return batches of held-out items, noise levels and noise, always the same."""
        held_out, _ = _data(self.reference)
        count = -(-_ITEMS // size)
        rows = np.linspace(0, len(held_out) - 1, count * size).round().astype(int)
        # The noise levels of a batch ascend: items must not.
        rows = np.random.default_rng(run.seed).permutation(rows)
        labels = None if held_out.labels is None else jax.numpy.asarray(held_out.labels[rows])
        key = jax.random.fold_in(root_key(run.seed), _STREAM)
        draws = run.goal().draw(key, jax.numpy.asarray(held_out.to_model(held_out.events[rows])), labels)
        whole = jax.tree.map(np.asarray, draws)
        return [jax.tree.map(lambda each, at=at: each[at::count], whole) for at in range(count)]

    def _distances(self, run: Run, params: PyTree[Array], mesh: Mesh) -> dict[str, float]:
        labels = class_turns(self.num, run.num_classes)
        key = jax.random.fold_in(jax.random.fold_in(root_key(run.seed), _STREAM), 1)
        field = run.field(params)
        x = generate(run.sampling.field(field), key, self.num, **run.sampling.options, labels=labels, mesh=mesh).x
        bad = int((~finite(x)).sum())
        if bad:
            return {"not_finite": float(bad)}
        trained = Trained(field, None, workdir.facts_of(run.data), 0, run.sampling, mesh)
        inputs = Inputs(trained, x, labels, self.reference, self.circles, None, {"seed": run.seed})
        found: dict[str, float] = {}
        for name in self.metrics:
            for number, value in table.METRICS[name].load()(inputs).items():
                found |= _numbers(number, value)
        return found


def watch(
    data: Arrays,
    held_out: Arrays,
    *,
    every: int,
    num: int = 256,
    metrics: tuple[str, ...] = ("sliced_wasserstein",),
    num_reference: int | None = 1000,
    keep_best: str = "",
    classes: bool = False,
    circles: Circles | None = None,
) -> Watch:
    """Return what measures a run while it trains, for ``training.run.Run(watch=...)``.

    Args:
        data: the training set.
        held_out: items that training does not see.
        every: updates between evaluations.
        num: samples of an evaluation, at least 40.
        metrics: names of ``metrics.table.METRICS`` that need no network of features; empty for the loss alone.
        num_reference: held-out items that samples are compared with; None for all.
        keep_best: ``loss`` or a number of the metrics, by which the best checkpoint is kept; empty for none.
        classes: whether samples have classes, which the floors then have too.
        circles: the law of the data, where it is known to be circles.

    Raises:
        ValueError: on a metric that is unknown, needs a network of features or is of other data, a number to be kept by
            that is not measured, or held-out items that are training items.
    """
    check(every=every, num=num, metrics=metrics, keep_best=keep_best)
    for name in metrics:
        needs = table.METRICS[name].needs
        if table.IMAGES in needs and not data.is_image:
            raise UserError(f"evaluation.metrics = {name}: is of images; the data are {list(data.event_shape)}")
        if table.CIRCLES in needs and circles is None:
            raise UserError(f"evaluation.metrics = {name}: is of circles, data whose law is known")
    check_held_out(held_out.split, build.model_points(data), build.model_points(held_out))
    reference = of_arrays(data, held_out, num_reference, num, classes=classes)
    best = Best(keep_best, directions(metrics)[keep_best]) if keep_best else None
    return Watch(reference=reference, every=every, num=num, metrics=metrics, best=best, circles=circles)


def check(*, every: int, num: int, metrics: tuple[str, ...], keep_best: str) -> None:
    """Refuse what needs no data to be refused, by the names that it has in a config.

    Raises:
        ValueError: on a metric that is unknown or needs a network of features, or a number that is not measured.
    """
    checks.integer("training.evaluate_every", every, low=1)
    checks.integer("evaluation.num", num, low=LEAST)
    for name in metrics:
        checks.choice("evaluation.metrics", name, table.METRICS)
        if not table.METRICS[name].is_cheap:
            cheap = ", ".join(each for each, entry in table.METRICS.items() if entry.is_cheap)
            raise UserError(f"evaluation.metrics = {name}: is too slow while a run trains; must be of {cheap}")
    if keep_best:
        checks.choice("checkpoint.keep_best", keep_best, directions(metrics))


def of_config(config: ConfigDict, data: Arrays) -> Watch:
    """Return what a config measures while its run trains on these data.

    Raises:
        ValueError: as :func:`watch`, or if the held-out split cannot be loaded.
    """
    law = build.distribution(config) if config.data.name == "circles" else None
    return watch(
        data,
        build.arrays(config, config.evaluation.held_out),
        **_options(config),
        num_reference=config.evaluation.num_reference,
        classes=config.model.class_conditional,
        circles=law if isinstance(law, Circles) else None,
    )


def train(
    config: ConfigDict, folder: str | PurePath, *, data: Arrays | None = None, devices: list[jax.Device] | None = None
) -> Result:
    """Train the model of a config as ``build.train`` does, with the evaluations that the config asks for.

    Args:
        config: see ``geonoise_jax.config``.
        folder: the workdir.
        data: the training set, by default that of the config.
        devices: devices of the mesh; all by default.

    Raises:
        ValueError: as ``build.train``, and on evaluations that cannot be made.
    """
    if config.training.evaluate_every:
        check(**_options(config))
    return build.train(config, folder, data=data, devices=devices, watching=of_config)


def _options(config: ConfigDict) -> dict[str, Any]:
    found: Mapping[str, Any] = config.evaluation
    return {
        "every": config.training.evaluate_every,
        "num": found["num"],
        "metrics": tuple(found["metrics"]),
        "keep_best": config.checkpoint.keep_best,
    }


def _numbers(name: str, value: Value) -> dict[str, float]:
    found = {name: value.estimate.value, f"{name}_spread": value.estimate.spread}
    if value.floor is not None:
        found |= {f"{name}_floor": value.floor.value, f"{name}_floor_spread": value.floor.spread}
    return found


def _data(reference: Reference) -> tuple[Arrays, Arrays]:
    if reference.data is None:
        raise UserError("reference: must be of a data set, whose held-out items the loss is taken of")
    return reference.data


@functools.partial(jax.jit, static_argnums=0)
def _losses(objective: Objective, field: NetworkField, draws: Draws) -> Float[Array, "n"]:
    return objective.per_sample(field, draws)
