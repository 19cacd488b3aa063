"""How right a learnt log-density is: dual score matching against the exact densities of its data, level by level.

At high noise the exact densities of the training set, of the population and of held-out points are one, so that the
learnt density has one value to take, constant included. Below, the training set's density falls into its points; a
network that generalises does not follow it there.

Means have standard errors, which cover the choice of the held-out points and their noise, and nothing else: the network
and the training set, which the training set's density is of, are the ones at hand. The levels share their points, so
that errors of neighbouring levels go together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure

from geonoise_jax import build
from geonoise_jax.checks import integer
from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, with_error
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.laws import laws
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.exact import Distribution
from geonoise_jax.fields import DensityField
from geonoise_jax.process import grids
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.progress import Progress
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.verdicts import Verdict
from geonoise_jax.training.sharding import sampling_mesh

# A mean difference of so many nats per dimension counts as none; above so much noise all laws are about one.
_SAME, _HIGH = 0.01, 1.0


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        workdir: workdir of a density (``dual_score``).
        num: observations per noise level.
        levels: noise levels, evenly spaced in log(b / a) from t_min to t_max.
        held_out: the split whose points are noised, which training did not see.
        seed: seed of the noise and of the points, if there are more than ``num``.

    Raises:
        ValueError: if a number is too small.
    """

    workdir: Path
    num: int = 256
    levels: int = 13
    held_out: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the sizes."""
        for name, low in (("num", 2), ("levels", 2), ("seed", 0)):
            integer(name, getattr(self, name), low=low)


class Study(NamedTuple):
    """Log-densities in nats, at L noise levels and n observations each.

    Attributes:
        title: config and step.
        dim: number of entries of an observation.
        noise: noise-to-signal ratios b / a, ascending.
        learnt: log p(u | t) of the network, normalised at t_max.
        exact: that of each law of the data, by name.
        rows: the held-out point behind each observation.
    """

    title: str
    dim: int
    noise: Float[np.ndarray, "L"]
    learnt: Float[np.ndarray, "L n"]
    exact: dict[str, Float[np.ndarray, "L n"]]
    rows: Int[np.ndarray, "n"]

    def error(self, values: Float[np.ndarray, "L n"]) -> Float[np.ndarray, "L"]:
        """Return the standard error of the mean over observations; those of one held-out point count as one cluster.

        That is the sandwich estimate of independent clusters (Cameron & Miller 2015, "A practitioner's guide to
        cluster-robust inference", equation 11), of single observations the usual one.
        """
        clusters, members = np.unique(self.rows, return_inverse=True)
        sums = np.zeros((len(values), len(clusters)))
        np.add.at(sums.T, members, (values - values.mean(1, keepdims=True)).T)
        count = max(len(clusters), 2)
        return np.sqrt(np.square(sums).sum(1) * count / (count - 1.0)) / values.shape[1]


def measure(options: Options) -> Study:
    """Return all log-densities of a workdir's last checkpoint, computed on one device.

    Raises:
        ValueError: if the folder is no workdir, its network is no density, or training saw the held-out points.
    """
    folder = options.workdir
    trained = restore(folder, mesh=sampling_mesh(jax.devices()[:1]))
    field, config = trained.field, trained.config
    if not isinstance(field, DensityField):
        raise UserError(f"workdir = {str(folder)!r}: must hold a density (dual_score), not a {type(field).__name__}")
    key_norm, key_rows, key_eps = jax.random.split(root_key(options.seed), 3)
    field = field.normalised(key_norm)
    known, training = laws(config)
    points = build.finite_set(config, options.held_out)
    check_held_out(options.held_out, np.asarray(training.points), np.asarray(points.points))
    rows = jax.random.choice(key_rows, points.num_points, (options.num,), options.num > points.num_points)
    x = jnp.asarray(points.points)[rows]
    learnt: list[np.ndarray] = []
    exact: dict[str, list[np.ndarray]] = {name: [] for name in known}
    progress = Progress("log density", options.levels, "noise levels")
    noise = []
    for u, t in _observations(field.process, x, key_eps, options.levels):
        k = field.process.coeffs(t)
        noise.append(float(k.b[0] / k.a[0]))
        learnt.append(np.asarray(_learnt(field, u, t)))
        for name, law in known.items():
            exact[name].append(np.asarray(_exact(law, u, k.a, k.b)))
        progress.update(len(noise))
    progress.close()
    stacked = {name: np.stack(values) for name, values in exact.items()}
    title = f"{config.data.name}, {config.schedule.name}, step {trained.step}"
    return Study(title, x[0].size, np.asarray(noise), np.stack(learnt), stacked, np.asarray(rows))


def table(study: Study) -> str:
    """Return means over the held-out observations of each noise level, in nats."""
    header, rows = ["b / a", "learnt"], []
    for name in study.exact:
        header += [f"exact, {name}", "difference", "spread"]
    for level, noise in enumerate(study.noise):
        row = [f"{noise:.3g}", _mean(study, study.learnt, level)]
        for values in study.exact.values():
            difference = study.learnt - values
            row += [_mean(study, values, level), _mean(study, difference, level, "+"), f"{difference[level].std():.2f}"]
        rows.append(row)
    heading = (
        f"{study.title}: log p(u | t) in nats, {study.dim} dimensions, means over {study.learnt.shape[1]} held-out "
        "points\nwith noise; difference: learnt less exact; spread: its standard deviation over the observations.\n"
        "+-: standard error of the mean over held-out points and noise, for this network and this training set."
    )
    return "\n".join([heading, "", *aligned([header, *rows], left=0)])


def verdicts(study: Study) -> list[Verdict]:
    """Return whether the learnt density is each exact one, constant included, where noise hides single points."""
    levels = np.flatnonzero(study.noise >= _HIGH)
    if not len(levels):
        return []
    limit, found = _SAME * study.dim, []
    for name, exact in study.exact.items():
        difference = study.learnt - exact
        error = study.error(difference)
        apart = [Case.of(f"{study.noise[k]:.3g}", difference[k].mean(), error[k]) for k in levels]
        claim = f"the learnt log-density is the exact one of the {name}, its constant included"
        condition = f"within {_SAME:g} nats a dimension, at b / a"
        about = Claim("Guth et al. 2025", claim, condition, "mean difference, nats")
        found.append(over_cases(apart, about, at_least=-limit, at_most=limit))
    return found


@style.paper()
def picture(study: Study) -> Figure:
    """Return the mean log-densities by noise level, and the differences with their standard deviations."""
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    values, differences = figure.subplots(1, 2)
    values.plot(study.noise, study.learnt.mean(1), color="black", marker="o", label="learnt")
    differences.axhline(0.0, color="black", linewidth=0.8)
    for number, (name, exact) in enumerate(study.exact.items()):
        color, difference = style.COLORS[number], study.learnt - exact
        look = {"color": color, "marker": "s^"[number % 2], "markerfacecolor": "white"}
        values.plot(study.noise, exact.mean(1), linestyle="--", label=f"exact, {name}", **look)
        differences.errorbar(study.noise, difference.mean(1), difference.std(1), label=name, **look)
    values.set_ylim(*_limits(study.learnt.mean(1)))
    differences.set_yscale("symlog", linthresh=1.0)
    values.set(title="Mean log density of held-out observations", ylabel="log p(u | t), nats")
    differences.set(title="Learnt less exact: mean and standard deviation", ylabel="nats")
    for axes in (values, differences):
        axes.set(xscale="log", xlabel="noise-to-signal ratio b / a")
        axes.legend()
    style.headed(figure, study.title)
    return figure


def arrays(study: Study) -> dict[str, Any]:
    """Return the fields of the study, each exact log-density and the standard error of its difference by name."""
    found: dict[str, Any] = {f"exact {name}": values for name, values in study.exact.items()}
    found |= {name: value for name, value in study._asdict().items() if name != "exact"}
    return found | {f"error {name}": study.error(study.learnt - values) for name, values in study.exact.items()}


def _observations(
    process: Process, x: Float[Array, "n *event"], key: Array, levels: int
) -> Iterator[tuple[Float[Array, "n *event"], Float[Array, "n"]]]:
    for number, level in enumerate(grids.log_snr(process.schedule, levels - 1)[::-1]):
        t = jnp.full(len(x), level, x.dtype)
        eps = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
        yield process.corrupt(x, eps, t), t


@jax.jit
def _learnt(field: DensityField, u: Float[Array, "n *event"], t: Float[Array, "n"]) -> Float[Array, "n"]:
    return field.log_density(u, t)


@jax.jit
def _exact(
    law: Distribution, u: Float[Array, "n *event"], a: Float[Array, "n"], b: Float[Array, "n"]
) -> Float[Array, "n"]:
    return law.log_density(u, a, b)


def _mean(study: Study, values: np.ndarray, level: int, sign: str = "") -> str:
    return with_error(values[level].mean(), study.error(values)[level], sign=sign)


def _limits(means: np.ndarray) -> tuple[float, float]:
    """Leave out where the density of the training set falls into its points."""
    margin = 0.2 * np.ptp(means) + 1.0
    return means.min() - margin, means.max() + margin
