"""Table and curves of a learnt log-density beside exact ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.figures import style
from geonoise_jax.figures.pictures import to_image
from geonoise_jax.figures.text import aligned, with_error

if TYPE_CHECKING:
    from geonoise_jax.evaluation.log_density import Study


def table(study: Study) -> str:
    """Return means over the held-out observations of each noise level, in nats."""
    header, rows = ["b / a", "learnt"], []
    for name in study.exact:
        header += [f"exact, {name}", "difference", "spread"]
    for level, noise in enumerate(study.noise):
        row = [f"{noise:.3g}", _mean(study, study.learnt, level)]
        for values in study.exact.values():
            difference = study.learnt - values
            row += [_mean(study, values, level), _mean(study, difference, level, "+"), f"{difference[level].std():.2f}"]
        rows.append(row)
    heading = (
        f"{study.title}: log p(u | t) in nats, {study.dim} dimensions, means over {study.learnt.shape[1]} held-out "
        "points\nwith noise; difference: learnt less exact; spread: its standard deviation over the observations.\n"
        "+-: standard error of the mean over held-out points and noise, for this network and this training set."
    )
    return "\n".join([heading, "", *aligned([header, *rows], left=0)])


def _mean(study: Study, values: np.ndarray, level: int, sign: str = "") -> str:
    return with_error(values[level].mean(), study.error(values)[level], sign=sign)


@style.paper()
def picture(study: Study) -> Image.Image:
    """Return the mean log-densities by noise level, and the differences with their standard deviations."""
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    values, differences = figure.subplots(1, 2)
    values.plot(study.noise, study.learnt.mean(1), color="black", marker="o", label="learnt")
    differences.axhline(0.0, color="black", linewidth=0.8)
    for number, (name, exact) in enumerate(study.exact.items()):
        color, difference = style.COLORS[number], study.learnt - exact
        look = {"color": color, "marker": "s^"[number % 2], "markerfacecolor": "white"}
        values.plot(study.noise, exact.mean(1), linestyle="--", label=f"exact, {name}", **look)
        differences.errorbar(study.noise, difference.mean(1), difference.std(1), label=name, **look)
    values.set_ylim(*_limits(study.learnt.mean(1)))
    differences.set_yscale("symlog", linthresh=1.0)
    values.set(title="Mean log density of held-out observations", ylabel="log p(u | t), nats")
    differences.set(title="Learnt less exact: mean and standard deviation", ylabel="nats")
    for axes in (values, differences):
        axes.set(xscale="log", xlabel="noise-to-signal ratio b / a")
        axes.legend()
    style.headed(figure, study.title)
    return to_image(figure)


def _limits(means: np.ndarray) -> tuple[float, float]:
    """Leave out where the density of the training set falls into its points."""
    margin = 0.2 * np.ptp(means) + 1.0
    return means.min() - margin, means.max() + margin
