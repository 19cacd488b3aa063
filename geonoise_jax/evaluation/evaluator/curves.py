"""Quality against evaluations of the network, and along training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.drawing import style
from geonoise_jax.drawing.pictures import to_image
from geonoise_jax.evaluation.evaluator.records import Record

_MOST = 6
_MARKERS = "os^Dv"


def curves(records: Sequence[Record]) -> Image.Image | None:
    """Return one picture of all metrics that a sweep has two points of; None where there are none.

    The upper row is against evaluations of the network, at the last step; the lower one along training.
    """
    sampled = [one for one in records if one.get("evaluations") is not None and one["value"] is not None]
    last = [one for one in sampled if one["step"] == max(each["step"] for each in sampled if _run(each) == _run(one))]
    swept = {
        "evaluations of the network": (last, lambda one: one["evaluations"], _without_steps),
        "training step": (sampled, lambda one: one["step"], lambda one: one["way"]),
    }
    panels = []
    for axis, (found, x, line) in swept.items():
        for metric in dict.fromkeys(_metric(one) for one in found):
            of_metric = [one for one in found if _metric(one) == metric]
            if len({x(one) for one in of_metric}) > 1:
                panels.append((axis, metric, of_metric, x, line))
    if not panels:
        return None
    return _drawn(panels[: 2 * _MOST])


@style.paper()
def _drawn(panels: Sequence[Any]) -> Image.Image:
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid, panels, strict=False):
        _panel(axes, *panel)
    style.headed(figure, "Quality with 95% intervals; grey: data in place of samples")
    return to_image(figure)


def _panel(
    axes: Any,
    axis: str,
    metric: str,
    records: Sequence[Record],
    x: Callable[[Record], float],
    line: Callable[[Record], str],
) -> None:
    runs = len({_run(one) for one in records}) > 1
    lines: dict[str, list[Record]] = {}
    for one in records:
        lines.setdefault(f"{_run(one)}, {line(one)}" if runs else line(one), []).append(one)
    for number, (label, found) in enumerate(lines.items()):
        found.sort(key=x)
        values = [one["value"] for one in found]
        low, high = ([abs(one[end] - one["value"]) for one in found] for end in ("low", "high"))
        marker = _MARKERS[number % len(_MARKERS)]
        axes.errorbar([x(one) for one in found], values, [low, high], marker=marker, label=label)
    floors = {(one["floor"]["value"], one["floor"]["spread"]) for one in records if one["floor"]}
    for value, spread in floors:
        axes.axhspan(value - spread, value + spread, color="0.6", alpha=0.25, linewidth=0)
        axes.axhline(value, color=style.REFERENCE, linestyle=":", linewidth=1.0)
    axes.set(title=f"{metric} ({records[0]['better']} is better)", xlabel=axis, xscale="log")
    ticks = sorted({x(one) for one in records})
    axes.set_xticks(ticks, [style.thousands(round(tick)) for tick in ticks])
    axes.minorticks_off()
    axes.legend()


def _run(one: Record) -> str:
    return str(one.get("run", ""))


def _metric(one: Record) -> str:
    return f"{one['metric']}, {one['network']}" if one["network"] else one["metric"]


def _without_steps(one: Record) -> str:
    """Return the way of sampling without its number of steps, along which a line goes."""
    steps = one["sampling"]["options"].get("num_steps")
    return str(one["way"]).replace(f" {steps}", "", 1) if steps is not None else str(one["way"])
