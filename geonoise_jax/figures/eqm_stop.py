"""Table and histograms of adaptive against fixed numbers of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.figures import style
from geonoise_jax.figures.pictures import to_image
from geonoise_jax.figures.text import aligned

if TYPE_CHECKING:
    from geonoise_jax.evaluation.eqm_stop import Case, Options

_BINS = 40
_BELOW = 0.68
_QUANTILE = 0.9


def table(cases: Sequence[Case], options: Options) -> str:
    """Return the results as text."""
    heading = (
        "Equilibrium Matching: evaluations of the field per sample, stopped each where |f| / sqrt(D) <= "
        f"{options.tolerance:g}\n(adaptive), against the smallest budget, the same for all samples, whose 90% quantile "
        f"of distances to the data\nis as small. {options.num} samples per start, of which every other one chooses the "
        "budget; all columns are of the rest.\nat fixed: distance with the fixed budget; saved: 1 - mean / fixed, with "
        f"its 95% interval. Step {options.step_size:g}, momentum {options.momentum:g}."
    )
    header = ["field", "start", "sampler", "stopped", "distance", "at fixed", "mean", "max", "fixed", "saved", "95%"]
    return "\n".join([heading, "", *aligned([header, *map(_row, cases)])])


@style.paper()
def picture(cases: Sequence[Case]) -> Image.Image:
    """Return histograms of the evaluations of adaptive samples, with the fixed budget, by start and sampler."""
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
    return to_image(figure)


def _row(case: Case) -> list[str]:
    evaluations, converged, distance = (each[1::2] for each in (case.evaluations, case.converged, case.distance))
    numbers = [f"{evaluations.mean():.1f}", f"{evaluations.max():.0f}"]
    reached = [f"{np.quantile(each, _QUANTILE):.3g}" for each in (distance, case.fixed_distance)]
    compared = [str(case.budget), f"{case.saved:.0%}", _interval(case.interval)] if case.budget else ["none", "", ""]
    return [case.field, case.start, case.sampler, f"{converged.mean():.0%}", *reached, *numbers, *compared]


def _interval(ends: tuple[float, float]) -> str:
    return "unknown" if np.isnan(ends).any() else f"{ends[0]:.0%} to {ends[1]:.0%}"


def _histograms(axes: Any, cases: Sequence[Case], edges: np.ndarray) -> None:
    for number, case in enumerate(cases):
        color, mean = style.COLORS[number % len(style.COLORS)], case.evaluations.mean()
        look = {"histtype": "stepfilled", "facecolor": (color, 0.25), "edgecolor": color}
        axes.hist(case.evaluations, edges, label=f"{case.field}: mean {mean:.0f}", **look)
        # Below the legend.
        axes.axvline(mean, ymax=_BELOW, color=color, linestyle=":")
        if case.budget:
            axes.axvline(case.budget, ymax=_BELOW, color=color, linestyle="--", label=f"fixed budget {case.budget}")
    axes.set_ylim(top=axes.get_ylim()[1] / _BELOW)
    axes.legend(loc="upper left")
