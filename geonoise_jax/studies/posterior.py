r"""What a blind model knows of the noise level: the posterior p(b | u) at probes that move onto a datum.

"The Geometry of Noise" (arXiv:2602.18428) has the posterior collapse to a Dirac measure there (lemmas 4 to 6), so that
a blind model knows the noise level where it matters. At a distance r from a datum in R^D, with a prior of density
b^(kappa - 1) of the noise scale and m = D - kappa, ``s = r / b`` tends to the chi law of m degrees (tilted by the
shrinkage of the schedule), so that

    E[b | u] ~ r E[1 / s] -> 0                if m >= 1, and like a logarithm if m = 0
    sd(b | u) / E[b | u] -> sqrt(E[s^-2] / E[s^-1]^2 - 1)  if m > 2, about 1 / sqrt(2 m)

The collapse is free of scale: the noise level becomes small, not known better. What is called an interval is the range
over directions; integrals are exact to the accuracy that the table prints.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure

from geonoise_jax.checks import increasing, integer
from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.stability import width_of
from geonoise_jax.studies.concurrency import in_float64
from geonoise_jax.studies.grouping import grouped
from geonoise_jax.studies.near_datum import PAIRS, SMALLEST_NOISE, decay, moments, radii, range_text, ranged
from geonoise_jax.studies.points import (
    ACCURACY,
    POINTS,
    SCHEDULES,
    Family,
    around,
    directions,
    embedded,
    marginal,
)
from geonoise_jax.studies.verdicts import Verdict

RADII = radii(0.0, 6.5)
# The radii whose posteriors are drawn.
SHOWN = (2, 4, 6, 8)
_INSIDE = 0.5
# For the legend above the lines.
_ROOM = 30.0
_COLLAPSED, _KNOWN = 0.01, 0.01
_FAMILIES = ("Linear", "VPLinear")


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space; posteriors are drawn for the (lower) middle one.
        seed: seed of the directions.
    """

    dims: tuple[int, ...] = (1, 2, 8, 64)
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the sizes."""
        increasing("dims", self.dims, integer, low=1)
        integer("seed", self.seed, low=0)

    @property
    def drawn(self) -> int:
        """The dimension whose posteriors are drawn."""
        return self.dims[len(self.dims) // 2]


QUICK = Options(dims=(1, 2, 8))


class Approach(NamedTuple):
    """Posteriors at the ``RADII`` from a datum in R^D, along K directions, of one schedule.

    Attributes:
        law: how the noise scale goes to zero.
        dim: dimension D.
        m: ``D - kappa``.
        mean: E[b | u].
        sd: standard deviation of b given u.
        width_limit: what sd / mean tends to along each direction; infinite where it has no limit.
        mean_limit: what mean / r tends to; infinite where it has none.
        b: nodes of the posteriors that are drawn, along the first direction.
        density: p(log b | u) at those.
    """

    law: str
    dim: int
    m: int
    mean: Float[np.ndarray, "R K"]
    sd: Float[np.ndarray, "R K"]
    width_limit: Float[np.ndarray, "K"]
    mean_limit: Float[np.ndarray, "K"]
    b: Float[np.ndarray, "S T"]
    density: Float[np.ndarray, "S T"]

    @property
    def width(self) -> Float[np.ndarray, "R K"]:
        """How well the noise scale is known: sd / mean."""
        return self.sd / self.mean

    @property
    def collapse(self) -> Float[np.ndarray, "K"]:
        """With which power of r the mean vanishes, in the last decade."""
        return decay(self.mean)

    @property
    def sharpening(self) -> Float[np.ndarray, "K"]:
        """With which power of r the relative width vanishes, in the last decade."""
        return decay(self.width)


class Study(NamedTuple):
    """All approaches, and the choices that they come from."""

    options: Options
    approaches: tuple[Approach, ...]


@in_one_warning()
def measure(options: Options) -> Study:
    """Evaluate posteriors of flow matching's and of the VP schedule ever nearer to a datum."""
    cases = [(SCHEDULES[name], dim) for name in _FAMILIES for dim in options.dims]
    tasks = {f"{family.law}, D = {dim}": partial(_approach, family, dim, options.seed) for family, dim in cases}
    return Study(options, tuple(in_float64("posterior", tasks)))


def _approach(family: Family, dim: int, seed: int) -> Approach:
    points, unit = embedded(POINTS[3], dim), directions(dim, PAIRS, seed)
    schedule, m = family.from_noise(SMALLEST_NOISE), dim - family.kappa
    u = around(points[0], RADII, unit)
    found = marginal(points, schedule, "Noise").posterior(jnp.asarray(u.reshape(-1, dim)))
    coeffs = schedule.coeffs(found.t)
    b, db = np.asarray(coeffs.b), np.asarray(coeffs.db)
    density = np.asarray(found.density)
    mean, relative = map(np.asarray, width_of(found, schedule))
    rows = [index * len(unit) for index in SHOWN]
    per_log = density * b / db
    limits = [moments(m, family.rho * float(n @ points[0]), (-1, -2)) if m > 0 else (np.inf, np.inf) for n in unit]
    first, second = np.asarray(limits).T
    with np.errstate(invalid="ignore"):
        width = np.where(np.isfinite(second), np.sqrt(second / np.square(first) - 1.0), np.inf)
    shape = u.shape[:2]
    return Approach(
        family.law, dim, m, mean.reshape(shape), (relative * mean).reshape(shape), width, first, b[rows], per_log[rows]
    )


def table(study: Study) -> str:
    """Return means and widths near a datum as text."""
    heading = (
        f"Posterior of the noise scale b at r = {RADII[-1]:g} from a datum in R^D, times uniform, exact to "
        f"{ACCURACY:.0e}; means over directions, with the limits of r -> 0.\nm: D - kappa. collapse: E[b | u] ~ r^c; "
        "sharpening: sd / E ~ r^s; both with their range over directions, from the last decade of r"
    )
    header = ["noise", "D", "m", "E[b] / r", "limit", "sd / E", "limit", "1 / sqrt(2m)", "collapse", "sharpening"]
    return "\n".join([heading, "", *aligned([header, *map(_row, study.approaches)])])


def _row(each: Approach) -> list[str]:
    mean, width = (each.mean[-1] / RADII[-1]).mean(), each.width[-1].mean()
    guess = f"{1.0 / np.sqrt(2.0 * each.m):.4f}" if each.m > 0 else ""
    numbers = [f"{mean:.4g}", f"{each.mean_limit.mean():.4g}", f"{width:.4f}", f"{each.width_limit.mean():.4f}", guess]
    return [
        each.law,
        str(each.dim),
        str(each.m),
        *numbers,
        *(range_text(ranged(x)) for x in (each.collapse, each.sharpening)),
    ]


def verdicts(study: Study) -> list[Verdict]:
    """Return what the posteriors say of lemmas 4 to 6."""
    return [
        *grouped(
            study.approaches,
            ("lemmas 4-6, app. B", "the posterior of the noise level collapses to zero at a datum"),
            "exponent of E[b | u] in r",
            lambda each: each.law,
            lambda each: ranged(each.collapse),
            at_least=_COLLAPSED,
        ),
        *grouped(
            [each for each in study.approaches if each.m > 0],
            ("lemmas 4-6, app. C", "near a datum the noise level becomes known: its relative error vanishes"),
            "exponent of sd / E in r",
            lambda each: each.law,
            lambda each: ranged(each.sharpening),
            at_least=_KNOWN,
        ),
    ]


@style.paper()
def picture(study: Study) -> Figure:
    """Return posteriors at probes that approach a datum, the same in units of the distance, and means and widths."""
    options = study.options
    figure = Figure(figsize=(9.4, 6.4), layout="constrained")
    panels: Any = figure.subplots(2, 3)
    laws = list(dict.fromkeys(each.law for each in study.approaches))
    for row, law in zip(panels, laws, strict=True):
        members = [each for each in study.approaches if each.law == law]
        drawn = next(each for each in members if each.dim == options.drawn)
        _draw_posteriors(row[0], row[1], drawn)
        row[0].set_title(f"{law}: D = {drawn.dim}")
        row[1].set_title(f"{law}: D = {drawn.dim}, in units of r")
        row[2].set_title(f"{law}: relative width")
        _draw_widths(row[2], members)
    for row in panels:
        row[0].legend(title="distance r", fontsize=7.0, title_fontsize=7.5, loc="upper left", ncols=2)
    style.headed(figure, "The posterior of the noise scale, as u moves onto a datum: it collapses, but is not sharper")
    return figure


def _draw_posteriors(axes: Any, scaled: Any, each: Approach) -> None:
    colors = colormaps["viridis"](np.linspace(0.0, 0.85, len(SHOWN)))
    for color, index, b, density in zip(colors, SHOWN, each.b, each.density, strict=True):
        used = density > 0.0
        axes.plot(b[used], density[used], color=color, label=f"{RADII[index]:g}")
        scaled.plot(b[used] / RADII[index], density[used], color=color)
    # Where b ends, little mass stands in a narrow range of log b.
    top = float(each.density[each.b < _INSIDE].max())
    axes.set(xscale="log", xlabel="b", ylabel="p(log b | u)", ylim=(0.0, 1.5 * top))
    axes.set_xlim(1e-2 * RADII[SHOWN[-1]], 1.0)
    scaled.set(xscale="log", xlabel="b / r", ylabel="p(log b | u)", ylim=(0.0, 1.15 * top), xlim=(0.08, 3.0))


def _draw_widths(axes: Any, members: list[Approach]) -> None:
    for number, each in enumerate(members):
        color = style.COLORS[number % len(style.COLORS)]
        width = each.width
        axes.plot(RADII, width.mean(axis=1), color=color, label=f"D = {each.dim}, m = {each.m}")
        axes.fill_between(RADII, width.min(axis=1), width.max(axis=1), color=color, alpha=0.2, linewidth=0.0)
        if each.m > 0:
            axes.plot(RADII[-1], 1.0 / np.sqrt(2.0 * each.m), "x", color=color, markersize=6, zorder=4)
        if np.isfinite(each.width_limit).all():
            axes.plot(RADII[-1], each.width_limit.mean(), "o", color=color, markerfacecolor="white", zorder=3)
    axes.plot([], [], "x", color="black", label="$1/\\sqrt{2m}$")
    axes.plot([], [], "o", color="black", markerfacecolor="white", label="limit of r → 0")
    axes.set(xscale="log", yscale="log", xlabel="r, distance from a datum", ylabel="sd(b | u) / E[b | u]")
    axes.invert_xaxis()
    axes.set_ylim(top=_ROOM * axes.get_ylim()[1])
    axes.legend(fontsize=6.5, ncols=2, loc="upper left")


def arrays(study: Study) -> dict[str, Any]:
    """Return the fields of :class:`Approach`, stacked; nodes and densities by name."""
    stacked = ("law", "dim", "m", "mean", "sd", "width_limit", "mean_limit")
    found = {name: np.asarray([getattr(each, name) for each in study.approaches]) for name in stacked}
    nodes = {
        f"{name}_{number}": getattr(each, name)
        for number, each in enumerate(study.approaches)
        for name in ("b", "density")
    }
    return {"radii": RADII, **found, **nodes}
