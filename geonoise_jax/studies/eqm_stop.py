r"""What the adaptive stop of Equilibrium Matching saves (Wang & Du 2025, 2510.02300, section 4).

An adaptive sample stops as soon as its field is small, ``|f| / sqrt(D) <= tolerance``; samples of a fixed budget all
take the same number of evaluations, which must serve the slowest. Both follow the same path, so they are compared at
the same distance to the data: the fixed budget is the smallest one that reaches the 90% quantile of distances of the
adaptive samples. It is chosen on every other sample and judged on those between, so that no sample is judged by a
budget that was fitted to it.

What is saved, 1 - (mean evaluations of the judged) / budget, has a 95% interval from the bootstrap over samples, in
which the choice of the budget is repeated each time (percentile method, Efron & Tibshirani 1993, chapter 13).

By default the field is the exact blind one of 16 points on a circle in R^D, so that nothing but the sampler counts; the
starts are pure noise, and data at noise levels spread evenly from t_min to t_max. Given a workdir, its trained field is
used, with the points it was trained on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from geonoise_jax import build
from geonoise_jax.checks import integer, several
from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.exact import FiniteSet
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.fields import Field
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Equilibrium
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.blind import evaluate_blind
from geonoise_jax.sampling.samplers import SAMPLERS
from geonoise_jax.studies.cases import Case as Told
from geonoise_jax.studies.cases import Claim, over_cases
from geonoise_jax.studies.quantiles import QUANTILE
from geonoise_jax.studies.ring import exact_field, ring
from geonoise_jax.studies.verdicts import Verdict
from geonoise_jax.training.sharding import sampling_mesh

NOISE, MIXED = "pure noise", "mixed levels"
STARTS = (MIXED, NOISE)
DESCENTS = ("eqm_descent", "eqm_nesterov", "eqm_nesterov_released")
_ROUNDING = 1e-5
_RESAMPLES = 500
_BINS = 40
# Height of the marks in a histogram, which has its legend above.
_BELOW = 0.68


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study; step size and momentum default to those of the published sampling code.

    Attributes:
        dims: dimensions D of the exact fields.
        workdir: workdir of a trained EqM network to use instead.
        num: samples per start; half of them choose the fixed budget.
        decay: g(t) of the exact fields' target, see :class:`geonoise_jax.process.targets.Equilibrium`.
        step_size: length of a step.
        momentum: of both Nesterov forms.
        tolerance: root mean square of the field at which an adaptive sample stops.
        max_steps: largest number of evaluations.
        seed: seed of the starts.
    """

    dims: tuple[int, ...] = (8, 64)
    workdir: Path | None = None
    num: int = 256
    decay: str = "truncated"
    step_size: float = 0.0017
    momentum: float = 0.3
    tolerance: float = 0.05
    max_steps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate what the samplers and the process do not."""
        several("dims", self.dims, integer, low=2)
        for name, low in (("num", 20), ("seed", 0)):
            integer(name, getattr(self, name), low=low)


QUICK = Options(dims=(8,), num=64, step_size=0.01, tolerance=0.1)


class Case(NamedTuple):
    """One field, sampler and start, n samples.

    Attributes:
        field: name of the field.
        sampler: name of the sampler.
        start: where samples start.
        evaluations: of each adaptive sample.
        converged: whether it stopped, rather than ran out of steps.
        distance: its distance to the nearest point of the data.
        path: 90% quantile of that distance after 1, 2, ... evaluations of everyone who chooses, as many as the slowest
            adaptive sample of this field and sampler took.
        budget: the smallest fixed budget with which that quantile is at most the adaptive one of the same samples; 0 if
            none is.
        fixed_distance: distance of each judged sample after the fixed budget; not a number if there is none.
        saved: share of the evaluations that stopping saves the judged samples; not a number if there is no budget.
        interval: ends of its 95% interval; not numbers if a resample has no budget.
    """

    field: str
    sampler: str
    start: str
    evaluations: Float[np.ndarray, "n"]
    converged: Float[np.ndarray, "n"]
    distance: Float[np.ndarray, "n"]
    path: Float[np.ndarray, "K"]
    budget: int
    fixed_distance: Float[np.ndarray, "m"]
    saved: float
    interval: tuple[float, float]


class Study(NamedTuple):
    """All cases, and the choices that they come from."""

    options: Options
    cases: Sequence[Case]


@in_one_warning()
def measure(options: Options) -> Study:
    """Run every sampler on every field, from all starts at once.

    Raises:
        ValueError: if an option is out of its range, or the workdir holds no blind field that can be descended.
    """
    fields, cases = list(_fields(options)), []
    progress = Progress("eqm stop", len(fields) * len(DESCENTS), "runs")
    with contextlib.closing(progress):
        for name, field, points in fields:
            u = starts(field.process, points, options)
            for sampler in DESCENTS:
                cases += compare(name, field, points, u, sampler, options)
                progress.update(len(cases) // len(STARTS), f"{name}, {sampler}")
    return Study(options, cases)


def starts(process: Process, points: Float[np.ndarray, "m *event"], options: Options) -> Float[Array, "S*n *event"]:
    """Return the observations of all starts, in the order of ``STARTS``."""
    key_noise, key_mixed, key_rows = jax.random.split(root_key(options.seed), 3)
    x = jnp.asarray(points)[jax.random.randint(key_rows, (options.num,), 0, len(points))]
    t = jnp.linspace(process.schedule.t_min, process.schedule.t_max, options.num)
    mixed = process.corrupt(x, jax.random.normal(key_mixed, x.shape, x.dtype), t.astype(x.dtype))
    by_name = {NOISE: process.start(key_noise, x.shape), MIXED: mixed}
    return jnp.concatenate([by_name[name] for name in STARTS])


def compare(
    name: str,
    field: Field,
    points: Float[np.ndarray, "m *event"],
    u: Float[Array, "S*n *event"],
    sampler: str,
    options: Options,
) -> list[Case]:
    """Return the case of every start for one field and sampler."""
    steps = {"step_size": options.step_size}
    if sampler != "eqm_descent":
        steps["momentum"] = options.momentum
    adaptive = _jitted(sampler)(field, u, max_steps=options.max_steps, tolerance=options.tolerance, **steps)
    num_steps = int(adaptive.statistics["evaluations"].max())
    along = np.asarray(fixed_path(field, jnp.asarray(points), u, sampler, num_steps, **steps))
    ends = np.asarray(nearest_distance(adaptive.u, jnp.asarray(points)))
    cases = []
    for number, start in enumerate(STARTS):
        rows = slice(number * options.num, (number + 1) * options.num)
        evaluations, converged = (np.asarray(adaptive.statistics[key])[rows] for key in ("evaluations", "converged"))
        judged = judge(along[:, rows], ends[rows], evaluations, options.seed)
        cases.append(Case(name, sampler, start, evaluations, converged, ends[rows], *judged))
    return cases


def judge(
    along: Float[np.ndarray, "K n"], ends: Float[np.ndarray, "n"], evaluations: Float[np.ndarray, "n"], seed: int
) -> tuple[Float[np.ndarray, "K"], int, Float[np.ndarray, "m"], float, tuple[float, float]]:
    """Choose the fixed budget on the samples in even places and judge it on those in odd places.

    Args:
        along: distance of each sample after 1, 2, ... evaluations.
        ends: distance of each sample where it stops.
        evaluations: how many it took until there.
        seed: seed of the bootstrap.

    Returns:
        The last five fields of :class:`Case`.
    """
    chosen_along, chosen_ends, judged = along[:, ::2], ends[::2], evaluations[1::2]
    path = np.quantile(chosen_along, QUANTILE, axis=1)
    budget = smallest_budget(path, chosen_ends)
    generator, resampled = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        rows, others = (generator.integers(0, size, size) for size in (len(chosen_ends), len(judged)))
        again = smallest_budget(np.quantile(chosen_along[:, rows], QUANTILE, axis=1), chosen_ends[rows])
        resampled.append(_saved(judged[others], again))
    low, high = np.quantile(resampled, (0.025, 0.975))
    at_budget = along[budget - 1, 1::2] if budget else np.full(len(judged), np.nan)
    return path, budget, at_budget, _saved(judged, budget), (float(low), float(high))


def _saved(evaluations: Float[np.ndarray, "m"], budget: int) -> float:
    return 1.0 - float(evaluations.mean()) / budget if budget else float("nan")


def smallest_budget(path: Float[np.ndarray, "K"], distance: Float[np.ndarray, "n"]) -> int:
    """Return the first number of evaluations whose quantile on the path is at most that of the distances, or 0."""
    reached = path <= (1.0 + _ROUNDING) * np.quantile(distance, QUANTILE)
    return int(reached.argmax()) + 1 if reached.any() else 0


@functools.partial(jax.jit, static_argnames=("sampler", "num_steps", "step_size", "momentum"))
def fixed_path(
    field: Any,
    points: Float[Array, "m *event"],
    u: Float[Array, "b *event"],
    sampler: str,
    num_steps: int,
    *,
    step_size: float,
    momentum: float = 0.0,
) -> Float[Array, "num_steps b"]:
    """Return the distances to the data after every step of a sampler that does not stop: (2) to (4) of its module."""

    def body(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        u, shift = state
        point = u + momentum * shift
        after = (u if sampler == "eqm_nesterov_released" else point) - step_size * evaluate_blind(field, point)
        return (after, after - u), nearest_distance(after, points)

    return jax.lax.scan(body, (u, jnp.zeros_like(u)), length=num_steps)[1]


@jax.jit
def nearest_distance(u: Float[Array, "b *event"], points: Float[Array, "m *event"]) -> Float[Array, "b"]:
    """Return the distance to the nearest point, which a matrix product finds and a difference measures."""
    flat, rows = u.reshape(len(u), -1), points.reshape(len(points), -1)
    product = jnp.einsum("bd,md->bm", flat, rows, precision=jax.lax.Precision.HIGHEST)
    index = jnp.argmin(jnp.square(rows).sum(-1)[None] - 2.0 * product, axis=1)
    return jnp.linalg.norm(flat - rows[index], axis=1)


def _fields(options: Options) -> Iterator[tuple[str, Field, np.ndarray]]:
    """Yield names, fields and the points of their data."""
    if options.workdir is not None:
        trained = restore(options.workdir, mesh=sampling_mesh(jax.devices()[:1]))
        name = f"{trained.config.data.name}, step {trained.step}"
        yield name, trained.field, np.asarray(build.finite_set(trained.config).points)
        return
    process = Process(Linear(), Equilibrium(options.decay))
    for dim in options.dims:
        points = ring(dim)[0]
        yield f"exact, D = {dim}", exact_field(FiniteSet(points), process, blind=True), points


@functools.cache
def _jitted(sampler: str) -> Any:
    static = ("step_size", "momentum", "max_steps", "tolerance")
    known = [name for name in static if name in SAMPLERS[sampler].options]
    return jax.jit(SAMPLERS[sampler].run, static_argnames=known)


def table(study: Study) -> str:
    """Return the results as text."""
    options, cases = study
    heading = (
        "Equilibrium Matching: evaluations of the field per sample, stopped each where |f| / sqrt(D) <= "
        f"{options.tolerance:g}\n(adaptive), against the smallest budget, the same for all samples, whose 90% quantile "
        f"of distances to the data\nis as small. {options.num} samples per start, of which every other one chooses the "
        "budget; all columns are of the rest.\nat fixed: distance with the fixed budget; saved: 1 - mean / fixed, with "
        f"its 95% interval. Step {options.step_size:g}, momentum {options.momentum:g}."
    )
    header = ["field", "start", "sampler", "stopped", "distance", "at fixed", "mean", "max", "fixed", "saved", "95%"]
    return "\n".join([heading, "", *aligned([header, *map(_row, cases)])])


def verdicts(study: Study) -> list[Verdict]:
    """Return whether stopping each sample saves evaluations, by start (Wang & Du 2025, section 4)."""
    claim = "to stop each sample at a small gradient takes fewer evaluations than a fixed budget of the same distance"
    found = []
    for start in dict.fromkeys(case.start for case in study.cases):
        cases = [
            Told(f"{case.field} {case.sampler}", case.saved, *case.interval)
            for case in study.cases
            if case.start == start
        ]
        about = Claim("Wang & Du 2025, sec. 4", claim, f"from {start}", "share of evaluations saved")
        found.append(over_cases(cases, about, at_least=0.0))
    return found


@style.paper()
def picture(study: Study) -> Figure:
    """Return histograms of the evaluations of adaptive samples, with the fixed budget, by start and sampler."""
    cases = study.cases
    starts, samplers = (list(dict.fromkeys(getattr(case, key) for case in cases)) for key in ("start", "sampler"))
    figure = Figure(figsize=(4.0 * len(samplers), 2.9 * len(starts) + 0.5), layout="constrained")
    panels = figure.subplots(len(starts), len(samplers), squeeze=False, sharex=True)
    edges = np.linspace(0.0, max(case.evaluations.max() for case in cases), _BINS + 1)
    for row, start in enumerate(starts):
        for column, sampler in enumerate(samplers):
            chosen = [case for case in cases if (case.start, case.sampler) == (start, sampler)]
            _histograms(panels[row, column], chosen, edges)
            panels[row, column].set_title(f"{sampler}\nfrom {start}")
        panels[row, 0].set_ylabel("samples")
    for axes in panels[-1]:
        axes.set_xlabel("evaluations of the field")
    style.headed(
        figure, "Adaptive stop (histograms, mean dotted) and fixed budget (dashed) at the same distance to the data"
    )
    return figure


def arrays(study: Study) -> dict[str, Any]:
    """Return the fields of :class:`Case`, stacked; paths are padded with not-a-number."""
    cases = study.cases
    found = {key: np.stack([getattr(case, key) for case in cases]) for key in Case._fields if key != "path"}
    paths = np.full((len(cases), max(len(case.path) for case in cases)), np.nan)
    for row, case in zip(paths, cases, strict=True):
        row[: len(case.path)] = case.path
    return {**found, "path": paths}


def _row(case: Case) -> list[str]:
    evaluations, converged, distance = (each[1::2] for each in (case.evaluations, case.converged, case.distance))
    numbers = [f"{evaluations.mean():.1f}", f"{evaluations.max():.0f}"]
    reached = [f"{np.quantile(each, QUANTILE):.3g}" for each in (distance, case.fixed_distance)]
    compared = [str(case.budget), f"{case.saved:.0%}", _interval(case.interval)] if case.budget else ["none", "", ""]
    return [case.field, case.start, case.sampler, f"{converged.mean():.0%}", *reached, *numbers, *compared]


def _interval(ends: tuple[float, float]) -> str:
    return "unknown" if np.isnan(ends).any() else f"{ends[0]:.0%} to {ends[1]:.0%}"


def _histograms(axes: Any, cases: Sequence[Case], edges: np.ndarray) -> None:
    for number, case in enumerate(cases):
        color, mean = style.COLORS[number % len(style.COLORS)], case.evaluations.mean()
        look = {"histtype": "stepfilled", "facecolor": (color, 0.25), "edgecolor": color}
        axes.hist(case.evaluations, edges, label=f"{case.field}: mean {mean:.0f}", **look)
        axes.axvline(mean, ymax=_BELOW, color=color, linestyle=":")
        if case.budget:
            axes.axvline(case.budget, ymax=_BELOW, color=color, linestyle="--", label=f"fixed budget {case.budget}")
    axes.set_ylim(top=axes.get_ylim()[1] / _BELOW)
    axes.legend(loc="upper left")
