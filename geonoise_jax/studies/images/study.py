"""Blind and conditional models of images side by side: one network, one budget, every number with floor and interval.

Each of DDPM, flow matching, EDM and equilibrium matching is trained twice, with and without the noise level, and
sampled by its own sampler at the same number of evaluations of the network. What is measured is what ``evaluate``
measures, by the same function: it stays in the workdirs, and so do the checkpoints, whose training goes on where more
steps are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from geonoise_jax import build, checks
from geonoise_jax.evaluation import Options as Asked
from geonoise_jax.evaluation import evaluate
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.studies.images import models
from geonoise_jax.studies.images.models import DIGITS, FASHION, SYSTEMS, Model, Way
from geonoise_jax.studies.quick import replace_defaults
from geonoise_jax.studies.workdirs import train

# Of all samples, with every network; of fewer, along the curves, with the last one alone.
METRICS = ("sliced_wasserstein", "frechet", "precision_recall", "spectrum")
ON_CURVES = ("sliced_wasserstein", "frechet")
# What a try-out has in place of the defaults.
_QUICK = {"steps": 30, "num_on_curves": 160, "evaluations": (4, 8)}
_QUICK_FEATURES = ("efficientnet_lite0:32", "classifier")
_SHOWN = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        data: ``digits``, or ``fashion_mnist``, the real one, read from files.
        path: folder of the four files of Fashion-MNIST, or a .npz made of them; None: where Debian's package
            dataset-fashion-mnist puts them.
        systems: names of systems, each of which is trained blind and conditional.
        steps: updates of each model, of batches of 64. More than before train on.
        num: samples of each model, more than there are features.
        evaluations: evaluations of the network per sample, ascending: the curve goes through all of them, the table is
            of the last.
        num_on_curves: samples at each of the others.
        features: networks of features, see ``evaluation.Options``; curves take the last.
        quick: try everything out at a size that shows nothing: takes the place of numbers that are not given.
        seed: seed of the samples.
        runs: folder of the workdirs.

    Raises:
        ValueError: if a value is out of its range.
    """

    data: str = DIGITS
    path: Path | None = None
    systems: tuple[str, ...] = SYSTEMS
    steps: int = 500
    num: int = 1300
    evaluations: tuple[int, ...] = (8, 16, 32)
    num_on_curves: int = 500
    features: tuple[str, ...] = ("efficientnet_lite0:112", "classifier")
    quick: bool = False
    seed: int = 0
    runs: Path = Path("images")

    def __post_init__(self) -> None:
        """Validate the numbers; the evaluation checks its own."""
        if self.quick:
            replace_defaults(self, {**_QUICK, "features": _QUICK_FEATURES})
        if self.path is not None:
            object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "runs", Path(self.runs))
        checks.choice("data", self.data, (DIGITS, FASHION))
        if self.data == DIGITS:
            checks.without_effect("data = digits", {"path": (self.path, None)})
        for name in self.systems:
            checks.choice("systems", name, SYSTEMS)
        for name in ("steps", "num", "num_on_curves"):
            checks.integer(name, getattr(self, name), low=1)
        checks.increasing(
            "evaluations", self.evaluations, checks.integer, low=1, wanted="ascending, none of them twice"
        )


class Result(NamedTuple):
    """What one model did.

    Attributes:
        model: the model.
        step: number of updates of its parameters.
        samples: some samples, in model space.
        records: numbers of the table, as ``evaluation.evaluate`` returns them.
        curve: numbers of the curves, at every number of evaluations.
    """

    model: Model
    step: int
    samples: Float[np.ndarray, "n h w c"]
    records: tuple[dict[str, Any], ...]
    curve: tuple[dict[str, Any], ...]


class Study(NamedTuple):
    """All models, and what they are compared with.

    Attributes:
        options: the choices.
        results: the models.
        data: some held-out images, in model space.
    """

    options: Options
    results: tuple[Result, ...]
    data: Float[np.ndarray, "n h w c"]


def measure(options: Options) -> Study:
    """Train and evaluate all models, in workdirs below ``options.runs / options.data``.

    What is there already is not done again.

    Raises:
        ValueError: if the data set is not there, or a workdir is of another run.
    """
    folder = options.runs / options.data
    chosen = {
        each: models.config_of(each, options.data, options.steps, folder, options.path)
        for each in models.models(options.systems)
    }
    for model, settings in chosen.items():
        train(settings, folder / model.name)
    shared: dict[tuple[object, ...], Any] = {}
    *before, last = options.evaluations
    everything = {"metrics": METRICS, "features": options.features, "num": options.num}
    along = {"metrics": ON_CURVES, "features": options.features[-1:], "num": options.num_on_curves}
    of_table = _records(options, folder, chosen, last, everything, shared)
    of_curves = [_records(options, folder, chosen, each, along, shared) for each in (*before, last)]
    results = tuple(_result(folder, model, of_table, of_curves) for model in chosen)
    held_out = build.arrays(next(iter(chosen.values())), "test")
    return Study(options, results, build.model_points(held_out)[:_SHOWN])


def _records(
    options: Options,
    folder: Path,
    chosen: dict[Model, ConfigDict],
    evaluations: int,
    asked: dict[str, Any],
    shared: dict[tuple[object, ...], Any],
) -> list[dict[str, Any]]:
    """Return the numbers of all models at a number of evaluations, with as many held-out images as samples."""
    groups: dict[Way, list[Path]] = {}
    for model, settings in chosen.items():
        groups.setdefault(models.way(settings, evaluations), []).append(folder / model.name)
    found: list[dict[str, Any]] = []
    for number, (way, workdirs) in enumerate(groups.items()):
        wanted = Asked(
            **asked,
            num_reference=asked["num"],
            num_steps=way.num_steps,
            sampler_options=dict(way.options),
            seed=options.seed,
        )
        out = folder / "evaluation" / f"{evaluations}-{asked['num']}-{number}"
        found += evaluate(workdirs, wanted, out=out, shared=shared).records
    return found


def _result(
    folder: Path, model: Model, of_table: list[dict[str, Any]], of_curves: Iterable[list[dict[str, Any]]]
) -> Result:
    records = tuple(one for one in of_table if one["run"] == model.name)
    curve = tuple(one for found in of_curves for one in found if one["run"] == model.name)
    kept = Kept(folder / model.name / "evaluation" / records[0]["samples"])
    return Result(model, records[0]["step"], kept.read("x", _SHOWN), records, curve)
