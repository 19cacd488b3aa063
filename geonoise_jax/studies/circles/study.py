"""Concentric circles in R^D (figure 5 of the paper): which small networks can be sampled without the noise level.

Circles of radii 1 and 2 in a random plane of R^D, a residual MLP, and each of DDPM, flow matching, EDM, equilibrium
matching and x-prediction, with and without the noise level, trained on several seeds and sampled by its own sampler.
Beside them stand samples of the exact blind field of the same system: what a network without error would do.

Every model's samples are kept below ``Options.runs``: what was stopped goes on at the next model, and the second call
takes seconds. Of three seeds an interval is Student's t of the logarithm of a distance, which is wide.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from geonoise_jax import checks, files
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import DRAWS, Distance, over_draws
from geonoise_jax.evaluation.modes import nearest_circle
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.exact import Circles
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.progress import Progress
from geonoise_jax.studies.circles import models
from geonoise_jax.studies.circles.models import BLIND, CONDITIONAL, SYSTEMS, Model
from geonoise_jax.studies.kept import kept_in
from geonoise_jax.studies.quantiles import quantile
from geonoise_jax.studies.quick import replace_defaults

_QUICK = {"dims": (2, 32), "seeds": 2, "steps": 300, "num": 400}
_SHOWN = 400
# Of the reference, and of the first draw of the floor.
_REFERENCE, _FLOOR = 1_000, 1_001


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D, each at least 2.
        systems: names of systems.
        seeds: number of trainings of each model.
        steps: updates of each.
        batch_size: fresh points of an update.
        width: of the residual MLP.
        depth: its blocks.
        num: samples of each training and of each exact field.
        quick: try everything out at a size that shows little: takes the place of numbers that are not given.
        seed: seed of the samples; trainings have the seeds 0, 1, 2, ...
        runs: folder of what was trained.

    Raises:
        ValueError: if a value is out of its range.
    """

    dims: tuple[int, ...] = (2, 8, 32, 128, 512)
    systems: tuple[str, ...] = SYSTEMS
    seeds: int = 3
    steps: int = 2000
    batch_size: int = 256
    width: int = 128
    depth: int = 3
    num: int = 1000
    quick: bool = False
    seed: int = 0
    runs: Path = Path("circles")

    def __post_init__(self) -> None:
        """Validate the numbers."""
        if self.quick:
            replace_defaults(self, _QUICK)
        object.__setattr__(self, "runs", Path(self.runs))
        checks.increasing("dims", self.dims, checks.integer, low=2, wanted="ascending, none of them twice")
        for name in self.systems:
            checks.choice("systems", name, SYSTEMS)
        for name, low in (("seeds", 2), ("steps", 1), ("batch_size", 1), ("num", 20), ("seed", 0)):
            checks.integer(name, getattr(self, name), low=low)


class Measured(NamedTuple):
    """What is measured of one set of samples after another, s sets.

    Attributes:
        median: median distance from the nearest circle; infinite where half of the samples are not finite.
        q90: 90% quantile of it.
        sliced: sliced Wasserstein distance to the data; infinite if a sample is not finite.
        inner: share of the samples that are nearest to the inner circle, of those that are finite.
        not_finite: number of samples that are not finite.
    """

    median: Float[np.ndarray, "s"]
    q90: Float[np.ndarray, "s"]
    sliced: Float[np.ndarray, "s"]
    inner: Float[np.ndarray, "s"]
    not_finite: Float[np.ndarray, "s"]


class Result(NamedTuple):
    """One model.

    Attributes:
        model: the model.
        trained: numbers of its trainings.
        exact: those of the exact field, of a blind model.
        loss: mean loss of the last updates, by seed.
        shown: some samples of the first training, in the plane of the circles.
        shown_exact: some of the exact field, of a blind model.
    """

    model: Model
    trained: Measured
    exact: Measured | None
    loss: Float[np.ndarray, "seeds"]
    shown: Float[np.ndarray, "n 2"]
    shown_exact: Float[np.ndarray, "n 2"] | None


class Study(NamedTuple):
    """All models, and what data reach.

    Attributes:
        options: the choices.
        results: the models.
        floors: sliced Wasserstein distance of as many points of the data, by dimension.
    """

    options: Options
    results: tuple[Result, ...]
    floors: dict[int, Distance]

    def find(self, dim: int, system: str, conditioning: str) -> Result:
        """Return one model."""
        wanted = Model(dim, system, conditioning)
        return next(each for each in self.results if each.model == wanted)

    def exact(self, dim: int, system: str) -> tuple[Measured, Float[np.ndarray, "n 2"]]:
        """Return the numbers of the exact blind field of a system, and some of its samples in the plane."""
        found = self.find(dim, system, BLIND)
        if found.exact is None or found.shown_exact is None:
            raise ValueError(f"{found.model.name}: has no samples of the exact field")
        return found.exact, found.shown_exact


@in_one_warning()
def measure(options: Options) -> Study:
    """Train and sample all models, and measure what they drew.

    What is there already is not done again.

    Raises:
        ValueError: if the folder cannot be written, or a training diverges.
    """
    chosen = {
        each: models.config_of(each, options.steps, options.batch_size, options.width, options.depth)
        for each in models.models(options.dims, options.systems)
    }
    folder = files.usable_folder(options.runs, "runs")
    progress = Progress("circles", len(chosen), "models")
    results: list[Result] = []
    floors: dict[int, Distance] = {}
    with contextlib.closing(progress), files.locked(folder, "runs"):
        for dim in options.dims:
            law = models.law_of(chosen[Model(dim, options.systems[0], BLIND)])
            distance = SlicedWasserstein(models.of_data(law, options.num, options.seed, _REFERENCE))
            floors[dim] = over_draws(
                [distance(models.of_data(law, options.num, options.seed, _FLOOR + draw)) for draw in range(DRAWS)]
            )
            for model in [each for each in chosen if each.dim == dim]:
                kept = _kept(folder, model, chosen[model], options, progress, len(results))
                results.append(_result(model, kept, law, distance))
                progress.update(len(results), model.name)
    return Study(options, tuple(results), floors)


def _kept(
    folder: PurePath, model: Model, chosen: ConfigDict, options: Options, progress: Progress, before: int
) -> dict[str, np.ndarray]:
    """Return the samples and losses of a model, made if they are not there."""
    seeds, num, seed = range(options.seeds), options.num, options.seed

    def tell(done: int, total: int) -> None:
        progress.update(before, f"{model.name}: {done} of {total} updates")

    def made() -> dict[str, np.ndarray]:
        samples, losses = models.trained(chosen, seeds, num, seed, tell)
        exact = {"exact": models.exact(chosen, num, seed)} if model.conditioning == BLIND else {}
        return {"samples": samples, "losses": losses, **exact}

    digest = models.digest(chosen, seeds=options.seeds, num=num, seed=seed)
    return kept_in(folder / f"{model.name}-{digest}.npz", made)


def _result(model: Model, kept: dict[str, np.ndarray], law: Circles, distance: SlicedWasserstein) -> Result:
    frame = np.asarray(law.frame)
    trained, shown = _measured(kept["samples"], law, distance), kept["samples"][0][:_SHOWN] @ frame
    if model.conditioning != BLIND:
        return Result(model, trained, None, kept["losses"][-1], shown, None)
    exact = _measured(kept["exact"][None], law, distance)
    return Result(model, trained, exact, kept["losses"][-1], shown, kept["exact"][:_SHOWN] @ frame)


def _measured(sets: Float[np.ndarray, "s num D"], law: Circles, distance: SlicedWasserstein) -> Measured:
    rows = []
    for samples in sets:
        finite = np.isfinite(samples).all(axis=1)
        away = models.distances(samples, law)
        median, q90 = quantile(away, 0.5), quantile(away)
        inner = np.mean(nearest_circle(samples[finite], law) == 0) if finite.any() else np.nan
        rows.append((median, q90, distance(samples) if finite.all() else np.inf, inner, (~finite).sum()))
    return Measured(*np.asarray(rows, np.float64).T)


def ratio(study: Study, dim: int, system: str) -> Float[np.ndarray, "seeds"]:
    """Return the 90% quantile of the blind model's distances over that of the conditional one, by seed."""
    blind, known = (study.find(dim, system, each).trained.q90 for each in (BLIND, CONDITIONAL))
    if not np.isfinite(known).all():
        raise UserError(f"{system}, D = {dim}: the conditional model's samples are not finite")
    return blind / known
