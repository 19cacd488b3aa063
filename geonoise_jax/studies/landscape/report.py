"""Table, picture and verdicts of the landscape of the marginal energy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.studies.grouping import grouped
from geonoise_jax.studies.landscape.study import RADII, READ_FROM, Study, Well
from geonoise_jax.studies.near_datum import range_text
from geonoise_jax.studies.points import POINTS
from geonoise_jax.studies.verdicts import Verdict, judge

# The three quantities of the maps: name, title, what its colours say, and whether they are logarithmic.
_ROWS = (
    ("energy", "marginal energy $-\\log\\,p(u)$", "nats", False),
    ("energy_grad", "gradient $|\\nabla E|$", "1 / unit of u", True),
    ("field", "blind field $|f^*|$", "unit of the target", True),
)
_CONTOURS = 12
_BOUNDED = 0.01
_FALLING = 0.01
_MOST_DECADES = 3.0
_MAP = "viridis"


def table(study: Study) -> str:
    """Return the wells as text."""
    heading = (
        "Marginal energy E = -log p(u) at distances r from a datum, times uniform, exact fields "
        f"(relative error at most {_error(study):.0e}).\n"
        f"m: D - kappa. exponent: of p ~ r^-m from the growth of p, slope: of E against log r, both from r = "
        f"{RADII[READ_FROM]:.0e} to {RADII[-1]:.0e}\nwith their range over radii and directions; depth: nats gained "
        f"from r = {RADII[0]:g} on; natural, field: growth in the last decade of r"
    )
    rows = [_row(well) for well in (*study.wells, study.trained)]
    # With a least scale of noise p is smooth, and has no exponent.
    rows[-1][3:5] = ["", ""]
    header = ["noise", "target", "D", "m", "exponent", "slope of E", "depth", "natural", "field", "|f*|"]
    return "\n".join([heading, "", *aligned([header, *rows], left=2)])


def _error(study: Study) -> float:
    return max([each.error for each in study.maps.values()] + [each.error for each in (*study.wells, study.trained)])


def _row(well: Well) -> list[str]:
    ranged = [range_text(each) for each in (well.exponent, well.energy_slope)]
    growths = [f"{well.growth(name)[0]:+.2g}" for name in ("natural", "field")]
    return [
        well.law,
        well.target,
        str(well.dim),
        str(well.m),
        *ranged,
        f"{well.depth[-1]:.3g}",
        *growths,
        f"{well.field[-1].mean():.3g}",
    ]


def verdicts(study: Study) -> list[Verdict]:
    """Return what the wells say of equation (12)."""
    bounded = [
        ("the natural gradient E[lambda] grad E stays bounded at the data", "natural"),
        ("the whole blind field stays bounded at the data", "field"),
    ]
    return [
        *grouped(
            study.wells,
            ("eq. (12), fig. 1", "the marginal energy falls without bound at a datum: p(u) ~ r^-m, m >= 0"),
            "m =",
            _where,
            lambda well: well.exponent,
            at_least=-0.5,
        ),
        _trained(study.trained),
        *(
            verdict
            for claim, name in bounded
            for verdict in grouped(
                study.wells,
                ("eq. (14), app. E", claim),
                "growth in the last decade of r",
                _where,
                lambda well, name=name: well.growth(name),  # type: ignore[misc]
                at_most=_BOUNDED,
            )
        ),
    ]


def _trained(well: Well) -> Verdict:
    """Return what is left of the well where noise has a least scale."""
    value, low, high = (-each for each in well.growth("energy"))
    return Verdict(
        "eq. (12), fig. 1",
        "the marginal energy falls without bound at a datum",
        f"{well.law}, as trained, D = {well.dim}; range over directions",
        "fall in the last decade of r, nats,",
        value,
        high,
        low,
        judge(high, low, at_least=_FALLING),
    )


def _where(well: Well) -> str:
    return f"{well.law}, {well.target} target"


@style.paper()
def picture(study: Study) -> Figure:
    """Return maps or surfaces of the three quantities for every set of points, and sections through wells."""
    figure = Figure(figsize=(9.0, 11.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(3.0, 1.12))
    upper, lower = halves
    _draw_maps(study, upper)
    _draw_wells(study, lower.subplots(1, 3))
    options = study.options
    lower.suptitle("Sections through a well in $R^D$, r: distance from the datum", x=0.005, ha="left")
    style.headed(
        figure,
        f"What a blind model sees of 1, 3 and 5 points: schedule {options.schedule}, target {options.target}, "
        "uniform times",
    )
    return figure


def _draw_maps(study: Study, figure: Any) -> None:
    numbers, surfaces = list(study.maps), study.options.surfaces
    panels = figure.subplots(len(_ROWS), len(numbers), subplot_kw={"projection": "3d"} if surfaces else {})
    for place, (row, (name, title, unit, logarithmic)) in enumerate(zip(panels, _ROWS, strict=True)):
        values = {number: getattr(study.maps[number], name) for number in numbers}
        norm = _norm(list(values.values()), logarithmic)
        for axes, number in zip(row, numbers, strict=True):
            draw = _surface if surfaces else _map
            shown = draw(axes, study.axis, values[number], norm)
            scale = "log10 of " if surfaces and logarithmic else ""
            axes.set_title(f"{scale}{title}, {number} point{'s' if number > 1 else ''}", fontsize=8.5)
            if not surfaces:
                # Rings, so that what is at the datum can be seen.
                axes.plot(*POINTS[number].T, "o", color="white", markerfacecolor="none", markersize=7)
                axes.set(xlabel="$u_1$" if place == len(panels) - 1 else "", ylabel="$u_2$" if axes is row[0] else "")
        figure.colorbar(
            shown, ax=list(row), label=unit, shrink=0.8, aspect=18, extend="min" if logarithmic else "neither"
        )


def _norm(values: Sequence[np.ndarray], logarithmic: bool) -> Normalize:
    """Return the colours of a row; of logarithmic ones those of at most three decades below the largest."""
    low, high = min(each.min() for each in values), max(each.max() for each in values)
    if not logarithmic:
        return Normalize(low, high)
    return LogNorm(max(low, high * 10.0**-_MOST_DECADES), high)


def _map(axes: Any, axis: np.ndarray, values: np.ndarray, norm: Normalize) -> Any:
    shown = axes.pcolormesh(axis, axis, values, norm=norm, cmap=_MAP, shading="nearest", rasterized=True)
    levels = norm.inverse(np.linspace(0.0, 1.0, _CONTOURS + 2)[1:-1])
    axes.contour(axis, axis, values, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    return shown


def _surface(axes: Any, axis: np.ndarray, values: np.ndarray, norm: Normalize) -> Any:
    height = np.log10(values) if isinstance(norm, LogNorm) else values
    colours = {"facecolors": colormaps[_MAP](norm(values)), "rcount": 64, "ccount": 64, "linewidth": 0.0}
    axes.plot_surface(*np.meshgrid(axis, axis), height, antialiased=False, shade=False, **colours)
    axes.view_init(elev=32.0, azim=-60.0)
    axes.set(xlabel="$u_1$", ylabel="$u_2$")
    return ScalarMappable(norm, _MAP)


def _draw_wells(study: Study, panels: Any) -> None:
    laws = list(dict.fromkeys(well.law for well in study.wells))
    colors = dict(zip(study.options.dims, itertools.cycle(style.COLORS), strict=False))
    for well in study.wells:
        color, label = colors[well.dim], f"D = {well.dim}, m = {well.m}"
        panels[laws.index(well.law)].plot(RADII, -well.depth, color=color, label=label)
        if well.law == laws[0]:
            panels[2].plot(RADII, well.natural.mean(axis=1), ":", color=color)
            panels[2].plot(RADII, well.field.mean(axis=1), color=color)
    last = study.trained
    panels[0].plot(RADII, -last.depth, "--", color=colors[last.dim], label=f"D = {last.dim}, {last.law}")
    target = study.options.target
    for panel, title in zip(
        panels, (f"{laws[0]}: energy", f"{laws[1]}: energy", f"{laws[0]}: {target} field"), strict=True
    ):
        panel.set(xscale="log", xlabel="r", title=title)
        panel.invert_xaxis()
    for panel in panels[:2]:
        panel.legend(loc="lower left", fontsize=7.0)
    panels[0].set_ylabel(f"E(r) - E({RADII[0]:g}), nats")
    panels[2].set(yscale="log", ylabel="mean length, unit of the target")
    styles: dict[str, Any] = {"natural gradient": ":", "whole field": "-"}
    panels[2].legend(
        [Line2D([], [], color="black", linestyle=each) for each in styles.values()], list(styles), loc="upper left"
    )
