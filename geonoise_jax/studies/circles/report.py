"""Table, picture and verdicts of small networks on circles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, markdown, with_error
from geonoise_jax.evaluation.intervals import geometric_mean_of
from geonoise_jax.studies.circles.models import BLIND, CONDITIONAL
from geonoise_jax.studies.circles.study import Measured, Study, ratio
from geonoise_jax.studies.verdicts import Outcome, Verdict, judge

TITLES = {
    "ddpm": "DDPM",
    "flow_matching": "flow matching",
    "edm": "EDM",
    "eqm": "EqM",
    "x_prediction": "x-prediction",
}
# What the paper says of the blind network of each system.
_STABLE = {"ddpm": False, "flow_matching": True, "edm": True, "eqm": True, "x_prediction": True}
# A blind model is as clean as its twin up to here; a twin beyond this distance has not learnt to sample.
_AS_CLEAN, _LEARNT = 2.0, 0.25
_MARKERS = "os^Dv"
# Of the picture, in inches: room for its titles and the legend.
_LEAST_WIDTH = 7.0
_RADII = (1.0, 2.0)


def table(study: Study) -> str:
    """Return the results as text: distances from the circles, sliced Wasserstein distances, shares of the circles."""
    options = study.options
    heading = (
        f"Circles of radii 1 and 2 in a plane of R^D: residual MLP of width {options.width} and depth {options.depth}, "
        f"{options.steps:,} updates of {options.batch_size} fresh\npoints, {options.seeds} trainings, {options.num} "
        "samples of each by the system's own sampler. Mean over trainings +- standard deviation; in brackets\n"
        "the exact blind field. inf: samples that are not finite."
    )
    parts: list[tuple[str, Callable[[Measured], np.ndarray]]] = [
        ("Distance from the nearest circle, median", lambda each: each.median),
        ("The same, 90% quantile", lambda each: each.q90),
        ("Sliced Wasserstein distance to the data", lambda each: each.sliced),
        ("Share of the samples nearest to the inner circle (of the data: 0.5)", lambda each: each.inner),
    ]
    blocks = ["\n".join([title, *aligned(_rows(study, number), left=2)]) for title, number in parts]
    floor = "  ".join(f"D={dim}: {with_error(*study.floors[dim])}" for dim in options.dims)
    blocks[2] += f"\nof as many points of the data, mean +- spread of one: {floor}"
    return "\n\n".join([heading, *blocks])


def _rows(study: Study, number: Callable[[Measured], np.ndarray]) -> list[list[str]]:
    rows = [["", "", *(f"D={dim}" for dim in study.options.dims)]]
    for system in study.options.systems:
        for conditioning in (CONDITIONAL, BLIND):
            found = [study.find(dim, system, conditioning) for dim in study.options.dims]
            cells = [_cell(number(each.trained)) for each in found]
            if conditioning == BLIND:
                exact = [number(study.exact(dim, system)[0])[0] for dim in study.options.dims]
                cells = [f"{cell} [{each:.2g}]" for cell, each in zip(cells, exact, strict=True)]
            rows.append([TITLES[system], conditioning, *cells])
    return rows


def _cell(values: Float[np.ndarray, "seeds"]) -> str:
    if not np.isfinite(values).all():
        return "inf"
    return with_error(float(values.mean()), float(values.std(ddof=1)))


def verdicts(study: Study) -> list[Verdict]:
    """Return what the paper says of each blind system in each dimension, beside the ratio to its conditional twin."""
    return [_verdict(study, dim, system) for system in study.options.systems for dim in study.options.dims]


def _verdict(study: Study, dim: int, system: str) -> Verdict:
    stable = _STABLE[system]
    claim = f"blind {TITLES[system]} samples {'as cleanly as' if stable else 'worse than'} its conditional twin"
    twin = study.find(dim, system, CONDITIONAL).trained.q90
    condition = f"trained networks, D = {dim}"
    if not (np.isfinite(twin).all() and twin.max() < _LEARNT):
        known = f"{condition}; the twin itself is {twin.max():.2g} from the circles"
        nan = float("nan")
        return Verdict("figure 5", claim, known, "blind / conditional", nan, nan, nan, Outcome.UNTOLD)
    found = geometric_mean_of(ratio(study, dim, system))
    limits = {"at_most": _AS_CLEAN} if stable else {"at_least": _AS_CLEAN}
    told = judge(found.low, found.high, **limits)
    return Verdict("figure 5", claim, condition, "blind / conditional", found.value, found.low, found.high, told)


def arrays(study: Study) -> dict[str, Any]:
    """Return all numbers by model, [models, seeds], of exact fields by blind model, and points in the plane."""
    names, results = Measured._fields, study.results
    found: dict[str, Any] = {name: np.stack([getattr(each.trained, name) for each in results]) for name in names}
    blind = [each.model for each in results if each.model.conditioning == BLIND]
    exact = [study.exact(each.dim, each.system) for each in blind]
    found |= {f"exact_{name}": np.stack([getattr(each, name)[0] for each, _ in exact]) for name in names}
    labels = {name: [getattr(each.model, name) for each in results] for name in ("dim", "system", "conditioning")}
    shown = {name: np.stack([getattr(each, name) for each in results]) for name in ("loss", "shown")}
    floors = np.asarray([study.floors[dim] for dim in study.options.dims])
    shown["shown_exact"] = np.stack([each for _, each in exact])
    return {**found, **labels, **shown, "dims": study.options.dims, "floor": floors[:, 0], "floor_spread": floors[:, 1]}


def pages(study: Study, drawn: Image.Image) -> dict[str, str]:  # noqa: ARG001
    """Return the table of 90% quantiles and the verdicts in Markdown."""
    heading = ("claim", "condition", "measured", "verdict")
    said = [(each.claim, each.condition, each.measured, each.outcome.value) for each in verdicts(study)]
    numbers = _rows(study, lambda each: each.q90)
    return {".md": f"{markdown(numbers)}\n\n{markdown([heading, *said])}\n"}


@style.paper()
def picture(study: Study) -> Figure:
    """Return distances by dimension, and samples of blind networks and blind exact fields in the plane."""
    options = study.options
    rows, columns = len(options.dims), len(options.systems)
    figure = Figure(
        figsize=(max(2.5 * columns + 0.5, _LEAST_WIDTH), 3.4 + 2 * (0.5 + 1.25 * rows)), layout="constrained"
    )
    parts: Any = figure.subfigures(3, 1, height_ratios=[3.4, *2 * (0.5 + 1.25 * rows,)])
    lines, trained, exact = parts
    _plot_lines(study, lines)
    _plot_points(study, trained, "Blind networks", lambda dim, system: study.find(dim, system, BLIND).shown)
    _plot_points(
        study, exact, "Exact blind fields, of networks without error", lambda dim, system: study.exact(dim, system)[1]
    )
    style.headed(
        figure, f"Circles of radii 1 and 2 in $R^D$, sampled without the noise level: {options.steps:,} updates"
    )
    return figure


def _plot_lines(study: Study, figure: Any) -> None:
    axes, dims = figure.subplots(), study.options.dims
    for number, system in enumerate(study.options.systems):
        look: dict[str, Any] = {"color": style.COLORS[number], "marker": _MARKERS[number % len(_MARKERS)]}
        for conditioning, line in ((BLIND, "-"), (CONDITIONAL, ":")):
            found = [study.find(dim, system, conditioning).trained.q90 for dim in dims]
            axes.plot(dims, [_finite_mean(each) for each in found], line, **look)
            for dim, each in zip(dims, found, strict=True):
                axes.plot([dim] * len(each), each, ".", color=look["color"], markersize=2.5)
        exact = [study.exact(dim, system)[0].q90[0] for dim in dims]
        axes.plot(dims, exact, "--", color=look["color"], linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(dims, [str(dim) for dim in dims])
    axes.set(xlabel="dimension D", ylabel="90% quantile of the distance\nfrom the nearest circle")
    names = [
        Line2D([], [], color=style.COLORS[number], marker=_MARKERS[number % len(_MARKERS)], label=TITLES[system])
        for number, system in enumerate(study.options.systems)
    ]
    kinds: Any = [("-", "blind network"), (":", "conditional network"), ("--", "exact blind field")]
    names += [Line2D([], [], color="0.3", linestyle=line, label=label) for line, label in kinds]
    figure.legend(handles=names, loc="outside right upper")


def _finite_mean(values: Float[np.ndarray, "seeds"]) -> float:
    return float(values.mean()) if np.isfinite(values).all() else float("nan")


def _plot_points(study: Study, figure: Any, title: str, points: Callable[[int, str], np.ndarray]) -> None:
    dims, systems = study.options.dims, study.options.systems
    grid = figure.subplots(len(dims), len(systems), squeeze=False)
    for row, dim in zip(grid, dims, strict=True):
        for axes, system in zip(row, systems, strict=True):
            _draw(axes, points(dim, system))
            if dim == dims[0]:
                axes.set_title(TITLES[system])
        row[0].set_ylabel(f"D = {dim}")
    figure.suptitle(title, x=0.005, ha="left")


def _draw(axes: Any, points: Float[np.ndarray, "n 2"], limits: Sequence[float] = (-2.9, 2.9)) -> None:
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    for radius in _RADII:
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color="0.75", linewidth=0.8)
    axes.plot(*points.T, ".", color=style.COLORS[0], markersize=1.6, alpha=0.6)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)
