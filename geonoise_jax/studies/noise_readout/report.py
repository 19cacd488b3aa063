"""Table, picture and verdicts of noise levels and classes that are read off noisy data and features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, percent
from geonoise_jax.evaluation.intervals import Estimate, log_ratio, mean_of, wilson
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.noise_readout.study import (
    GEOMETRY,
    PIXELS,
    POSTERIOR,
    PROBE,
    READERS,
    SPLITS,
    Readings,
    Study,
)
from geonoise_jax.studies.verdicts import Verdict

_NAMES = (
    "exact posterior, E[t | u]",
    "geometry, r / $\\sqrt{D - d}$",
    "probe of the bottleneck",
    "ridge regression of u",
)
_BINS = 8
_AS_WELL, _NEARLY, _TWICE = 1.0, 1.1, 2.0
_PAPER = "section 6, app. C"
_FEATURES = "Xiang et al. 2023"
# Standard deviation of a uniform noise level: the error of who sees nothing.
_BLINDFOLD = 1.0 / math.sqrt(12.0)


def rms(squares: Float[np.ndarray, "n"]) -> Estimate:
    """Return the root of a mean of squares, with its interval."""
    found = mean_of(squares)
    value, spread, low, high = (
        math.sqrt(max(each, 0.0)) for each in (found.value, found.spread, found.low, found.high)
    )
    return Estimate(value, spread, low, high)


def table(study: Study) -> str:
    """Return errors of the readers and shares of classes read rightly as text."""
    options = study.options
    heading = (
        f"Root mean square error of the noise level t, uniform on (0, 1), read off {options.num} observations, [95% "
        f"interval]; who sees nothing\nhas {_BLINDFOLD:.3f}. Floor: the root of the posterior's mean variance, below "
        "which no reader of such data goes"
    )
    rows = [["data", "floor", *READERS]]
    for dim, each in zip(options.dims, study.subspaces, strict=True):
        rows.append([f"Gaussian, d = {options.data_dim} in R^{dim}", *_row(each)])
    for name, each in zip(SPLITS, study.digits, strict=True):
        rows.append([f"digits, {name}", *_row(each)])
    rows[-1][1] = ""
    note = (
        f"Geometry takes d = {study.data_dim} of 64 for digits, which reads best among all d. "
        f"Probes are fitted on {options.num_fit:,} observations."
    )
    classes = [["read off", *(f"t = {level:g}" for level in options.levels)]]
    classes.append(["u itself", *(_share(each) for each in study.pixel_hits)])
    classes += [
        [f"step {step}", *(_share(each) for each in row)] for step, row in zip(study.steps, study.hits, strict=True)
    ]
    said = (
        f"Share of {study.hits.shape[-1]} noisy held-out digits whose class a linear classifier reads off the "
        "bottleneck, +- half of the 95% interval"
    )
    return "\n\n".join(["\n".join([heading, "", *aligned(rows)]), note, "\n".join([said, "", *aligned(classes)])])


def _row(each: Readings) -> list[str]:
    floor = math.sqrt(np.square(each.width).mean())
    return [f"{floor:.4f}", *("" if np.isnan(squares).all() else _error(rms(squares)) for squares in each.squares)]


def _error(found: Estimate) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _share(hits: Bool[np.ndarray, "m"]) -> str:
    found = wilson(float(hits.mean()), len(hits))
    return f"{percent(found.value)} +- {percent(0.5 * (found.high - found.low))}"


def verdicts(study: Study) -> list[Verdict]:
    """Return what the readers say of the paper's concentration, and the features of what else networks learn."""
    dims = [f"D = {dim}" for dim in study.options.dims]
    ratio = "ratio of root mean square errors"
    geometric = [
        _ratio(dim, each.squares[GEOMETRY], each.squares[POSTERIOR])
        for dim, each in zip(dims, study.subspaces, strict=True)
    ]
    training, held_out = study.digits
    where = f"digits, blind flow matching, {study.steps[-1]} updates"
    found = [
        over_cases(
            geometric,
            Claim(
                _PAPER,
                f"the distance to the data tells the noise level as well as all of u does, within {_NEARLY - 1.0:.0%}",
                f"Gaussian data of dimension {study.options.data_dim}",
                ratio,
            ),
            at_most=_NEARLY,
        ),
        over_cases(
            [_ratio(SPLITS[0], training.squares[PROBE], training.squares[POSTERIOR])],
            Claim(
                _PAPER,
                "a blind network knows the noise level: a linear probe errs at most twice as much as the posterior",
                where,
                ratio,
            ),
            at_most=_TWICE,
        ),
        over_cases(
            [_ratio(SPLITS[1], held_out.squares[PROBE], held_out.squares[GEOMETRY])],
            Claim(
                _PAPER,
                "it knows the noise level better than the distance to a subspace does",
                where,
                ratio,
            ),
            at_most=_AS_WELL,
        ),
    ]
    return found + _of_classes(study, where)


def _of_classes(study: Study, where: str) -> list[Verdict]:
    """Return what is said of the features' classes, by differences of the same images."""
    last, levels = study.hits[-1], study.options.levels
    best = 1 + int(last[1:].mean(axis=1).argmax()) if len(levels) > 1 else 0
    middle = [place for place, level in enumerate(levels) if level >= 0.2]
    gain = "gain in share"
    cases = [
        (
            "features tell the class best at a middle noise level, not at the lowest",
            [_gain(f"t = {levels[best]:g} over {levels[0]:g}", last[best], last[0])],
        ),
        (
            "features tell the class better than the noisy image does",
            [_gain(f"t = {levels[place]:g}", last[place], study.pixel_hits[place]) for place in middle],
        ),
        (
            "training makes the features tell the class better",
            [_gain(f"t = {levels[place]:g}", last[place], study.hits[0, place]) for place in middle],
        ),
    ]
    return [over_cases(each, Claim(_FEATURES, claim, where, gain), at_least=0.0) for claim, each in cases if each]


def _ratio(label: str, squares: Float[np.ndarray, "n"], others: Float[np.ndarray, "n"]) -> Case:
    """Return the ratio of two root mean squares; the interval is that of independent ones, which is wide."""
    found = log_ratio(squares, others, "squared error")
    return Case(label, *(math.exp(0.5 * each) for each in (found.value, found.low, found.high)))


def _gain(label: str, hits: Bool[np.ndarray, "m"], before: Bool[np.ndarray, "m"]) -> Case:
    found = mean_of(hits.astype(np.float64) - before)
    return Case(label, found.value, found.low, found.high)


def arrays(study: Study) -> dict[str, Any]:
    """Return readings by data, [data, n] and [data, readers, n], and classes read rightly."""
    every = [*study.subspaces, *study.digits]
    found: dict[str, Any] = {name: np.stack([getattr(each, name) for each in every]) for name in Readings._fields}
    labels = [f"subspace, D = {dim}" for dim in study.options.dims] + [f"digits, {name}" for name in SPLITS]
    found |= {"data": labels, "readers": list(READERS), "digits_dim": study.data_dim, "steps": study.steps}
    return found | {"hits": study.hits, "pixel_hits": study.pixel_hits, "levels": study.options.levels}


@style.paper()
def picture(study: Study) -> Figure:
    """Return errors by noise level, of Gaussian data and digits, and classes by noise level along training."""
    figure = Figure(figsize=(10.6, 3.9), layout="constrained")
    grid: Any = figure.subplots(1, 3)
    _draw_subspaces(study, grid[0])
    _draw_digits(study, grid[1])
    _draw_classes(study, grid[2])
    style.headed(figure, "What can be read off noisy data, and off the bottleneck of a blind network")
    return figure


def binned(level: Float[np.ndarray, "n"], squares: Float[np.ndarray, "n"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of bins of the noise level in which there are observations, and root mean squares in them."""
    places = np.minimum((level * _BINS).astype(int), _BINS - 1)
    filled = np.unique(places)
    return (filled + 0.5) / _BINS, np.sqrt([squares[places == place].mean() for place in filled])


def _draw_subspaces(study: Study, axes: Any) -> None:
    for number, (dim, each) in enumerate(zip(study.options.dims, study.subspaces, strict=True)):
        color = style.COLORS[number % len(style.COLORS)]
        axes.plot(*binned(each.level, each.squares[POSTERIOR]), "o-", color=color, label=f"D = {dim}, E[t | u]")
        axes.plot(*binned(each.level, each.squares[GEOMETRY]), "s:", color=color, label="r / $\\sqrt{D - d}$")
    _by_level(axes)
    axes.set_title(f"Gaussian data, d = {study.options.data_dim} in $R^D$")


def _draw_digits(study: Study, axes: Any) -> None:
    training, held_out = study.digits
    for reader in (POSTERIOR, PROBE, GEOMETRY, PIXELS):
        look: dict[str, Any] = {"color": style.COLORS[reader], "marker": "osD^"[reader]}
        axes.plot(*binned(held_out.level, held_out.squares[reader]), label=_NAMES[reader], **look)
    axes.plot(
        *binned(training.level, np.square(training.width)),
        "--",
        color=style.REFERENCE,
        label="floor, training images",
    )
    _by_level(axes)
    axes.set_title("Digits, held out")


def _by_level(axes: Any) -> None:
    axes.set(xlabel="true noise level t", ylabel="root mean square error of t", yscale="log", xlim=(0.0, 1.0))
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2, columnspacing=1.0)


def _draw_classes(study: Study, axes: Any) -> None:
    levels = study.options.levels
    shades = np.linspace(0.75, 0.0, len(study.steps))
    for number, (step, row) in enumerate(zip(study.steps, study.hits, strict=True)):
        last = number == len(study.steps) - 1
        color = style.COLORS[0] if last else str(shades[number])
        label = "untrained network" if step == 0 else f"after {style.thousands(step)} updates"
        found = [wilson(float(each.mean()), len(each)) for each in row]
        value, low, high = np.asarray([(each.value, each.low, each.high) for each in found]).T
        axes.errorbar(levels, value, [value - low, high - value], color=color, marker="o", label=label)
    axes.plot(levels, study.pixel_hits.mean(axis=1), "^--", color=style.COLORS[1], label="the noisy image itself")
    axes.axhline(0.1, color=style.REFERENCE, linestyle=":", linewidth=0.8)
    axes.set(xlabel="noise level t", ylabel="share of held-out digits", xlim=(0.0, 1.0), ylim=(0.0, 1.02))
    axes.set_title("Class, read linearly off features")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2, columnspacing=1.0)
