r"""The three terms of equation (14) of "The Geometry of Noise" (arXiv:2602.18428), measured.

    f* = E[lambda] grad E  +  E[(lambda - E lambda)(grad E_t - grad E)]  +  E[c / a] u
         natural              transport                                   drift

Of the paper's sentences on it three can be told by exact fields: that the transport correction vanishes near the data
(equations 16 and 18), that the mean gain E[lambda] exists, and that it is a metric, positive for every target.

What :mod:`.limits` has for r -> 0 is drawn beside what was measured. The numbers are exact to the accuracy that the
table prints; what is called an interval is the range over directions.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geonoise_jax.checks import choice, increasing, integer, real
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.process.process import Process
from geonoise_jax.studies.concurrency import in_float64
from geonoise_jax.studies.decomposition import limits
from geonoise_jax.studies.near_datum import PAIRS, SMALLEST_NOISE, decay, radii, ranged
from geonoise_jax.studies.points import (
    POINTS,
    SCHEDULES,
    TARGETS,
    around,
    check_system,
    directions,
    embedded,
    marginal,
)

RADII = radii(0.0, 6.5)
ENDS = (1e-4, 1e-8, 1e-12)
TERMS = ("natural", "transport", "drift", "field")
_FINE = 5


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        schedule: name of the schedule: Linear, VPLinear or VE.
        target: name of the target: Velocity, Noise, Signal, VPrediction or Equilibrium.
        points: number of points in the plane: 1, 3 or 5.
        cells: the plane has as many chains of arrows each way.
        limit: the plane shows [-limit, limit]^2.
        dims: dimensions D in which the norms are measured; distances are drawn for the (lower) middle one.
        seed: seed of the directions.
    """

    schedule: str = "Linear"
    target: str = "Velocity"
    points: int = 3
    cells: int = 9
    limit: float = 2.4
    dims: tuple[int, ...] = (2, 8, 32, 128)
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the names and the sizes."""
        check_system(self.schedule, self.target)
        choice("points", str(self.points), [str(number) for number in POINTS])
        integer("cells", self.cells, low=2)
        integer("seed", self.seed, low=0)
        real("limit", self.limit, low=0.0, open_low=True)
        increasing("dims", self.dims, integer, low=2)

    @property
    def middle(self) -> int:
        """The dimension for which distances are drawn."""
        return self.dims[(len(self.dims) - 1) // 2]


QUICK = Options(cells=4, dims=(2, 8, 32))


class Plane(NamedTuple):
    """The terms over the plane.

    Attributes:
        u: where the arrows begin.
        natural, transport, drift, field: the terms and their sum there.
        axis: centres of finer cells, along either axis.
        cancelled: how much longer the natural gradient is than the field, in those.
    """

    u: Float[np.ndarray, "G 2"]
    natural: Float[np.ndarray, "G 2"]
    transport: Float[np.ndarray, "G 2"]
    drift: Float[np.ndarray, "G 2"]
    field: Float[np.ndarray, "G 2"]
    axis: Float[np.ndarray, "C"]
    cancelled: Float[np.ndarray, "C C"]


class Norms(NamedTuple):
    """Lengths of the terms at the ``RADII`` from a datum in R^D, along K directions.

    Attributes:
        dim: dimension D.
        natural, transport, drift, field: the lengths.
        natural_limit, transport_limit: what the first two tend to, of the same unit at the last radius.
    """

    dim: int
    natural: Float[np.ndarray, "R K"]
    transport: Float[np.ndarray, "R K"]
    drift: Float[np.ndarray, "R K"]
    field: Float[np.ndarray, "R K"]
    natural_limit: Float[np.ndarray, "K"]
    transport_limit: Float[np.ndarray, "K"]

    @property
    def ratio(self) -> Float[np.ndarray, "R K"]:
        """Length of the transport correction in units of the natural gradient."""
        return self.transport / self.natural

    @property
    def exponent(self) -> Float[np.ndarray, "K"]:
        """With which power of r the ratio vanishes, in the last decade."""
        return decay(self.ratio)


@dataclasses.dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes:
        options: choices of the study.
        plane: the terms over the plane.
        norms: their lengths near a datum, by dimension.
        gain: E[lambda] of flow matching at an observation with |u| = sqrt D, where times end at 1 - ``ENDS``.
        field_norm: length of the field there.
        least_gain: smallest lambda over all times, by name of the target, on the schedule.
    """

    options: Options
    plane: Plane
    norms: tuple[Norms, ...]
    gain: Float[np.ndarray, "E"]
    field_norm: Float[np.ndarray, "E"]
    least_gain: dict[str, float]

    @property
    def exponent_in_dim(self) -> tuple[float, float, float]:
        """With which power of D the transport shrinks at the last radius, over the last two dimensions; its range."""
        before, last = self.norms[-2:]
        slopes = np.log(last.transport[-1] / before.transport[-1]) / np.log(last.dim / before.dim)
        return ranged(slopes)

    @property
    def gain_growth(self) -> float:
        """What E[lambda] grows by over the last four decades of 1 - t_max, in units of the four before: 1 for a log."""
        return float((self.gain[2] - self.gain[1]) / (self.gain[1] - self.gain[0]))


@in_one_warning()
def measure(options: Options) -> Study:
    """Decompose the exact blind field over the plane, near a datum, and for times that end ever nearer to a = 0.

    Raises:
        ValueError: if the target is singular on the schedule.
    """
    tasks: dict[str, Any] = {"plane": partial(_plane, options)}
    tasks |= {f"D = {dim}": partial(_norms, dim, options) for dim in options.dims}
    tasks |= {f"1 - t_max = {gap:g}": partial(_at_end, gap, options) for gap in ENDS}
    tasks["gains"] = partial(_least_gains, options.schedule)
    plane, *others, gains = in_float64("decomposition", tasks)
    gain, field_norm = np.asarray(others[len(options.dims) :]).T
    return Study(options, plane, tuple(others[: len(options.dims)]), gain, field_norm, gains)


def arrays(study: Study) -> dict[str, np.ndarray]:
    """Return the fields of :class:`Plane`, and those of :class:`Norms` stacked."""
    plane = {f"plane_{name}": value for name, value in study.plane._asdict().items()}
    norms = {name: np.asarray([getattr(each, name) for each in study.norms]) for name in Norms._fields}
    ends = {"one_minus_t_max": np.asarray(ENDS), "gain": study.gain, "field_norm": study.field_norm}
    signs = {"target": np.asarray(list(study.least_gain)), "least_gain": np.asarray(list(study.least_gain.values()))}
    return {"radii": RADII, **norms, **ends, **signs, **plane}


def _plane(options: Options) -> Plane:
    law = marginal(POINTS[options.points], SCHEDULES[options.schedule].schedule(), options.target)
    axes = [_centres(options.limit, cells) for cells in (options.cells, options.cells * _FINE)]
    u, fine = (np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) for axis in axes)
    parts = law.decompose(jnp.asarray(np.concatenate([u, fine])))
    shown = [np.asarray(getattr(parts, name))[: len(u)] for name in TERMS]
    natural, field = (np.linalg.norm(np.asarray(each)[len(u) :], axis=1) for each in (parts.natural, parts.field))
    natural_at, transport_at, drift_at, field_at = shown
    return Plane(u, natural_at, transport_at, drift_at, field_at, axes[1], (natural / field).reshape(len(axes[1]), -1))


def _centres(limit: float, cells: int) -> Float[np.ndarray, "cells"]:
    return (np.arange(cells) + 0.5) / cells * 2.0 * limit - limit


def _norms(dim: int, options: Options) -> Norms:
    family, points, unit = SCHEDULES[options.schedule], embedded(POINTS[3], dim), directions(dim, PAIRS, options.seed)
    law = marginal(points, family.from_noise(SMALLEST_NOISE), options.target)
    u = around(points[0], RADII, unit)
    parts = law.decompose(jnp.asarray(u.reshape(-1, dim)))
    natural, transport, drift, field = (
        np.linalg.norm(np.asarray(getattr(parts, name)).reshape(u.shape), axis=-1) for name in TERMS
    )
    scale, power = limits.gain_power(law.process)
    unit_at_last = abs(scale) * RADII[-1] ** (power - 1)
    ends = [np.linalg.norm(each, axis=1) * unit_at_last for each in limits.terms(family, power, points[0], unit)]
    return Norms(dim, natural, transport, drift, field, ends[0], ends[1])


def _at_end(gap: float, options: Options) -> tuple[float, float]:
    """Return mean gain and length of flow matching's field at a typical start, where times end at 1 - gap."""
    dim = options.middle
    law = marginal(embedded(POINTS[3], dim), SCHEDULES["Linear"].schedule(t_max=1.0 - gap), "Velocity")
    parts = law.decompose(jnp.asarray(np.sqrt(dim) * directions(dim, 1, options.seed)))
    return float(parts.gain[0]), float(jnp.linalg.norm(parts.field[0]))


def _least_gains(schedule: str) -> dict[str, float]:
    found = {}
    for name, target in TARGETS.items():
        process = Process(SCHEDULES[schedule].schedule(), target())
        times = jnp.linspace(process.schedule.t_min, process.schedule.t_max, 1001)
        found[name] = float(process.gain(times).min())
    return found
