r"""How well the noise level can be read off the distance to the data: shells of noise around a subspace.

Data of a d-dimensional subspace of R^D, seen with noise of scale sigma, lie at a distance ``r = sigma s`` from it, with
s of the chi law of ``m = D - d`` degrees: on a shell of radius ``sigma sqrt m`` and thickness about ``sigma / sqrt 2``.
The estimate of "The Geometry of Noise" (arXiv:2602.18428, section 6, appendix C) is ``sigma_hat = r / sqrt m``. Exact:

    E sigma_hat^2 = sigma^2                                             no bias
    E sigma_hat = sigma sqrt(2 / m) Gamma((m + 1) / 2) / Gamma(m / 2)   too small, by about 1 / (4 m)
    sd sigma_hat -> sigma / sqrt(2 m)                                   as m grows
    E[sigma | u] = r E[1 / s'], s' of m - 1 degrees                     too large on average, by 1 / (m - 2)

The last is for a prior flat in sigma, and m > 2. Two noise levels, one twice the power of the other, are told apart by
the radius at which both are equally likely; the share of wrong answers is the overlap of their shells. All intervals
are of 95% over draws of the noise.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import chi, chi2

from geonoise_jax.checks import increasing, integer
from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import wilson
from geonoise_jax.stability import chi_moment, level_bias
from geonoise_jax.studies.verdicts import Verdict, judge

POWER_RATIO = 2.0
_CHUNK = 20_000
_Z = 1.96
_UNBIASED, _SAME_WIDTH, _CONFUSED = 0.01, 0.05, 0.01
_LEVELS = (0.5, 1.0, 2.0)
_SCATTERED = 260


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space.
        data_dim: dimension d of the subspace of the data, below all D.
        num: draws of the noise in each.
        seed: seed of subspaces and noise.
    """

    dims: tuple[int, ...] = (3, 4, 8, 32, 128, 512)
    data_dim: int = 2
    num: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the sizes."""
        increasing("dims", self.dims, integer, low=1)
        for name, low in (("data_dim", 0), ("num", 100), ("seed", 0)):
            integer(name, getattr(self, name), low=low)
        if self.data_dim >= self.dims[0]:
            raise UserError(f"data_dim = {self.data_dim}: must be smaller than all dims, {self.dims}")


QUICK = Options(dims=(3, 8, 128), num=20_000)


class Estimate(NamedTuple):
    """A number with the ends of its 95% interval, and what it is exactly."""

    value: float
    low: float
    high: float
    exact: float


@dataclasses.dataclass(frozen=True)
class Shell:
    """What the distances say in one dimension, for noise of scale 1.

    Attributes:
        dim: dimension D.
        m: ``D - d``.
        bias: of sigma_hat.
        square_bias: of its square, an estimate of the noise power.
        mean_bias: of the posterior mean under a prior flat in sigma; infinite for m <= 2.
        width: standard deviation of sigma_hat in units of ``1 / sqrt(2 m)``.
        confused: share of noise levels 1 and sqrt 2 that are taken for each other.
    """

    dim: int
    m: int
    bias: Estimate
    square_bias: Estimate
    mean_bias: Estimate
    width: Estimate
    confused: Estimate


class Study(NamedTuple):
    """All shells, and the choices that they come from."""

    options: Options
    shells: tuple[Shell, ...]


def measure(options: Options) -> Study:
    """Draw noise around a random subspace of every dimension, and read its scale off the distances."""
    return Study(options, tuple(_shell(dim, options) for dim in options.dims))


def distances(dim: int, options: Options) -> Float[np.ndarray, "num"]:
    """Return distances from a random subspace of R^dim of Gaussian noise of scale 1."""
    generator = np.random.default_rng([options.seed, dim])
    frame = np.linalg.qr(generator.standard_normal((dim, options.data_dim)))[0]
    found = []
    for start in range(0, options.num, _CHUNK):
        noise = generator.standard_normal((min(_CHUNK, options.num - start), dim))
        found.append(np.linalg.norm(noise - (noise @ frame) @ frame.T, axis=1))
    return np.concatenate(found)


def _shell(dim: int, options: Options) -> Shell:
    r, m = distances(dim, options), dim - options.data_dim
    sigma, factor = r / math.sqrt(m), chi_moment(m - 1, -1.0) if m > 1 else math.inf
    bias = _mean(sigma - 1.0, level_bias(m) - 1.0)
    square = _mean(np.square(sigma) - 1.0, 0.0)
    infinite = Estimate(math.inf, math.inf, math.inf, math.inf)
    posterior = _mean(factor * r - 1.0, 1.0 / (m - 2)) if math.isfinite(factor) else infinite
    return Shell(dim, m, bias, square, posterior, _width(sigma, m), _confused(r, m))


def _mean(values: Float[np.ndarray, "n"], exact: float) -> Estimate:
    reach = _Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return Estimate(mean, mean - reach, mean + reach, exact)


def _width(sigma: Float[np.ndarray, "n"], m: int) -> Estimate:
    """Return the standard deviation in units of 1 / sqrt(2 m); its error is that of the variance, to first order."""
    variance = _mean(np.square(sigma - sigma.mean()), 1.0 - level_bias(m) ** 2)
    return Estimate(*(math.sqrt(2.0 * m * max(each, 0.0)) for each in variance))


def _confused(r: Float[np.ndarray, "n"], m: int) -> Estimate:
    """Return how often the likelier of two levels is the wrong one, with the Wilson interval."""
    square = m * math.log(POWER_RATIO) / (1.0 - 1.0 / POWER_RATIO)
    wrong = np.concatenate([np.square(r) > square, POWER_RATIO * np.square(r) <= square])
    exact = 0.5 * float(chi2.sf(square, m) + chi2.cdf(square / POWER_RATIO, m))
    found = wilson(float(wrong.mean()), len(r))
    return Estimate(found.value, found.low, found.high, exact)


def table(study: Study) -> str:
    """Return the estimates as text."""
    options = study.options
    heading = (
        f"Noise of scale 1 around a subspace of dimension d = {options.data_dim} in R^D, {options.num:,} draws:\n"
        "measured, with 95% intervals, [exact]. sigma_hat: r / sqrt(D - d); width: its sd x sqrt(2 (D - d));\n"
        f"confused: levels 1 and {math.sqrt(POWER_RATIO):.3g} taken for each other"
    )
    header = ["D", "D - d", "bias of sigma_hat", "bias of sigma_hat^2", "bias of E[sigma|u]", "width", "confused"]
    rows = [
        [
            str(each.dim),
            str(each.m),
            *(_said(one) for one in (each.bias, each.square_bias, each.mean_bias, each.width, each.confused)),
        ]
        for each in study.shells
    ]
    return "\n".join([heading, "", *aligned([header, *rows])])


def _said(each: Estimate) -> str:
    if not math.isfinite(each.value):
        return "infinite"
    return f"{each.value:.4f} +- {0.5 * (each.high - each.low):.4f} [{each.exact:.4f}]"


def verdicts(study: Study) -> list[Verdict]:
    """Return what the distances say of section 6, of the first and the last dimension."""
    options, first, last = study.options, study.shells[0], study.shells[-1]
    found = []
    for shell in (first, last):
        where = f"D = {shell.dim}, d = {options.data_dim}, {options.num:,} draws"
        said = (
            (
                "section 6",
                f"the estimate sigma_hat is unbiased, within {_UNBIASED:.0%}",
                "bias of sigma_hat",
                shell.bias,
            ),
            (
                "app. C",
                f"its square is an unbiased power, within {_UNBIASED:.0%}",
                "bias of sigma_hat^2",
                shell.square_bias,
            ),
        )
        found += [
            Verdict(
                source, claim, where, quantity, *each[:3], judge(*each[1:3], at_least=-_UNBIASED, at_most=_UNBIASED)
            )
            for source, claim, quantity, each in said
        ]
        width, confused = shell.width, shell.confused
        found.append(
            Verdict(
                "app. C",
                f"sigma_hat spreads by sigma / sqrt(2 (D - d)), within {_SAME_WIDTH:.0%}",
                where,
                "spread in that unit",
                *width[:3],
                judge(*width[1:3], at_least=1.0 - _SAME_WIDTH, at_most=1.0 + _SAME_WIDTH),
            )
        )
        found.append(
            Verdict(
                "section 6",
                f"shells of noise powers 1 and {POWER_RATIO:g} are disjoint: below {_CONFUSED:.0%} are confused",
                where,
                "share confused",
                *confused[:3],
                judge(*confused[1:3], at_most=_CONFUSED),
            )
        )
    return found


@style.paper()
def picture(study: Study) -> Figure:
    """Return shells in three dimensions, laws of sigma_hat, its bias and width, and how often levels are confused."""
    figure = Figure(figsize=(9.4, 6.8), layout="constrained")
    grid: Any = figure.add_gridspec(2, 3, height_ratios=(1.15, 1.0))
    last = study.shells[-1]
    _draw_shells(figure.add_subplot(grid[0, 0], projection="3d"), 3, study.options.seed)
    _draw_shells(figure.add_subplot(grid[0, 1], projection="3d"), last.dim, study.options.seed)
    _draw_laws(study, figure.add_subplot(grid[0, 2]))
    lower = [figure.add_subplot(grid[1, column]) for column in range(3)]
    _draw_bias(study, lower[0])
    _draw_width(study, lower[1])
    _draw_confused(study, lower[2])
    style.headed(figure, f"The noise scale read off the distance to data of dimension d = {study.options.data_dim}")
    return figure


def _draw_shells(axes: Any, dim: int, seed: int) -> None:
    """Draw noise around one datum, cut open; of more than three dimensions its radius, in a direction of three."""
    generator = np.random.default_rng([seed, dim, 3])
    for color, level in zip(style.COLORS, _LEVELS, strict=False):
        direction = generator.standard_normal((_SCATTERED, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radius = level * np.linalg.norm(generator.standard_normal((_SCATTERED, dim)), axis=1) / math.sqrt(dim)
        points = radius[:, None] * direction
        kept = points[~((points[:, 0] > 0.0) & (points[:, 1] < 0.0))]
        axes.scatter(*kept.T, s=7, color=color, alpha=0.7, linewidth=0.0, label=f"$\\sigma$ = {level:g}")
    limit = 1.2 * _LEVELS[-1]
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), zlim=(-limit, limit))
    axes.set_box_aspect((1, 1, 1), zoom=1.15)
    title = "Noise around a datum in $R^3$" if dim == 3 else f"In $R^{{{dim}}}$, by radius and a direction"
    axes.set_title(title, fontsize=9.5, weight="bold")
    ticks = [-_LEVELS[-1], 0.0, _LEVELS[-1]]
    axes.set(xticks=ticks, yticks=ticks, zticks=ticks)
    axes.tick_params(labelsize=7.0, pad=-1.0)
    axes.set_xlabel("units of $\\sqrt{D}$", fontsize=7.5, labelpad=-4.0)
    axes.view_init(elev=20.0, azim=-45.0)
    axes.legend(loc="upper left", fontsize=7.5, markerscale=2.5, handletextpad=0.0, bbox_to_anchor=(-0.08, 1.0))


def _draw_laws(study: Study, axes: Any) -> None:
    x = np.linspace(1e-3, 2.2, 600)
    for number, each in enumerate(study.shells):
        root = math.sqrt(each.m)
        axes.plot(x, root * chi.pdf(root * x, each.m), color=style.COLORS[number % 8], label=f"D = {each.dim}")
    axes.axvline(1.0, color=style.REFERENCE, linewidth=0.8, linestyle=":")
    axes.set(xlabel="$\\hat\\sigma\\,/\\,\\sigma$", ylabel="density (exact)", title="Law of the estimate", yscale="log")
    axes.set_ylim(2e-2, 40.0)
    axes.legend(fontsize=6.5, loc="upper right")


def _draw_bias(study: Study, axes: Any) -> None:
    names = (
        ("bias", "$\\hat\\sigma$", style.COLORS[0], "o"),
        ("square_bias", "$\\hat\\sigma^2$", style.COLORS[1], "s"),
        ("mean_bias", "$E[\\sigma|u]$, flat prior", style.COLORS[2], "^"),
    )
    for name, label, color, marker in names:
        shown = [(each.m, getattr(each, name)) for each in study.shells if math.isfinite(getattr(each, name).value)]
        _errorbar(axes, shown, color, marker, label)
    axes.axhline(0.0, color=style.REFERENCE, linewidth=0.8)
    axes.set(xscale="log", xlabel="D - d", ylabel="relative bias", title="Bias (lines: exact)")
    axes.legend(fontsize=7.0)


def _draw_width(study: Study, axes: Any) -> None:
    shown = [(each.m, each.width) for each in study.shells]
    _errorbar(axes, shown, style.COLORS[0], "o", "measured")
    axes.axhline(1.0, color=style.REFERENCE, linewidth=0.8, linestyle=":", label="$\\sigma / \\sqrt{2(D-d)}$")
    axes.set(xscale="log", xlabel="D - d", ylabel="sd of $\\hat\\sigma$ x $\\sqrt{2(D-d)}$", title="Spread")
    axes.legend(fontsize=7.0)


def _draw_confused(study: Study, axes: Any) -> None:
    m = np.geomspace(study.shells[0].m, study.shells[-1].m, 200)
    square = m * math.log(POWER_RATIO) / (1.0 - 1.0 / POWER_RATIO)
    exact = 0.5 * (chi2.sf(square, m) + chi2.cdf(square / POWER_RATIO, m))
    axes.plot(m, np.maximum(exact, 1e-6), color=style.COLORS[0], label="exact")
    shown = [(each.m, each.confused) for each in study.shells if each.confused.value > 0.0]
    _errorbar(axes, shown, style.COLORS[0], "o", "measured", line=False)
    axes.set(xscale="log", yscale="log", xlabel="D - d", ylabel="share confused", ylim=(1e-6, 1.0))
    axes.set_title(f"Noise powers 1 and {POWER_RATIO:g}")
    axes.legend(fontsize=7.0)


def _errorbar(
    axes: Any, shown: list[tuple[int, Estimate]], color: str, marker: str, label: str, *, line: bool = True
) -> None:
    if not shown:
        return
    m, estimates = zip(*shown, strict=True)
    value, low, high, exact = np.asarray(estimates).T
    if line:
        axes.plot(m, exact, color=color, linewidth=1.0)
    axes.errorbar(m, value, [value - low, high - value], fmt=marker, color=color, label=label)


def arrays(study: Study) -> dict[str, Any]:
    """Return the estimates by name, each as value, ends of its interval and exact number."""
    names = ("bias", "square_bias", "mean_bias", "width", "confused")
    found = {name: np.asarray([getattr(each, name) for each in study.shells]) for name in names}
    sizes = {name: np.asarray([getattr(each, name) for each in study.shells]) for name in ("dim", "m")}
    return {**sizes, **found}
