"""Table and picture of samplers without the noise level, beside what the paper claims of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned
from geonoise_jax.studies.blind_sampling.study import Study

_RULE = """\
blind [conditional]: 90% quantile of the distance to the nearest datum; x K: their ratio; 95% intervals below.
At the data: at most twice the conditional field's. Collapsed: samples spread less than half as far as the data.
Residual: at most 1.0 (blind flow matching: norm about max(0, N(0, 1/2)), 90% quantile 0.91). Off: farther.
The exact field agrees with "stable" at the data and with "breaks" when off or collapsed; at a residual, in part.
One outcome or another, and perhaps no verdict: an interval reaches over one of these limits."""
_LIMIT = 2.0
_MARKERS = "os^DvPX*"
_FLOOR = 1e-3
# Root of the trace of the covariance of the study's Gaussian, 1 and 1/2 along its wide axes.
_CENTRE_SCATTER = 1.25**0.5


def table(study: Study) -> str:
    """Return the results as text: distances, verdicts, the moments of the Gaussian, and what is seen."""
    options = study.options
    heading = (
        "Exact blind fields sampled without t: 16 points on the unit circle in a plane of R^D, uniform time law,\n"
        f"{options.num_steps} Heun steps uniform in log SNR ({2 * options.num_steps} evaluations; descent as many), "
        f"{options.num} samples."
    )
    blocks = ["\n".join(aligned(rows(study))) for rows in (_distances, _intervals, _verdicts, _moments)]
    gaussian = (
        f"Gaussian in R^{options.gaussian_dim}, wide along two axes and flat along the others, "
        f"{options.gaussian_num} samples; blind [conditional].\n"
        "Error of the mean, and standard deviations relative to the expected ones (1 is right): draws of the Gaussian\n"
        f"itself have an error of about {_CENTRE_SCATTER / np.sqrt(options.gaussian_num):.2g} and standard deviations "
        f"right to {1.0 / np.sqrt(2.0 * options.gaussian_num):.0%}"
    )
    intervals = "Where the blind quantile and the ratio are, given that many samples (order statistics)"
    verdicts = "What the paper claims of the blind field, and whether the exact field agrees"
    titled = zip((intervals, verdicts, gaussian), blocks[1:], strict=True)
    return "\n\n".join([f"{heading}\n{_RULE}", blocks[0], *(f"{title}\n{block}" for title, block in titled)])


@style.paper()
def picture(study: Study) -> Figure:
    """Return distances by dimension, and the blind samples in the plane of the data in the extreme dimensions."""
    figure = Figure(figsize=(max(1.55 * len(study.systems) + 1.0, 9.0), 7.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.1, 1.0))
    _plot_distances(study, halves[0].subplots())
    _plot_samples(study, halves[1])
    style.headed(figure, "Sampling with exact fields that do not see the noise level: 16 points on a circle in $R^D$")
    return figure


def _distances(study: Study) -> list[list[str]]:
    header = ["", *(f"D={dim}" for dim in study.options.dims)]
    numbers = zip(study.systems, study.blind_quantile, study.conditional_quantile, strict=True)
    return [header, *([system.name, *map(_pair, blind, known)] for system, blind, known in numbers)]


def _pair(blind: float, known: float) -> str:
    ratio = blind / known
    return f"{blind:.3g} [{known:.2g}] x {ratio:.{0 if ratio >= 10 else 2}f}"


def _intervals(study: Study) -> list[list[str]]:
    header = ["", *(f"D={dim}" for dim in study.options.dims)]
    rows = zip(study.systems, study.blind_interval, study.ratio_interval, strict=True)
    return [header, *([system.name, *map(_ends, blind, ratio)] for system, blind, ratio in rows)]


def _ends(blind: np.ndarray, ratio: np.ndarray) -> str:
    return f"{blind[0]:.2g} to {blind[1]:.2g} (x {ratio[0]:.3g} to {ratio[1]:.3g})"


def _verdicts(study: Study) -> list[list[str]]:
    header = ["", "paper", *(f"D={dim}" for dim in study.options.dims)]
    rows = []
    for system, ended, verdicts in zip(study.systems, study.outcomes, study.verdicts, strict=True):
        cells = [f"{how}: {verdict}" for how, verdict in zip(ended, verdicts, strict=True)]
        rows.append([system.name, system.claim, *cells])
    return [header, *rows]


def _moments(study: Study) -> list[list[str]]:
    header = ["", "mean", "first axis", "second axis", "flat axes"]
    numbers = zip(study.systems, study.blind_moments, study.conditional_moments, strict=True)
    cells = ([f"{x:.3g} [{y:.2g}]" for x, y in zip(blind, known, strict=True)] for _, blind, known in numbers)
    return [header, *([system.name, *row] for system, row in zip(study.systems, cells, strict=True))]


def _plot_distances(study: Study, axes: Any) -> None:
    """Draw one line per system, in the colour of its schedule; one for the conditional fields of each schedule."""
    dims, schedules = study.options.dims, list(dict.fromkeys(each.process.schedule for each in study.systems))
    numbers = zip(study.systems, study.blind_quantile, study.blind_interval, study.conditional_quantile, strict=True)
    known: dict[Any, Any] = {}
    for number, (system, blind, interval, conditional) in enumerate(numbers):
        known.setdefault(system.process.schedule, conditional)
        look: dict[str, Any] = {
            "color": style.COLORS[schedules.index(system.process.schedule)],
            "marker": _MARKERS[number % len(_MARKERS)],
        }
        if system.claim == "breaks":
            look |= {"linestyle": (0, (5, 2)), "markerfacecolor": "white"}
        shown = np.maximum(blind, _FLOOR)
        reach = np.abs(np.maximum(interval.T, _FLOOR) - shown)
        axes.errorbar(dims, shown, reach, label=f"{system.name} (paper: {system.claim})", markersize=6.0, **look)
    for schedule, conditional in known.items():
        color, name = style.COLORS[schedules.index(schedule)], type(schedule).__name__
        axes.plot(dims, conditional, ":", color=color, linewidth=2.2, alpha=0.6, label=f"conditional fields, {name}")
    axes.axhline(1.0, color=style.REFERENCE, linestyle="-", linewidth=0.8, label="radius of the data")
    axes.set(xscale="log", yscale="log", xlabel="dimension D", ylabel="distance to the nearest datum")
    axes.set_ylim(bottom=0.6 * _FLOOR)
    axes.set_xticks(dims, [str(dim) for dim in dims], minor=False)
    axes.set_title(f"90% quantile of the distance of blind samples to the data, with 95% intervals (floor {_FLOOR:g})")
    axes.minorticks_off()
    handles, labels = axes.get_legend_handles_labels()
    rows = sorted(zip(handles, labels, strict=True), key=lambda row: isinstance(row[0], Line2D))  # systems come first
    axes.legend(*zip(*rows, strict=True), loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5, labelspacing=0.7)


def _plot_samples(study: Study, figure: Any) -> None:
    columns = sorted({0, len(study.options.dims) - 1})
    panels = figure.subplots(len(columns), len(study.systems), squeeze=False)
    angle = np.linspace(0.0, 2.0 * np.pi, 17)
    shown = None
    for row, column in enumerate(columns):
        for number, system in enumerate(study.systems):
            axes, points = panels[row, number], study.plane[number, column]
            axes.plot(np.cos(angle), np.sin(angle), "o", color="0.6", markerfacecolor="none", markersize=6)
            look = {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis", "zorder": 3}
            shown = axes.scatter(*points.T, s=4, c=study.height[number, column], **look)
            axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(-_LIMIT, _LIMIT), aspect="equal", xticks=[], yticks=[])
            outside = int((~(np.abs(points) <= _LIMIT).all(axis=1)).sum())
            axes.set_title(system.name if row == 0 else "", fontsize=9, loc="center", weight="normal")
            axes.spines[["top", "right"]].set_visible(True)
            axes.grid(visible=False)
            axes.set_xlabel(f"{outside} outside" if outside else "", fontsize=8)
        panels[row, 0].set_ylabel(f"D = {study.options.dims[column]}")
    figure.colorbar(shown, ax=panels, label="distance from the plane", extend="max", shrink=0.8)
    figure.suptitle("Blind samples in the plane of the data (grey circles)", fontsize=9.5, x=0.005, ha="left")
