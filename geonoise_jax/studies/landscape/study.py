r"""The marginal energy ``E(u) = -log p(u)`` of a few points, its gradient, and the blind field that preconditions it.

"The Geometry of Noise" (arXiv:2602.18428), figure 1 and equation (12), has an infinitely deep well at every datum,
whose gradient diverges, while the field ``E[lambda] grad E + ...`` of a blind model stays bounded.

At a distance r from a datum in R^D, and with noise scales of density b^(kappa - 1) down to 0, ``p(u) ~ r^-m`` with
``m = D - kappa``: a power for m > 0, ``log 1 / r`` for m = 0, finite for m < 0. In all three cases the growth

    q(r) = r |dp / dr| = p(u) r (n . grad E),  averaged over opposite directions n,

goes like ``r^-m``, so that the exponent of q, unlike the slope of E, tells them apart: p is unbounded, and the well
infinitely deep, if and only if m >= 0. Its integrals over t are exact to the accuracy that the table prints; what is
called the interval of a slope is its range over directions and over the radii at which it is read.

The natural gradient ``E[lambda] grad E`` with lambda ~ b is bounded if and only if m > 1, with lambda ~ b^2 if and
only if m > 2; the whole field is bounded sooner. Both are read from how much they grow in the last decade of r. Wells
of b ~ t are those of the Linear schedule with the target that was chosen, wells of b ~ sqrt t those of VPLinear with
the noise as target.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geonoise_jax.checks import increasing, integer, real, truth
from geonoise_jax.exact import Analysis, Decomposition
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.studies.concurrency import in_float64
from geonoise_jax.studies.near_datum import PAIRS, PER_DECADE, SMALLEST_NOISE, radii, ranged
from geonoise_jax.studies.points import (
    POINTS,
    SCHEDULES,
    Family,
    around,
    check_system,
    directions,
    embedded,
    marginal,
)

RADII = radii(1.0, 8.5)
# The radii, from this one on, at which slopes are read.
READ_FROM = 6
_TRAINED_FROM = 1e-3
# A multiple of all numbers of points.
_ROWS = 15


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        schedule: name of the schedule of the maps: Linear, VPLinear or VE.
        target: name of the target: Velocity, Noise, Signal, VPrediction or Equilibrium.
        cells: the maps have as many cells each way.
        limit: the maps show [-limit, limit]^2.
        surfaces: draw them as surfaces instead of maps.
        dims: dimensions D of the space in which wells are measured.
        seed: seed of the directions.
    """

    schedule: str = "Linear"
    target: str = "Velocity"
    cells: int = 96
    limit: float = 2.4
    surfaces: bool = False
    dims: tuple[int, ...] = (1, 2, 3, 5)
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the names and the sizes."""
        check_system(self.schedule, self.target)
        integer("cells", self.cells, low=8)
        integer("seed", self.seed, low=0)
        real("limit", self.limit, low=0.0, open_low=True)
        truth("surfaces", self.surfaces)
        increasing("dims", self.dims, integer, low=1)


QUICK = Options(cells=24, dims=(1, 2))


class Maps(NamedTuple):
    """What is drawn over the plane for one set of points, on C x C cells.

    Attributes:
        energy: marginal energy in nats.
        energy_grad: length of its gradient.
        field: length of the blind field.
        error: largest estimated relative error of the three.
    """

    energy: Float[np.ndarray, "C C"]
    energy_grad: Float[np.ndarray, "C C"]
    field: Float[np.ndarray, "C C"]
    error: float


@dataclasses.dataclass(frozen=True)
class Well:
    """The neighbourhood of a datum, at the ``RADII`` and along K directions.

    Attributes:
        law: how the noise scale goes to zero.
        target: name of the target.
        dim: dimension D.
        m: ``D - kappa``.
        energy: marginal energy in nats.
        slope: ``r n . grad E``, its slope against log r.
        natural: length of the natural gradient.
        field: length of the blind field.
        error: largest estimated relative error.
    """

    law: str
    target: str
    dim: int
    m: int
    energy: Float[np.ndarray, "R K"]
    slope: Float[np.ndarray, "R K"]
    natural: Float[np.ndarray, "R K"]
    field: Float[np.ndarray, "R K"]
    error: float

    @property
    def depth(self) -> Float[np.ndarray, "R"]:
        """How far the energy has fallen since the first radius, averaged over directions."""
        mean = self.energy.mean(axis=1)
        return mean[0] - mean

    @property
    def exponents(self) -> Float[np.ndarray, "R-1"]:
        """The exponent m of ``p ~ r^-m`` between neighbouring radii, from the growth of p."""
        growth = (np.exp(self.energy[:1].max() - self.energy) * self.slope).mean(axis=1)
        with np.errstate(invalid="ignore"):
            return -np.diff(np.log(growth)) / np.diff(np.log(RADII))

    @property
    def exponent(self) -> tuple[float, float, float]:
        """Mean, smallest and largest exponent at the radii that are read."""
        return ranged(self.exponents[READ_FROM:])

    @property
    def energy_slope(self) -> tuple[float, float, float]:
        """Least squares slope of the energy against log r, and the range of the slopes over radii and directions."""
        x = np.log(RADII[READ_FROM:])
        fitted = np.polyfit(x, self.energy[READ_FROM:].mean(axis=1), 1)[0]
        slopes = self.slope[READ_FROM:]
        return float(fitted), float(min(fitted, slopes.min())), float(max(fitted, slopes.max()))

    def growth(self, name: str) -> tuple[float, float, float]:
        """Return by how much a length or the energy grows in the last decade: mean and range over directions."""
        values = getattr(self, name)
        return ranged(values[-1] - values[-1 - PER_DECADE])


@dataclasses.dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes:
        options: choices of the study.
        axis: cell centres of the maps, along either axis.
        maps: by number of points.
        wells: for b ~ t and b ~ sqrt t in every dimension.
        trained: for b ~ t in the last dimension, where noise has the least scale of training.
    """

    options: Options
    axis: Float[np.ndarray, "C"]
    maps: dict[int, Maps]
    wells: tuple[Well, ...]
    trained: Well


@in_one_warning()
def measure(options: Options) -> Study:
    """Evaluate the exact fields over the plane and around a datum.

    Raises:
        ValueError: if the target is singular on the schedule.
    """
    axis = (np.arange(options.cells) + 0.5) / options.cells * 2.0 * options.limit - options.limit
    first, second = SCHEDULES["Linear"], SCHEDULES["VPLinear"]
    tasks: dict[str, Any] = {"plane": partial(_maps, axis, options)}
    for family, target in ((first, options.target), (second, "Noise")):
        schedule = family.from_noise(SMALLEST_NOISE)
        for dim in options.dims:
            case = partial(_well, family, schedule, target, dim, family.law, options.seed)
            tasks[f"{family.law}, D = {dim}"] = case
    schedule, law = first.schedule(t_min=_TRAINED_FROM), f"{first.law} from {_TRAINED_FROM:g}"
    tasks[law] = partial(_well, first, schedule, options.target, options.dims[-1], law, options.seed)
    maps, *wells, trained = in_float64("landscape", tasks)
    return Study(options, axis, maps, tuple(wells), trained)


def arrays(study: Study) -> dict[str, np.ndarray]:
    """Return maps by number of points, and what was measured of wells, stacked."""
    maps = {
        f"{name}_{number}": getattr(each, name)
        for number, each in study.maps.items()
        for name in ("energy", "energy_grad", "field")
    }
    names = ("law", "target", "dim", "m", "energy", "slope", "natural", "field", "exponents", "error")
    wells = {
        f"well_{name}": np.asarray([getattr(each, name) for each in (*study.wells, study.trained)]) for name in names
    }
    return {"axis": study.axis, "radii": RADII, **maps, **wells}


def _maps(axis: Float[np.ndarray, "C"], options: Options) -> dict[int, Maps]:
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    cells, u = grid.shape[:2], jnp.asarray(grid.reshape(-1, 2))
    maps = {}
    for number, points in POINTS.items():
        # Repeated, which leaves the law as it is, so that one program serves all.
        repeated = np.tile(points, (_ROWS // number, 1))
        found = marginal(repeated, SCHEDULES[options.schedule].schedule(), options.target).analyse(u)
        energy = -np.asarray(found.log_density)
        gradient, field = (np.linalg.norm(np.asarray(each), axis=1) for each in (found.energy_grad, found.field))
        maps[number] = Maps(energy.reshape(cells), gradient.reshape(cells), field.reshape(cells), _worst(found))
    return maps


def _well(family: Family, schedule: Schedule, target: str, dim: int, law: str, seed: int) -> Well:
    points, unit = embedded(POINTS[3], dim), directions(dim, PAIRS, seed)
    u = around(points[0], RADII, unit)
    found = marginal(points, schedule, target).analyse(jnp.asarray(u.reshape(-1, dim)))
    # It exists, since a > 0 at the t_max of these schedules.
    natural = cast(Decomposition, found.decomposition).natural
    energy = -np.asarray(found.log_density).reshape(u.shape[:2])
    gradient = np.asarray(found.energy_grad).reshape(u.shape)
    slope = RADII[:, None] * (gradient * unit).sum(axis=-1)
    lengths = [np.linalg.norm(np.asarray(each).reshape(u.shape), axis=-1) for each in (natural, found.field)]
    return Well(law, target, dim, dim - family.kappa, energy, slope, lengths[0], lengths[1], _worst(found))


def _worst(found: Analysis) -> float:
    """Return the largest estimated relative error of what is shown."""
    return max(float(np.max(found.errors[name])) for name in ("log_density", "energy_grad", "field"))
