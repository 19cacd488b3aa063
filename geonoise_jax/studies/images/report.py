"""Tables, picture and page of the models of images."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from geonoise_jax.drawing import style
from geonoise_jax.drawing.page import embedded, table_row, whole
from geonoise_jax.drawing.pictures import image_grid, to_pixels
from geonoise_jax.drawing.text import aligned, markdown, with_error
from geonoise_jax.evaluation.evaluator.page import protocols
from geonoise_jax.studies.images.study import Study

TITLES = {"ddpm": "DDPM", "flow_matching": "flow matching", "edm": "EDM", "eqm": "EqM"}
DATA = {"digits": "Digits, 8 x 8", "fashion_mnist": "Fashion-MNIST, 28 x 28"}
_NAMES = {
    "sliced_wasserstein": "sliced Wasserstein",
    "frechet": "Fréchet",
    "precision": "precision",
    "recall": "recall",
    "spectrum": "spectrum",
}
_AT_FLOOR = " ="
_LOOKS: dict[str, dict[str, Any]] = {
    "conditional": {"linestyle": "-", "marker": "o"},
    "blind": {"linestyle": (0, (4, 2)), "marker": "s", "markerfacecolor": "white"},
}


def table(study: Study) -> str:
    """Return the results as text, a row a model, data in place of samples last, and what the columns are."""
    return "\n".join([_heading(study), "", *aligned(_cells(study), left=2), "", *_legend(study)])


@style.paper()
def picture(study: Study) -> Figure:
    """Return samples of all models beside held-out images, and quality against evaluations of the network."""
    columns = 1 + len(study.options.systems)
    figure = Figure(figsize=(2.45 * columns, 8.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[2 * 2.6, 3.2])
    _draw_samples(halves[0], study, columns)
    _draw_curves(halves[1], study)
    style.headed(figure, f"{DATA[study.options.data]}: {_budget(study)}")
    return figure


def arrays(study: Study) -> dict[str, Any]:
    """Return values, spreads, ends of intervals and floors, a row a model and a column a number, and some samples."""
    columns = _columns(study)
    found: dict[str, Any] = {
        "model": [each.model.name for each in study.results],
        "number": [" ".join(c) for c in columns],
    }
    ones = [[_find(each.records, *column) for column in columns] for each in study.results]
    for name in ("value", "spread", "low", "high"):
        found[name] = np.asarray([[_number(one[name]) for one in row] for row in ones])
    found["floor"] = np.asarray([[_number((one["floor"] or {}).get("value")) for one in row] for row in ones])
    found["floor_spread"] = np.asarray([[_number((one["floor"] or {}).get("spread")) for one in row] for row in ones])
    return found | {
        "samples": np.stack([each.samples for each in study.results]),
        "step": [e.step for e in study.results],
    }


def numbers(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Return the records of all evaluations, and those along the curves."""
    return {
        "records": [one for each in study.results for one in each.records],
        "curves": [one for each in study.results for one in each.curve],
    }


def pages(study: Study, drawn: Image.Image) -> dict[str, str]:
    """Return further files by their endings: a self-contained page, and the table in Markdown.

    Args:
        study: the study.
        drawn: its picture.
    """
    return {".html": _page(study, drawn), ".md": _markdown(study)}


def _columns(study: Study) -> list[tuple[str, str]]:
    """Return metric and network of features of every column: what needs none first."""
    found = dict.fromkeys((one["metric"], one["network"] or "") for one in study.results[0].records)
    return sorted(found, key=lambda column: (list(_NAMES).index(column[0]), column[1]))


def _find(records: Sequence[dict[str, Any]], metric: str, network: str) -> dict[str, Any]:
    return next(one for one in records if (one["metric"], one["network"] or "") == (metric, network))


def _cells(study: Study) -> list[list[str]]:
    columns = _columns(study)
    rows = [["model", "noise level", *(" ".join(filter(None, (_NAMES[name], net))) for name, net in columns)]]
    for each in study.results:
        ones = [_find(each.records, *column) for column in columns]
        seen = "shown" if each.model.conditioning == "conditional" else "not shown"
        rows.append([TITLES[each.model.system], seen, *map(_cell, ones)])
    floors = [_find(study.results[0].records, *column)["floor"] for column in columns]
    rows.append(
        ["training images", "", *("" if one is None else with_error(one["value"], one["spread"]) for one in floors)]
    )
    return rows


def _cell(one: dict[str, Any]) -> str:
    if one["value"] is None:
        return f"{one['not_finite']} not finite" if one["not_finite"] else "none"
    return with_error(one["value"], one["spread"]) + (_AT_FLOOR if one["at_floor"] else "")


def _budget(study: Study) -> str:
    steps = sorted({each.step for each in study.results})
    steps_in_words = " to ".join(f"{step:,}" for step in dict.fromkeys((steps[0], steps[-1])))
    return f"{steps_in_words} updates of 64 images, {study.options.evaluations[-1]} evaluations of the network a sample"


def _heading(study: Study) -> str:
    return f"{DATA[study.options.data]}: {_budget(study)}, {study.options.num:,} samples"


def _legend(study: Study) -> list[str]:
    """Return what stands behind the columns."""
    records = [one for each in study.results for one in each.records]
    lines = [
        "+-: how far a number varies with the samples (and, where its interval is of both sets, with the reference)"
    ]
    lines += ["training images: the same of as many of these in place of samples, mean and spread over 20 draws"]
    lines += [f"{_AT_FLOOR.strip()}: cannot be told from training images"]
    lines += [f"{_NAMES[name]} ({better} is better): {how}" for name, better, how in protocols(records)]
    networks = dict.fromkeys((one["network"], one["network_protocol"]) for one in records if one["network"])
    lines += [f"features {name}: {protocol}" for name, protocol in networks]
    lines += [f"compared with {title}" for title in dict.fromkeys(one["reference"] for one in records)]
    return lines + [f"note: {note}" for note in dict.fromkeys(one["note"] for one in records) if note]


def _markdown(study: Study) -> str:
    legend = "\n".join(f"* {line}" for line in _legend(study))
    return f"{_heading(study)}\n\n{markdown(_cells(study), left=2)}\n\n{legend}\n"


def _page(study: Study, drawn: Image.Image) -> str:
    heading, *rows = _cells(study)
    body = "".join(table_row(row) for row in rows)
    legend = "".join(f"<li>{html.escape(line)}</li>" for line in _legend(study))
    shown = f'<img src="{embedded(drawn)}" alt="samples of all models, and quality against evaluations">'
    return whole(
        f"Models of images: {DATA[study.options.data]}",
        f"<h1>{html.escape(_heading(study))}</h1>"
        f'<div class="wide"><table>{table_row(heading, "th")}{body}</table></div><ul>{legend}</ul>'
        f'<h2>Samples and curves</h2><div class="wide">{shown}</div>',
    )


def _draw_samples(figure: Any, study: Study, columns: int) -> None:
    grid = figure.subplots(2, columns, squeeze=False)
    by_model = {each.model: each.samples for each in study.results}
    for row, conditioning in enumerate(_LOOKS):
        for column, system in enumerate(study.options.systems):
            model = next(each for each in by_model if (each.system, each.conditioning) == (system, conditioning))
            _show(grid[row, column], by_model[model], f"{TITLES[system]}, {conditioning}")
    _show(grid[0, -1], study.data, "held-out images")
    grid[1, -1].set_axis_off()


def _show(axes: Any, images: np.ndarray, title: str) -> None:
    axes.imshow(image_grid(to_pixels(images), columns=4), cmap="gray", vmin=0, vmax=255)
    axes.set(title=title, xticks=[], yticks=[])
    axes.title.set_fontsize(8.0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _draw_curves(figure: Any, study: Study) -> None:
    metrics = dict.fromkeys((one["metric"], one["network"] or "") for each in study.results for one in each.curve)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (metric, network) in zip(panels, metrics, strict=True):
        for each in study.results:
            _draw_curve(axes, study, each, metric, network)
        for value, spread in {_floor(_find(each.curve, metric, network)) for each in study.results}:
            axes.axhspan(value - spread, value + spread, color="0.6", alpha=0.25, linewidth=0)
            axes.axhline(value, color=style.REFERENCE, linestyle=":", linewidth=1.0, label="training images")
        ticks = list(study.options.evaluations)
        axes.set(xscale="log", yscale="log", xlabel="evaluations of the network a sample")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        title = " ".join(filter(None, (_NAMES[metric], "distance", network and f"({network})")))
        axes.set(title=title, ylabel="distance to held-out images")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")


def _draw_curve(axes: Any, study: Study, result: Any, metric: str, network: str) -> None:
    of_curve = [one for one in result.curve if (one["metric"], one["network"] or "") == (metric, network)]
    found = sorted((one for one in of_curve if one["value"] is not None), key=lambda one: one["evaluations"])
    if not found:
        return
    values = np.asarray([one["value"] for one in found])
    ends = np.abs([[one[end] for one in found] - values for end in ("low", "high")])
    colour = style.COLORS[study.options.systems.index(result.model.system)]
    label = f"{TITLES[result.model.system]}, {result.model.conditioning}"
    look = _LOOKS[result.model.conditioning]
    axes.errorbar([one["evaluations"] for one in found], values, ends, color=colour, label=label, **look)


def _floor(one: dict[str, Any]) -> tuple[float, float]:
    return one["floor"]["value"], one["floor"]["spread"]


def _number(value: float | None) -> float:
    return np.nan if value is None else value
