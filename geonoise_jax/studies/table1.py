r"""Every named system's coefficients, as its code has them: the paper's Table 1 and all that follows from it.

(2, 4)    u = a x + b eps,  target c x + d eps,  Delta = a d - b c
(63)      velocity mu u + nu f;  (15, 51) gain lambda = (b / a) Delta, drift scale c / a
step      u_s = kappa u_t + omega f from t to the level s with half the noise-to-signal ratio

and, of the whole range: the exponent of |nu| in b at the low end, the exponent kappa of the prior of b there, what
exp(-int mu) makes of an error on the way from t_max to t_min, and what the exact blind field makes of a radial error
near a datum from b = a to t_min (``stability.local``). Two blind models of one process have one line.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax import build, config
from geonoise_jax.checks import real, several
from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, markdown
from geonoise_jax.process.process import Process
from geonoise_jax.process.times import Discrete, TimeLaw
from geonoise_jax.stability import drift_factor, noise_exponent, radial_factor
from geonoise_jax.systems import variants

COLUMNS = ("a", "b", "a'", "b'", "c", "d", "Delta", "mu", "nu", "lambda", "c/a", "kappa", "omega")
WHOLE = ("nu ~ b^", "prior kappa", "exp(-int mu)", "radial, b=a")
_CURVE = 200
_SHOWN = ("ddpm", "flow_matching", "v_prediction", "x_prediction", "edm", "uedm", "eqm")


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        ratios: noise-to-signal ratios b / a at which the coefficients are told, those within a system's range.
        config: config whose data give sigma_data.

    Raises:
        ValueError: if there is no ratio, or one is not positive.
    """

    ratios: tuple[float, ...] = (0.1, 1.0, 10.0)
    config: str = "configs/circles.py"

    def __post_init__(self) -> None:
        """Validate the ratios."""
        several("ratios", self.ratios, real, low=0.0, open_low=True)


class Row(NamedTuple):
    """One process.

    Attributes:
        names: the systems that have it, with their conditioning.
        process: schedule and target.
        values: coefficients by :data:`COLUMNS` at each ratio; not numbers outside of the range.
        whole: numbers of the whole range by :data:`WHOLE`.
        curve: noise-to-signal ratio, mu and nu per unit of log b / a along the range.
    """

    names: tuple[str, ...]
    process: Process
    values: Float[np.ndarray, "R C"]
    whole: Float[np.ndarray, "4"]
    curve: Float[np.ndarray, "3 n"]


class Study(NamedTuple):
    """All processes, and the choices."""

    options: Options
    rows: tuple[Row, ...]


def measure(options: Options) -> Study:
    """Return the coefficients of all named systems, in double precision."""
    found: dict[Process, tuple[list[str], TimeLaw]] = {}
    for variant in variants():
        chosen = config.load(f"{options.config}:{variant}")
        names, _ = found.setdefault(build.process(chosen), ([], build.time_law(chosen)))
        names.append(variant)
    with jax.enable_x64(True):
        rows = [_row(process, names, law, options.ratios) for process, (names, law) in found.items()]
    return Study(options, tuple(rows))


def table(study: Study) -> str:
    """Return a block of coefficients for each ratio, and one of the whole range."""
    blocks = []
    for index, ratio in enumerate(study.options.ratios):
        rows = [["", *COLUMNS], *([_name(row), *map(_cell, row.values[index])] for row in study.rows)]
        blocks.append("\n".join([f"b / a = {ratio:g}; kappa and omega of the step to half of it", *aligned(rows)]))
    rows = [["", *WHOLE], *([_name(row), *map(_cell, row.whole)] for row in study.rows)]
    return "\n\n".join([*blocks, "\n".join(["the whole range", *aligned(rows)])])


@style.paper()
def picture(study: Study) -> Figure:
    """Return mu and nu against the noise level, per unit of log(b / a), of the systems of the paper and their like."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    chosen = [row for name in _SHOWN for row in study.rows if row.names[0].partition(",")[0] == name]
    for number, row in enumerate(chosen):
        look = {"color": style.COLORS[number % len(style.COLORS)], "linestyle": ("-", "--", ":")[number % 3]}
        ratio, mu, nu = row.curve
        panels[0].plot(ratio, mu, label=_name(row), **look)
        panels[1].plot(ratio, np.abs(nu), **look)
    per = r"per unit of $\log(b/a)$"
    panels[0].set(title="Drift of the sampler", ylabel=rf"$\mu\,dt$ {per}")
    panels[1].set(title="Gain of the sampler", ylabel=rf"$|\nu|\,dt$ {per}", yscale="log")
    for axes in panels:
        axes.set(xscale="log", xlabel="noise-to-signal ratio b / a")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8.5)
    style.headed(figure, "Drift and gain of the samplers of the named systems, whatever their clocks")
    return figure


def arrays(study: Study) -> dict[str, Any]:
    """Return the numbers of all processes, stacked, with the names of their columns."""
    found: dict[str, Any] = {name: np.stack([getattr(row, name) for row in study.rows]) for name in Row._fields[2:]}
    found |= {"names": [" ".join(row.names) for row in study.rows], "columns": COLUMNS, "whole_columns": WHOLE}
    return found | {"ratios": study.options.ratios}


def pages(study: Study, drawn: Image.Image) -> dict[str, str]:  # noqa: ARG001
    """Return the table in Markdown."""
    return {".md": "\n\n".join([*_markdown(study), ""])}


def _row(process: Process, names: list[str], law: TimeLaw, ratios: tuple[float, ...]) -> Row:
    schedule = process.schedule
    low, high = (float(schedule.eta(jnp.asarray(t))) for t in (schedule.t_min, schedule.t_max))
    inside = [low <= math.log(ratio) <= high for ratio in ratios]
    values = [
        _coefficients(process, ratio) if ok else [math.nan] * len(COLUMNS)
        for ratio, ok in zip(ratios, inside, strict=True)
    ]
    t = jnp.clip(schedule.t_of_eta(jnp.linspace(low, high, _CURVE)), schedule.t_min, schedule.t_max)
    mu, nu = process.velocity_coeffs(t)
    k = process.coeffs(t)
    pace = k.db / k.b - k.da / k.a
    curve = np.stack([np.asarray(each) for each in (k.b / k.a, mu / pace, nu / pace)])
    order = float(jnp.log(jnp.abs(nu[1] / nu[0])) / jnp.log(k.b[1] / k.b[0]))
    exponent = math.nan if isinstance(law, Discrete) else float(noise_exponent(schedule, law, t[1]))
    equal = min(max(float(schedule.t_of_eta(jnp.asarray(0.0))), schedule.t_min), schedule.t_max)
    factors = drift_factor(process, schedule.t_max, schedule.t_min), radial_factor(process, equal, schedule.t_min)
    return Row(tuple(names), process, np.asarray(values), np.asarray([order, exponent, *map(float, factors)]), curve)


def _coefficients(process: Process, ratio: float) -> list[float]:
    """Return the numbers of :data:`COLUMNS` at a noise-to-signal ratio."""
    schedule = process.schedule
    t, s = (schedule.t_of_eta(jnp.log(jnp.asarray(each))) for each in (ratio, 0.5 * ratio))
    k = process.coeffs(t)
    parts = (k.a, k.b, k.da, k.db, k.c, k.d, k.det, *process.velocity_coeffs(t), process.gain(t))
    step = process.step(jnp.clip(s, schedule.t_min, schedule.t_max), t)
    return [float(each) for each in (*parts, process.drift_scale(t), *step)]


def _name(row: Row) -> str:
    systems: dict[str, list[str]] = {}
    for name in row.names:
        system, _, conditioning = name.partition(",")
        systems.setdefault(system, []).append(conditioning)
    return ", ".join(name if len(kinds) == 2 else f"{name} ({kinds[0]})" for name, kinds in systems.items())


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _markdown(study: Study) -> list[str]:
    blocks = []
    for index, ratio in enumerate(study.options.ratios):
        rows = [[_name(row), f"`{row.process!r}`", *map(_cell, row.values[index])] for row in study.rows]
        blocks += [
            f"At b / a = {ratio:g}; kappa and omega of the step to half of it:",
            markdown([("", "process", *COLUMNS), *rows]),
        ]
    rows = [[_name(row), *map(_cell, row.whole)] for row in study.rows]
    return [*blocks, "The whole range:", markdown([("", *WHOLE), *rows])]
