"""Table, picture and verdicts of noise prediction on the path of flow matching."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, percent, with_error
from geonoise_jax.evaluation.intervals import geometric_mean_of
from geonoise_jax.studies.alignment.models import WAYS
from geonoise_jax.studies.alignment.study import (
    ALIGNED,
    MISALIGNED,
    SHORT,
    SYSTEMS,
    VELOCITY,
    Study,
    System,
    trained_systems,
)
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.verdicts import Verdict

# A blind field is at the data up to this ratio to the conditional one; a network beyond this distance has not learnt.
_SAME_DISTANCE, _LEARNT = 2.0, 0.25
_ALIGNMENT, _PAPER = "arXiv:2604.25289", "Table 2"
_MARKERS = "os^D"
_FLOOR = 5e-4


def table(study: Study) -> str:
    """Return the distances, the amplifiers and the pushes as text."""
    options = study.options
    heading = (
        f"Sampled without the noise level: 90% quantile of the distance to the data of {options.num} samples, blind "
        "[conditional] x ratio.\n"
        f"Heun: {options.num_steps} steps, even in log SNR; DDIM: {options.ddim_steps} steps, even in t"
    )
    networks = (
        f"Networks: residual MLP on two circles, {options.steps:,} updates, {options.seeds} trainings: mean over them "
        "+- standard deviation"
    )
    amplifiers = (
        "What the exact blind field does to the radius of pure noise in an e-fold of a: share by which it shrinks "
        "(share of draws that grow),\nand what the drift makes of an error: exp(-int mu)"
    )
    parts = [("Exact fields of 16 points on a circle", _exact_rows(study)), (amplifiers, _push_rows(study))]
    if options.train_dims:
        parts.append((networks, _trained_rows(study)))
    return "\n\n".join([heading, *("\n".join([title, *aligned(rows, left=2)]) for title, rows in parts)])


def _exact_rows(study: Study) -> list[list[str]]:
    rows = [["", "sampler", *(f"D={dim}" for dim in study.options.dims)]]
    for number, system in enumerate(SYSTEMS):
        for way, name in enumerate(WAYS):
            quantiles, ratios = study.quantile[number, :, way], study.ratio[number, :, way, 0]
            cells = [_pair(known, blind, ratio) for (known, blind), ratio in zip(quantiles, ratios, strict=True)]
            rows.append([system.name, name, *cells])
    return rows


def _pair(known: float, blind: float, ratio: float) -> str:
    return f"{blind:.3g} [{known:.2g}] x {ratio:.{0 if ratio >= 10 else 2}f}"


def _push_rows(study: Study) -> list[list[str]]:
    rows = [["", "exp(-int mu)", *(f"D={dim}" for dim in study.options.dims)]]
    for system, pushes in zip(SYSTEMS, study.push, strict=True):
        cells = [f"{with_error(each.inward, each.error)} ({percent(each.outward)})" for each in pushes]
        rows.append([system.name, f"{system.amplification:.3g}", *cells])
    return rows


def _trained_rows(study: Study) -> list[list[str]]:
    rows = [["", "sampler", *(f"D={dim}" for dim in study.options.train_dims)]]
    for number, system in enumerate(trained_systems()):
        for way, name in enumerate(WAYS):
            pairs = study.trained_quantile[number, :, way]
            rows.append([system.name, name, *(f"{_mean(blind)} [{_mean(known)}]" for known, blind in pairs)])
    return rows


def _mean(values: np.ndarray) -> str:
    if not np.isfinite(values).all():
        return "inf"
    return with_error(float(values.mean()), float(values.std(ddof=1)))


def verdicts(study: Study) -> list[Verdict]:
    """Return whether alignment lets blind DDIM sample, and whether it breaks without."""
    found = []
    for way, name in enumerate(WAYS):
        where = f"exact fields, {name}, {study.options.num_of[name]} steps"
        cases = {number: _exact_cases(study, number, way) for number in range(len(SYSTEMS))}
        found += _told(cases, where)
    if not study.options.train_dims:
        return found
    places = {SYSTEMS.index(each): place for place, each in enumerate(trained_systems())}
    for way, name in enumerate(WAYS):
        where = f"trained networks, {name}, {study.options.num_of[name]} steps"
        found += _told({number: _trained_cases(study, place, way) for number, place in places.items()}, where)
    return found


def _told(cases: dict[int, list[Case]], where: str) -> list[Verdict]:
    """Return the verdict on every system, from the ratio of blind to conditional distance in each dimension."""
    quantity = "blind / conditional distance"
    reached = {"at_most": _SAME_DISTANCE}
    claims: dict[int, tuple[str, str, dict[str, float]]] = {
        MISALIGNED: (_ALIGNMENT, "blind noise prediction on VP breaks", {"at_least": _SAME_DISTANCE}),
        ALIGNED: (_ALIGNMENT, "aligned with flow matching, blind noise prediction reaches the data", reached),
        SHORT: (_ALIGNMENT, "the same where times end at 0.95", reached),
        VELOCITY: (_PAPER, "blind velocity prediction reaches the data", reached),
    }
    return [
        over_cases(cases[number], Claim(source, claim, where, quantity), **limits)
        for number, (source, claim, limits) in claims.items()
        if number in cases
    ]


def _exact_cases(study: Study, number: int, way: int) -> list[Case]:
    return [
        Case(f"D = {dim}", *map(float, study.ratio[number, place, way])) for place, dim in enumerate(study.options.dims)
    ]


def _trained_cases(study: Study, number: int, way: int) -> list[Case]:
    """Return the ratio of each dimension, a geometric mean over seeds; untold where the twin has not learnt."""
    found = []
    for place, dim in enumerate(study.options.train_dims):
        known, blind = study.trained_quantile[number, place, way]
        if np.isfinite(known).all() and known.max() < _LEARNT:
            ratio = geometric_mean_of(blind / known)
            found.append(Case(f"D = {dim}", ratio.value, ratio.low, ratio.high))
        else:
            found.append(Case(f"D = {dim} (the twin has not learnt)", *3 * (math.nan,)))
    return found


def arrays(study: Study) -> dict[str, Any]:
    """Return all distances, their quantiles and ratios, levels along the way, and pushes [systems, dims, 3]."""
    derived = ("quantile", "interval", "ratio", "trained_quantile")
    measured = ("exact", "levels", "signal", "push", "trained")
    found = {name: np.asarray(getattr(study, name)) for name in (*measured, *derived)}
    names = {"systems": [each.name for each in SYSTEMS], "trained_systems": [each.name for each in trained_systems()]}
    names["samplers"] = list(WAYS)
    factors = np.asarray([each.amplification for each in SYSTEMS])
    return {
        **found,
        **names,
        "amplification": factors,
        "dims": study.options.dims,
        "train_dims": study.options.train_dims,
    }


@style.paper()
def picture(study: Study) -> Figure:
    """Return distances of exact fields and of networks by dimension and sampler, and what happens on the way."""
    columns = 3 if study.options.train_dims else 2
    figure = Figure(figsize=(4.1 * columns, 7.2), layout="constrained")
    grid: Any = figure.subplots(2, columns)
    for way, name in enumerate(WAYS):
        _draw_exact(study, grid[way, 0], way)
        grid[way, 0].set_title(f"Exact fields, {name}")
        if study.options.train_dims:
            _draw_trained(study, grid[way, 1], way)
            dims = ", ".join(map(str, study.options.train_dims))
            grid[way, 1].set_title(f"Networks, {name}, D = {dims}")
    _draw_levels(study, grid[0, -1])
    _draw_push(study, grid[1, -1])
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    style.headed(figure, "Noise prediction on the path of flow matching (Linear), sampled without the noise level")
    return figure


def _look(system: System) -> dict[str, Any]:
    number = SYSTEMS.index(system)
    return {"color": style.COLORS[number], "marker": _MARKERS[number]}


def _draw_exact(study: Study, axes: Any, way: int) -> None:
    dims = study.options.dims
    for number, system in enumerate(SYSTEMS):
        value, ends = study.quantile[number, :, way, 1], study.interval[number, :, way, 1]
        shown = np.clip(value, _FLOOR, None)
        with np.errstate(invalid="ignore"):
            reach = np.abs(np.clip(ends.T, _FLOOR, None) - shown)
        axes.errorbar(
            dims, shown, np.where(np.isfinite(reach), reach, 0.0), label=f"{system.name}, blind", **_look(system)
        )
    for number, label in ((MISALIGNED, "conditional, VP"), (ALIGNED, "conditional, Linear")):
        known = study.quantile[number, :, way, 0]
        axes.plot(dims, known, ":", color=style.COLORS[number], linewidth=1.8, label=label)
    _by_dimension(axes, dims, "90% quantile of the distance\nto the nearest datum")


def _draw_trained(study: Study, axes: Any, way: int) -> None:
    """Draw one dot for each training: blind ones full, conditional ones empty, dimension after dimension."""
    dims, systems = study.options.train_dims, trained_systems()
    for number, system in enumerate(systems):
        for place in range(len(dims)):
            at = number + 0.24 * (place - 0.5 * (len(dims) - 1))
            for values, filled in zip(study.trained_quantile[number, place, way], (False, True), strict=True):
                color = _look(system)["color"]
                look = {"color": color, "markerfacecolor": color if filled else "white"}
                label = ("blind" if filled else "conditional") if number == place == 0 else None
                axes.plot([at] * len(values), values, _look(system)["marker"], label=label, linestyle="", **look)
    axes.set_xticks(range(len(systems)), [each.name.replace(", ", ",\n") for each in systems])
    axes.set(
        yscale="log", xlim=(-0.6, len(systems) - 0.4), ylabel="90% quantile of the distance\nto the nearest circle"
    )
    axes.legend(loc="best")


def _by_dimension(axes: Any, dims: tuple[int, ...], label: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel="dimension D", ylabel=label)
    axes.set_xticks(dims, [str(dim) for dim in dims], minor=False)
    axes.set_xlim(dims[0] / 1.4, dims[-1] * 1.4)
    axes.minorticks_off()


def _draw_levels(study: Study, axes: Any) -> None:
    """Draw how much noise is left in blind samples of the highest dimension, beside what the clock says."""
    last = len(study.options.dims) - 1
    for number, system in enumerate(SYSTEMS):
        axes.plot(study.signal[number], np.clip(study.levels[number, last], _FLOOR, None), color=_look(system)["color"])
    signal = np.geomspace(study.signal.min(), 1.0 - _FLOOR, 300)
    axes.plot(signal, np.sqrt(1.0 - signal**2), "--", color=style.REFERENCE, label="noise scale b of the clock, VP")
    axes.plot(signal, 1.0 - signal, ":", color=style.REFERENCE, label="the same, Linear")
    axes.set(xscale="log", yscale="log", xlabel="signal scale a(t) of the clock", ylim=(1e-3, 1.6))
    axes.set_ylabel("|u - nearest datum| / $\\sqrt{D}$, median")
    axes.set_title(f"Noise left, blind, Heun, D = {study.options.dims[-1]}")
    axes.legend(loc="lower left")


def _draw_push(study: Study, axes: Any) -> None:
    dims = study.options.dims
    for system, pushes in zip(SYSTEMS, study.push, strict=True):
        value, error = np.asarray([each[:2] for each in pushes]).T
        axes.errorbar(dims, value, 2.0 * error, **_look(system))
    axes.axhline(0.0, color=style.REFERENCE, linewidth=0.8)
    axes.set(xscale="log", xlabel="dimension D", ylabel="share of the radius per e-fold of a")
    axes.set_xticks(dims, [str(dim) for dim in dims], minor=False)
    axes.minorticks_off()
    axes.set_title("Inward push at pure noise, blind")
