"""Table and curves of the drift error of exact blind fields."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, with_error
from geonoise_jax.studies.stability_race.study import Study, ten

_SHOWN = (1e-2, 1e-4, 1e-6)
_LOWEST, _HIGHEST = 1e-12, 1e5
_DASHES = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (5, 1.5, 1, 1.5)))


def table(study: Study) -> str:
    """Return drift errors with their exponents beside those of the local model, and what is left without a clock."""
    options = study.options
    heading = (
        "Exact blind against exact conditional fields: 16 points on the unit circle in a plane of R^D, uniform time\n"
        f"law, {options.num} draws of u = a x + b eps, root mean squares; exponents in t between t = 1e-6 and 1e-4."
    )
    blocks = [
        "Drift error |nu| |f* - f_t| per unit t at t = 1e-2, 1e-4, 1e-6; its exponent (local model)",
        *aligned(_drift(study)),
        "",
        "The same per unit of noise b at the lowest level; its exponent in t; exponent per unit t at the distance "
        f"{options.radius:g}",
        *aligned(_clockless(study)),
        "",
        "What the steps of the grid add, and the share of it where the noise exceeds the signal (b > a)",
        *aligned(_steps(study)),
    ]
    return "\n".join([heading, "", *blocks])


@style.paper()
def picture(study: Study) -> Figure:
    """Return gains, and errors per unit t and per unit b in a low and a high dimension."""
    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 3)
    first, last = 0, len(study.options.dims) - 1
    middle = min(1, last)
    _gains(study, panels[0, 0])
    for axes, column in zip((panels[0, 1], panels[0, 2], panels[1, 0]), (first, middle, last), strict=True):
        _errors(study, axes, study.per_time, column)
        axes.set(title=f"Drift error, D = {study.options.dims[column]}", ylabel=r"$|\nu|\,|f^*-f_t|$, per unit $t$")
    _errors(study, panels[1, 1], study.per_noise, middle)
    title, ylabel = f"Per unit of noise, D = {study.options.dims[middle]}", r"$|\nu\,dt/db|\,|f^*-f_t|$, per unit $b$"
    panels[1, 1].set(title=title, ylabel=ylabel)
    _errors(study, panels[1, 2], study.per_time, middle, fixed=True)
    panels[1, 2].set(
        title=f"At the distance {study.options.radius:g}, D = {study.options.dims[middle]}",
        ylabel=r"$|\nu|\,|f^*-f_t|$, per unit $t$",
    )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9)
    title = "Drift error of exact blind fields: what diverges with the clock, and what without one"
    style.headed(figure, title)
    return figure


def arrays(study: Study) -> dict[str, Any]:
    """Return the arrays of :class:`Study`, exponents with intervals, names and dimensions; logarithms are natural."""
    names = [field.name for field in dataclasses.fields(study) if field.name not in ("options", "systems")]
    found: dict[str, Any] = {name: getattr(study, name) for name in names}
    numbers = range(len(study.systems))
    found |= {
        "slope": np.stack([study.slope(k, study.per_time) for k in numbers]),
        "slope_per_noise": np.stack([study.slope(k, study.per_noise) for k in numbers]),
        "slope_fixed": np.stack([study.slope(k, study.per_time, fixed=True) for k in numbers]),
        "theory": np.stack([study.theory(k) for k in numbers]),
    }
    return found | {"name": [system.name for system in study.systems], "dims": np.asarray(study.options.dims)}


def _header(study: Study) -> list[str]:
    return ["", *(f"D={dim}" for dim in study.options.dims)]


def _drift(study: Study) -> list[list[str]]:
    rows = [_header(study)]
    for number, system in enumerate(study.systems):
        logs, slopes, theory = (
            study.rms(number, study.per_time),
            study.slope(number, study.per_time),
            study.theory(number),
        )
        cells = []
        for column in range(len(study.options.dims)):
            at = [_interpolated(study, number, logs[column], t) for t in _SHOWN]
            expected = "log" if math.isnan(theory[column]) else f"{theory[column]:+.2f}"
            cells.append(f"{', '.join(map(_number, at))}; {slopes[column, 0]:+.2f} ({expected})")
        rows.append([system.name, *cells])
    return rows


def _clockless(study: Study) -> list[list[str]]:
    rows = [_header(study)]
    for number, system in enumerate(study.systems):
        logs, slopes = study.rms(number, study.per_noise)[:, 0], study.slope(number, study.per_noise)[:, 0]
        fixed = study.slope(number, study.per_time, fixed=True)[:, 0]
        values = zip(logs, slopes, fixed, strict=True)
        rows.append([system.name, *(f"{_number(log)}; {slope:+.2f}; {far:+.2f}" for log, slope, far in values)])
    return rows


def _steps(study: Study) -> list[list[str]]:
    rows = [_header(study)]
    for number, system in enumerate(study.systems):
        added, shares = np.exp(study.rms(number, study.per_step)).sum(1), study.noisy_share(number)
        errors = shares.std(1, ddof=1) / math.sqrt(shares.shape[1])
        values = zip(added, shares.mean(1), errors, strict=True)
        rows.append([system.name, *(f"{a:.3g}; {with_error(s, e)}" for a, s, e in values)])
    return rows


def _interpolated(study: Study, number: int, logs: np.ndarray, t: float) -> float:
    """Return the log of an error at a time between levels."""
    return float(np.interp(math.log(t), np.log(study.t[number]), logs))


def _number(log: float) -> str:
    """Return a number in two digits from its natural logarithm, also where it is too small to be one."""
    decimal = float(ten(np.asarray(log)))
    if not math.isfinite(decimal):
        return "0"
    if -3 < decimal < 4:
        return f"{10.0**decimal:.2g}"
    exponent = math.floor(decimal)
    return f"{10.0 ** (decimal - exponent):.0f}e{exponent}"


def _look(study: Study, number: int) -> dict[str, Any]:
    """One colour and width a schedule, one line a target."""
    schedules = list(dict.fromkeys(type(system.process.schedule) for system in study.systems))
    kind = type(study.systems[number].process.schedule)
    before = sum(type(system.process.schedule) is kind for system in study.systems[:number])
    color, width = style.COLORS[schedules.index(kind)], 2.6 - 0.7 * schedules.index(kind)
    return {"color": color, "linestyle": _DASHES[before % len(_DASHES)], "linewidth": width}


def _gains(study: Study, axes: Any) -> None:
    for number, system in enumerate(study.systems):
        axes.plot(study.ratio[number], study.gain[number], label=system.name, **_look(study, number))
    axes.set(title="Gain of the sampler", ylabel=r"$|\nu|$, per unit $t$")
    _levels(axes)


def _errors(study: Study, axes: Any, unit: np.ndarray, column: int, *, fixed: bool = False) -> None:
    for number in range(len(study.systems)):
        logs = study.rms(number, unit, fixed=fixed)[column]
        shown = np.where(logs > math.log(1e-300), np.exp(np.maximum(logs, math.log(1e-300))), np.nan)
        axes.plot(study.ratio[number], shown, **_look(study, number))
    _levels(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, _LOWEST), min(high, _HIGHEST))


def _levels(axes: Any) -> None:
    axes.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio b / a")
