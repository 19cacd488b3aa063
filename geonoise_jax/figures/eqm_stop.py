"""Table and histograms of adaptive against fixed numbers of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.figures.pictures import to_image
from geonoise_jax.figures.text import aligned

if TYPE_CHECKING:
    from geonoise_jax.evaluation.eqm_stop import Case, Options

_BINS = 40


def table(cases: Sequence[Case], options: Options) -> str:
    """Return the results as text."""
    heading = (
        "Equilibrium Matching: evaluations of the field per sample, stopped each where |f| / sqrt(D) <= "
        f"{options.tolerance:g}\n(adaptive), against the smallest budget, the same for all samples, whose 90% quantile "
        f"of distances to the data\nis as small. {options.num} samples per start; step {options.step_size:g}, momentum "
        f"{options.momentum:g}; saved: 1 - adaptive mean / fixed."
    )
    header = ["field", "start", "sampler", "stopped", "distance", "mean", "max", "fixed", "saved"]
    return "\n".join([heading, "", *aligned([header, *map(_row, cases)])])


def picture(cases: Sequence[Case]) -> Image.Image:
    """Return histograms of the evaluations of adaptive samples, with the fixed budget, by start and sampler."""
    starts, samplers = (list(dict.fromkeys(getattr(case, key) for case in cases)) for key in ("start", "sampler"))
    figure = Figure(figsize=(4.6 * len(samplers), 3.4 * len(starts) + 0.6), layout="constrained")
    panels = figure.subplots(len(starts), len(samplers), squeeze=False, sharex=True)
    edges = np.linspace(0.0, max(case.evaluations.max() for case in cases), _BINS + 1)
    for row, start in enumerate(starts):
        for column, sampler in enumerate(samplers):
            chosen = [case for case in cases if (case.start, case.sampler) == (start, sampler)]
            _histograms(panels[row, column], chosen, edges)
            panels[row, column].set_title(f"{sampler}, from {start}", fontsize=10)
        panels[row, 0].set_ylabel("samples")
    for axes in panels[-1]:
        axes.set_xlabel("evaluations of the field")
    figure.suptitle(
        "Adaptive stop (histograms, mean dotted) and fixed budget (dashed) at the same distance to the data"
    )
    return to_image(figure)


def _row(case: Case) -> list[str]:
    mean, fixed = case.evaluations.mean(), case.budget
    numbers = [f"{mean:.1f}", f"{case.evaluations.max():.0f}"]
    compared = [str(fixed), f"{1.0 - mean / fixed:.0%}"] if fixed else ["none", ""]
    distance = f"{np.quantile(case.distance, 0.9):.3g}"
    return [case.field, case.start, case.sampler, f"{case.converged.mean():.0%}", distance, *numbers, *compared]


def _histograms(axes: Any, cases: Sequence[Case], edges: np.ndarray) -> None:
    for number, case in enumerate(cases):
        color, mean = f"C{number}", case.evaluations.mean()
        axes.hist(case.evaluations, edges, color=color, alpha=0.5, label=f"{case.field}: mean {mean:.0f}")
        axes.axvline(mean, color=color, linestyle=":")
        if case.budget:
            axes.axvline(case.budget, color=color, linestyle="--", label=f"fixed budget {case.budget}")
    axes.set_ylim(top=1.4 * axes.get_ylim()[1])
    axes.legend(fontsize=8, loc="upper left")
