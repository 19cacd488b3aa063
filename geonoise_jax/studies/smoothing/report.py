"""Table and picture of smoothed blind fields, beside what the clock and the point of rest foresee."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.studies.smoothing.agreement import agreement, told_by_rest
from geonoise_jax.studies.smoothing.claims import exponents
from geonoise_jax.studies.smoothing.fields import Smoothing
from geonoise_jax.studies.smoothing.radial import radial_field, share_in_time
from geonoise_jax.studies.smoothing.study import (
    CEILING,
    CLEAN,
    EXACT,
    FLOOR,
    MOLLIFIED,
    SLOPE,
    TARGETS,
    Study,
    interval,
    quantile,
    reached,
)

_MARKERS = "os^D"
_LOWEST = 2e-4
_UNITS = {
    MOLLIFIED: "width h, per coordinate",
    FLOOR: "least b / a of the prior",
    CEILING: "greatest b / a of the prior",
    SLOPE: "largest slope L at the data",
}
_TITLES = {
    MOLLIFIED: "Averaged over u",
    FLOOR: "Prior without low noise",
    CEILING: "Prior without high noise",
    SLOPE: "Limited slope at the data",
}


def table(study: Study) -> str:
    """Return distances of all fields with intervals and what was foreseen, the networks', and the growth with D."""
    options = study.options
    heading = (
        "Blind fields of 16 points on the unit circle in a plane of R^D, exact, smoothed and learnt: 90% quantile of\n"
        f"the distance to the nearest datum of {options.num} samples (95% interval), {options.num_steps} Heun steps. "
        f"Clean (*): at most {CLEAN:.3f}, half of\nthe way between neighbours. In brackets what was foreseen: of noise "
        "and velocity by the clock of one datum,\nof x and EqM the distance of the point of rest and the largest slope "
        "of the estimate of x there."
    )
    blocks = [heading]
    for column, dim in enumerate(options.dims):
        blocks.append("\n".join([f"D = {dim}", *aligned(_smoothed(study, column))]))
    blocks.append("\n".join(_agreed(study)))
    if options.widths:
        blocks.append("\n".join(_learnt(study)))
    blocks.append("\n".join(_grown(study)))
    return "\n\n".join(blocks)


def _smoothed(study: Study, column: int) -> list[list[str]]:
    values, ends = quantile(study.ends.distance[:, column]), interval(study.ends.distance[:, column])
    rows = [["", *(target.name for target in TARGETS)]]
    for place, (name, value, _) in enumerate(study.options.smoothings):
        cells = []
        for number, target in enumerate(TARGETS):
            foreseen = f"{study.clock[number, column, place, 1]:.3f}"
            if not target.clock:
                foreseen = "{:.3f}; {:.2f}".format(*study.rest[number, column, place])
            cells.append(f"{_said(values[number, place], ends[number, place])} [{foreseen}]")
        rows.append([name if name == EXACT else f"{name} {value:g}", *cells])
    return rows


def _said(value: float, ends: np.ndarray) -> str:
    return f"{value:.3g} ({ends[0]:.2g} to {ends[1]:.2g}){'*' if value <= CLEAN else ' '}"


def _agreed(study: Study) -> list[str]:
    """Return the lines that set measured beside foreseen numbers, and how many data clean fields reach."""
    rows = [["", *(f"D = {dim}" for dim in study.options.dims)]]
    for number, target in enumerate(TARGETS):
        columns = range(len(study.options.dims))
        if not target.clock:
            told = [told_by_rest(study, number, column) for column in columns]
            rows.append(
                [
                    f"{target.name}: clean or not told by the point of rest",
                    *(f"{each.sum()} of {len(each)}" for each in told),
                ]
            )
            continue
        found = [agreement(study, number, column) for column in columns]
        rows.append([f"{target.name}: 90% quantile, ratio", *(_range(each.ratio) for each in found)])
        rows.append([f"{target.name}: 90% quantile of the height, ratio", *(_range(each.height) for each in found)])
        rows.append(
            [
                f"{target.name}: medians, slope (correlation)",
                *(f"{each.slope:.2f} ({each.correlation:.3f})" for each in found),
            ]
        )
        if target.system == "flow_matching":
            rows += [_in_time(study, number, place) for place in (0, *study.columns(CEILING))]
    clean = quantile(study.ends.distance) <= CLEAN
    data = np.where(clean, reached(study.ends.datum), np.inf).min(axis=(0, 2))
    rows.append(["effective number of data, least of a clean field", *(f"{each:.1f}" for each in data)])
    return ["Measured over foreseen, all smoothings (1 where both are clean)", *aligned(rows)]


def _in_time(study: Study, number: int, place: int) -> list[str]:
    """Return the share of clean samples of flow matching under a ceiling, beside the closed form."""
    name, value, smoothing = study.options.smoothings[place]
    end = smoothing.times(TARGETS[number].process)[1]
    cells = []
    for column, dim in enumerate(study.options.dims):
        share = (study.ends.distance[number, column, place] <= CLEAN).mean()
        cells.append(f"{share:.2f} [{share_in_time(dim, end, CLEAN):.2f}]")
    label = name if name == EXACT else f"{name} {value:g}"
    return [f"{TARGETS[number].name}: share of clean samples [closed form], {label}", *cells]


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def _learnt(study: Study) -> list[str]:
    """Return the lines about networks."""
    options = study.options
    lines = [
        f"Residual MLPs, {options.steps:,} updates of {options.batch_size} fresh points, each with the sampler of its "
        "config; {in the plane of the data alone};",
        "of velocity in brackets what the clock makes of the network's own mean speed away from the data. The blind\n"
        "network of edm predicts EDM's inner target, which is a velocity in disguise",
    ]
    rows = [["", *(target.name for target in TARGETS)]]
    velocity = [target.system for target in TARGETS].index("flow_matching")
    for column, dim in enumerate(options.dims):
        known, flat = quantile(study.own.distance[:, column]), quantile(study.own.plane[:, column])
        ends = interval(study.own.distance[:, column])
        rows.append(
            [f"D = {dim}, exact", *(f"{_said(*each)} {{{p:.2g}}}" for *each, p in zip(known, ends, flat, strict=True))]
        )
        for place, width in enumerate(options.widths):
            cells = []
            for number in range(len(TARGETS)):
                found = study.trained.distance[number, column, place]
                plane = quantile(study.trained.plane[number, column, place])
                cell = f"{_said(float(quantile(found)), interval(found))} {{{plane:.2g}}}"
                cells.append(cell + (f" [{study.profile[column, place, 1]:.2g}]" if number == velocity else ""))
            rows.append([f"D = {dim}, width {width}", *cells])
    return [*lines, *aligned(rows)]


def _grown(study: Study) -> list[str]:
    """Return the lines about the growth with D."""
    names = [target.name for target in TARGETS if target.clock]
    rows = [["D", *(f"{name}{unit}" for name in names for unit in ("", " / sqrt D"))]]
    for place, dim in enumerate(study.options.growth):
        both = [(row[place], row[place] / dim**0.5) for row in study.growth]
        rows.append([str(dim), *(f"{value:.3f}" for pair in both for value in pair)])
    noise, velocity = exponents(study)
    said = f"exponents in D: {noise:.3f} of noise, {velocity:.3f} of velocity"
    return [
        "90% quantile that the clock of one datum foresees for the exact field, and per coordinate",
        *aligned(rows),
        said,
    ]


@style.paper()
def picture(study: Study) -> Figure:
    """Return distances under every smoothing and of networks, foreseen against measured ones, speeds, and growth."""
    figure = Figure(figsize=(13.0, 6.9), layout="constrained")
    panels: Any = figure.subplots(2, 4)
    for name, axes in zip(_TITLES, panels[0], strict=True):
        _plot_property(study, axes, name)
    _plot_networks(study, panels[1, 0])
    _plot_foreseen(study, panels[1, 1])
    _plot_speed(study, panels[1, 2])
    _plot_growth(study, panels[1, 3])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8.5)
    style.headed(
        figure, f"Blind fields, smoothed: 16 points on a circle in R^D, D = {study.options.dims[-1]} unless said"
    )
    return figure


def _plot_property(study: Study, axes: Any, name: str) -> None:
    """Draw quantiles in the last dimension against a property's value, dashed what the clock foresees."""
    places = study.columns(name)
    x = [study.options.smoothings[place][1] for place in places]
    for number, target in enumerate(TARGETS):
        cells = study.ends.distance[number, -1]
        shown, ends = np.maximum(quantile(cells), _LOWEST), np.maximum(interval(cells), _LOWEST)
        look: dict[str, Any] = {"color": style.COLORS[number], "marker": _MARKERS[number]}
        reach = np.abs(ends[places].T - shown[places])
        axes.errorbar(x, shown[places], reach, label=target.name, **look)
        axes.axhline(shown[0], color=style.COLORS[number], linewidth=0.8, linestyle=":")
        if target.clock:
            foreseen = np.maximum(study.clock[number, -1, places, 1], _LOWEST)
            axes.plot(x, foreseen, "--", color=style.COLORS[number], linewidth=0.9)
    axes.plot([], [], ":", color="0.3", linewidth=0.8, label="exact field")
    axes.plot([], [], "--", color="0.3", linewidth=0.9, label="foreseen by the clock")
    _limit(axes)
    axes.set(xscale="log", xlabel=_UNITS[name], title=_TITLES[name], ylabel="90% quantile of the distance")
    axes.set_xticks(x, [f"{each:g}" for each in x])
    axes.minorticks_off()


def _limit(axes: Any) -> None:
    axes.axhline(CLEAN, color=style.REFERENCE, linewidth=0.8)
    axes.set(yscale="log", ylim=(0.7 * _LOWEST, 6.0))


def _plot_networks(study: Study, axes: Any) -> None:
    widths = study.options.widths
    axes.set_title("Networks (dotted: exact field of theirs)" if widths else "Networks: none trained")
    for number in range(len(TARGETS) if widths else 0):
        cells, known = study.trained.distance[number, -1], float(quantile(study.own.distance[number, -1]))
        shown = quantile(cells)
        reach = np.abs(interval(cells).T - shown)
        axes.errorbar(widths, shown, reach, color=style.COLORS[number], marker=_MARKERS[number])
        axes.axhline(known, color=style.COLORS[number], linewidth=0.8, linestyle=":")
    _limit(axes)
    if widths:
        highest = quantile(study.trained.distance[:, -1]).max()
        axes.set(xscale="log", ylim=(0.7 * _LOWEST, 2.0 * max(highest, 3.0)) if np.isfinite(highest) else None)
        axes.set_xticks(widths, [str(each) for each in widths])
        axes.minorticks_off()
    axes.set(xlabel="width of the network", ylabel="90% quantile of the distance")


def _plot_foreseen(study: Study, axes: Any) -> None:
    """Draw measured against foreseen quantiles of all dimensions: filled smoothed fields, hollow networks."""
    values = quantile(study.ends.distance)
    for number, target in enumerate(TARGETS):
        if target.clock:
            foreseen = study.clock[number, :, :, 1]
            axes.plot(
                np.maximum(foreseen, _LOWEST).ravel(),
                np.maximum(values[number], _LOWEST).ravel(),
                _MARKERS[number],
                color=style.COLORS[number],
                alpha=0.8,
            )
            if target.system == "flow_matching" and study.options.widths:
                learnt = quantile(study.trained.distance[number])
                axes.plot(
                    study.profile[:, :, 1].ravel(), learnt.ravel(), _MARKERS[number], color="black", fillstyle="none"
                )
    ends = [_LOWEST, 6.0]
    axes.plot(ends, ends, color=style.REFERENCE, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlim=(0.7 * ends[0], ends[1]), ylim=(0.7 * ends[0], ends[1]))
    axes.set(xlabel="foreseen by the clock", ylabel="measured", title="All D (hollow: networks)")


def _plot_speed(study: Study, axes: Any) -> None:
    """Draw the speed of flow matching away from one datum, exact and smoothed."""
    dim = study.options.dims[-1]
    process = next(target.process for target in TARGETS if target.system == "flow_matching")
    shown = {
        "exact": Smoothing(),
        "averaged, h = 0.1": Smoothing(width=0.1),
        "b / a at least 0.3": Smoothing(floor=0.3),
        "b / a at most 1": Smoothing(ceiling=1.0),
        "L = 10": Smoothing(slope=10.0),
    }
    for (label, smoothing), line in zip(shown.items(), ("-", "--", "-.", (0, (5, 1)), ":"), strict=True):
        field = radial_field(process, dim, smoothing)
        radius = np.exp(np.asarray(field.log_radius))
        inside = radius < 1.25 * dim**0.5
        axes.plot(radius[inside], (radius * np.asarray(field.rate))[inside], linestyle=line, label=label)
    axes.axvline(dim**0.5, color=style.REFERENCE, linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="distance r from the datum (dotted: root of D)", ylabel="speed F(r)", title="Speed of flow matching"
    )
    axes.set(xlim=(0.0, 1.25 * dim**0.5), ylim=(0.0, 2.0 * dim**0.5))
    axes.legend(loc="upper left", fontsize=7.0)


def _plot_growth(study: Study, axes: Any) -> None:
    """Draw what the clock foresees against D, whole and per coordinate, and what was measured of exact fields."""
    options, rows = study.options, iter(study.growth)
    for number, target in enumerate(TARGETS):
        if not target.clock:
            continue
        row, look = next(rows), {"color": style.COLORS[number]}
        axes.plot(options.growth, row, **look)
        axes.plot(options.growth, row / np.sqrt(options.growth), "--", **look)
        cells = study.ends.distance[number, :, 0]
        shown = quantile(cells)
        reach = np.abs(interval(cells).T - shown)
        axes.errorbar(options.dims, shown, reach, fmt=_MARKERS[number], **look)
    axes.set(xscale="log", yscale="log", xlabel="dimension D", ylabel="90% quantile of the residual")
    axes.set_title("Growth (dashed: / root of D)")


def arrays(study: Study) -> dict[str, Any]:
    """Return ends of all fields, what was foreseen, names and values."""
    found: dict[str, Any] = {
        f"{name}_{part}": getattr(getattr(study, name), part)
        for name in ("ends", "trained", "own")
        for part in study.ends._fields
    }
    found |= {name: getattr(study, name) for name in ("clock", "rest", "profile", "loss", "growth")}
    options = study.options
    labels = {"target": [target.name for target in TARGETS], "property": [each[0] for each in options.smoothings]}
    sizes = {"value": [each[1] for each in options.smoothings], "dims": options.dims, "widths": options.widths}
    return {**found, **labels, **sizes, "growth_dims": options.growth}
