"""Table, picture and verdicts of the decomposition of blind fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.studies.decomposition.study import ENDS, RADII, TERMS, Norms, Study
from geonoise_jax.studies.near_datum import ranged
from geonoise_jax.studies.points import ACCURACY, POINTS
from geonoise_jax.studies.verdicts import Outcome, Verdict, judge

_COLORS = dict(zip(TERMS, (style.COLORS[0], style.COLORS[1], style.COLORS[2], style.COLORS[6]), strict=True))
_NEGLIGIBLE = 0.01
_VANISHING = 0.05
# Of half a cell, as far as a chain of arrows reaches.
_REACH = 0.9
# Of a cell, how far arrows of one chain stand beside each other.
_ASIDE = 0.07
_RANGE = "range over directions"


def table(study: Study) -> str:
    """Return the norms near a datum, and the mean gain, as text."""
    options, last = study.options, RADII[-1]
    heading = (
        f"f* = natural + transport + drift, schedule {options.schedule}, target {options.target}, times uniform: mean "
        f"lengths at r = {last:g} from a datum\nin R^D (relative accuracy {ACCURACY:.0e}), beside the limits of "
        "r -> 0. exponent: of transport / natural in r; range over directions"
    )
    header = ["D", "natural", "limit", "transport", "limit", "drift", "field", "transport / field", "exponent"]
    rows = [_row(each) for each in study.norms]
    ends = [["1 - t_max", "E[lambda]", "|f*|"]]
    gains = zip(ENDS, study.gain, study.field_norm, strict=True)
    ends += [[f"{gap:g}", f"{gain:.4g}", f"{field:.6f}"] for gap, gain, field in gains]
    said = f"Mean gain of flow matching at |u| = sqrt D, D = {options.middle}, where times end at t_max"
    return "\n".join([heading, "", *aligned([header, *rows]), "", said, "", *aligned(ends)])


def _row(norms: Norms) -> list[str]:
    last = [getattr(norms, name)[-1].mean() for name in ("natural", "transport", "drift", "field")]
    ends = [f"{each.mean():.4g}" for each in (norms.natural_limit, norms.transport_limit)]
    natural, transport, drift, field = (f"{each:.4g}" for each in last)
    share, exponent = (norms.transport / norms.field)[-1], norms.exponent
    ranged = f"{exponent.mean():.1g} [{exponent.min():.1g}, {exponent.max():.1g}]"
    return [str(norms.dim), natural, ends[0], transport, ends[1], drift, field, f"{share.mean():.3g}", ranged]


def verdicts(study: Study) -> list[Verdict]:
    """Return what the terms say of equations (14), (16) and (18), and of the metric."""
    options = study.options
    system = f"{options.schedule} schedule, {options.target} target"
    middle, largest = (
        next(each for each in study.norms if each.dim == dim) for dim in (options.middle, options.dims[-1])
    )
    exponent, in_dim, growth = middle.exponent, study.exponent_in_dim, study.gain_growth
    return [
        Verdict(
            "eqs. (16), (18)",
            "the transport correction vanishes against the natural gradient as u nears a datum",
            f"{system}, D = {middle.dim}, r down to {RADII[-1]:g}; {_RANGE}",
            "exponent of |transport| / |natural| in r",
            *ranged(exponent),
            judge(exponent.min(), exponent.max(), at_least=_VANISHING),
        ),
        *(_negligible(each, system) for each in (middle, largest)),
        Verdict(
            "eqs. (16), (18)",
            "the transport correction at a datum vanishes as D grows",
            f"{system}, r = {RADII[-1]:g}, D = {study.norms[-2].dim} to {largest.dim}; {_RANGE}",
            "exponent of |transport| in D",
            *in_dim,
            judge(*in_dim[1:], at_most=-_VANISHING),
        ),
        Verdict(
            "eqs. (14), (54)",
            "the mean gain E[lambda] of flow matching exists for times on [0, 1]",
            f"D = {options.middle}, |u| = sqrt D; exact; 0 where it converges, 1 where it grows like a logarithm",
            f"growth for 1 - t_max from {ENDS[1]:g} to {ENDS[2]:g} over that from {ENDS[0]:g} to {ENDS[1]:g},",
            growth,
            growth,
            growth,
            judge(growth, growth, at_most=0.5),
        ),
        *_metric(study),
    ]


def _negligible(norms: Norms, system: str) -> Verdict:
    share = (norms.transport / norms.field)[-1]
    return Verdict(
        "eqs. (16), (18)",
        f"the transport correction at a datum is below {_NEGLIGIBLE:.0%} of the field",
        f"{system}, D = {norms.dim}, r = {RADII[-1]:g}; {_RANGE}",
        "|transport| / |f*|",
        *ranged(share),
        judge(share.min(), share.max(), at_most=_NEGLIGIBLE),
    )


def _metric(study: Study) -> list[Verdict]:
    """Return for which targets the gain is positive at all times."""
    groups: dict[Outcome, list[str]] = {}
    for name, least in study.least_gain.items():
        groups.setdefault(judge(least, least, at_least=0.0), []).append(name)
    found = []
    for outcome, names in groups.items():
        least = min(study.least_gain[name] for name in names)
        condition = f"{study.options.schedule} schedule; targets {', '.join(names)}; exact"
        claim = "the gain is that of a metric, positive: the field is a natural gradient that descends"
        found.append(Verdict("eqs. (14), (15)", claim, condition, "least lambda", least, least, least, outcome))
    return found


_QUIVER: Any = {
    "angles": "xy",
    "scale_units": "xy",
    "scale": 1.0,
    "width": 0.0032,
    "headwidth": 3.6,
    "headlength": 4.0,
    "headaxislength": 3.6,
    "minlength": 0.0,
}


@style.paper()
def picture(study: Study) -> Figure:
    """Return chains of arrows over the plane, norms against distance and dimension, and the mean gain."""
    figure = Figure(figsize=(9.6, 6.9), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.62, 1.0))
    panels = parts[1].subplots(3, 1)
    _draw_plane(study, parts[0], parts[0].subplots())
    _draw_distances(study, panels[0])
    _draw_dims(study, panels[1])
    _draw_gain(study, panels[2])
    options = study.options
    style.headed(
        figure,
        f"The blind field as a sum of three terms: schedule {options.schedule}, target {options.target}, times uniform",
    )
    return figure


def _draw_plane(study: Study, figure: Any, axes: Any) -> None:
    plane, options = study.plane, study.options
    top = max(10.0, float(plane.cancelled.max()))
    look: dict[str, Any] = {"norm": LogNorm(1.0, top), "cmap": "Greys", "alpha": 0.55, "shading": "nearest"}
    shown = axes.pcolormesh(plane.axis, plane.axis, plane.cancelled, rasterized=True, **look)
    figure.colorbar(shown, ax=axes, label="$|$natural$| \\,/\\, |f^*|$: what cancels", location="bottom", aspect=40)
    for name, (start, arrow) in _chains(study).items():
        axes.quiver(*start.T, *arrow.T, color=_COLORS[name], zorder=3, **_QUIVER)
    axes.plot(*POINTS[options.points].T, "o", color="black", markerfacecolor="white", markersize=6, zorder=5)
    axes.set(xlim=(-options.limit, options.limit), ylim=(-options.limit, options.limit), aspect="equal")
    axes.set(xlabel="$u_1$", ylabel="$u_2$")
    axes.grid(visible=False)
    names = {
        "natural": "natural gradient",
        "transport": "then transport",
        "drift": "then drift",
        "field": "sum, the field",
    }
    handles = [Line2D([], [], color=_COLORS[name], linewidth=2.0) for name in names]
    handles.append(Line2D([], [], marker="o", color="black", markerfacecolor="white", linestyle=""))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 5, "columnspacing": 1.0, "handlelength": 1.4}
    axes.legend(handles, [*names.values(), "data"], **place)


def _chains(study: Study) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return begin and length of the arrows, reversed as descent goes, each chain as long as its cell has room for.

    They stand a little beside each other, so that those which cancel can be told.
    """
    plane, cell = study.plane, 2.0 * study.options.limit / study.options.cells
    steps = np.stack([-plane.natural, -plane.transport, -plane.drift])
    joints = np.cumsum(steps, axis=0)
    reach = np.linalg.norm(joints, axis=-1).max(axis=0)
    scale = (_REACH * 0.5 * cell / np.where(reach > 0.0, reach, 1.0))[:, None]
    aside = np.stack([-plane.natural[:, 1], plane.natural[:, 0]], axis=1)
    aside *= _ASIDE * cell / np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), np.finfo(float).tiny)
    starts = plane.u + scale * np.concatenate([np.zeros_like(joints[:1]), joints[:2]])
    shifted = starts + np.arange(3)[:, None, None] * aside
    chains = dict(zip(TERMS, zip(shifted, steps * scale, strict=True), strict=False))
    return {**chains, "field": (plane.u - aside, -plane.field * scale)}


def _draw_distances(study: Study, axes: Any) -> None:
    norms = next(each for each in study.norms if each.dim == study.options.middle)
    for name in TERMS:
        label = "field" if name == "field" else name
        axes.plot(RADII, getattr(norms, name).mean(axis=1), color=_COLORS[name], label=label)
    for name, end in (("natural", norms.natural_limit), ("transport", norms.transport_limit)):
        if np.isfinite(end).all():
            axes.plot(RADII[-1], end.mean(), "o", color=_COLORS[name], markerfacecolor="white", markersize=6)
    axes.set(xscale="log", yscale="log", xlabel="r, distance from a datum", ylabel="mean length")
    axes.set_title(f"Near a datum, D = {norms.dim} (rings: limits)")
    axes.invert_xaxis()
    axes.legend(ncols=2, fontsize=7.0)


def _draw_dims(study: Study, axes: Any) -> None:
    dims = np.array([each.dim for each in study.norms], float)
    transport, natural = ([getattr(each, name)[-1].mean() for each in study.norms] for name in ("transport", "natural"))
    limit = np.array([each.transport_limit.mean() for each in study.norms])
    axes.plot(dims, natural, "s-", color=_COLORS["natural"], label="natural")
    axes.plot(dims, transport, "o-", color=_COLORS["transport"], label="transport")
    exists = np.isfinite(limit)
    axes.plot(dims[exists], limit[exists], "o", color="black", markerfacecolor="none", markersize=8, label="its limit")
    if exists.any():
        scaled = limit[exists][-1] * np.sqrt(dims[-1] / dims)
        axes.plot(dims, scaled, ":", color=style.REFERENCE, label="$\\propto D^{-1/2}$")
    axes.set(xscale="log", yscale="log", xlabel="D", ylabel="mean length")
    axes.set_title(f"At r = {RADII[-1]:g}")
    axes.set_xticks(dims, [f"{dim:g}" for dim in dims])
    axes.minorticks_off()
    axes.legend(ncols=2, fontsize=7.0)


def _draw_gain(study: Study, axes: Any) -> None:
    axes.plot(ENDS, study.gain, "o-", color=_COLORS["natural"], label="$E[\\lambda]$")
    axes.plot(ENDS, study.field_norm, "s-", color=_COLORS["field"], label="$|f^*|$")
    bottom = 10.0 ** math.floor(math.log10(study.field_norm.min()))
    axes.set(xscale="log", yscale="log", xlabel="$1 - t_{max}$", ylabel="value, flow matching", ylim=(bottom, None))
    axes.set_title(f"The mean gain has no limit (D = {study.options.middle})")
    axes.invert_xaxis()
    axes.legend(fontsize=7.0)
