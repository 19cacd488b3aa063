"""One self-contained page of an evaluation: numbers, curves, samples and the training items nearest to them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from PIL import Image

from geonoise_jax.drawing.page import embedded, table_row, whole
from geonoise_jax.evaluation.evaluator.records import Record

# What a floor is made of.
FLOOR = "training items (held-out ones where samples are compared with training items)"


def report(
    rows: Sequence[Sequence[str]],
    records: Sequence[Record],
    missing: Sequence[tuple[str, str]],
    shown: Sequence[tuple[str, Image.Image, Image.Image | None]],
    curves: Image.Image | None,
) -> str:
    """Return the page.

    Args:
        rows: cells of the table, its heading first.
        records: the records behind it.
        missing: metrics that were not measured, and why.
        shown: title, samples and neighbours of each case.
        curves: quality along a sweep, if there is one.
    """
    parts = ["<h1>Evaluation</h1>"]
    if len(rows) > 1:
        body = "".join(table_row(row) for row in rows[1:])
        parts.append(f'<div class="wide"><table>{table_row(rows[0], "th")}{body}</table></div>')
        parts.append(_protocols(records))
    if missing:
        lacking = "".join(f"<li>{html.escape(f'{name}: {why}')}</li>" for name, why in missing)
        parts.append(f"<h2>Not measured</h2><ul>{lacking}</ul>")
    if curves is not None:
        shown_curves = _image(curves, "quality along the sweep")
        parts.append(f'<h2>Curves</h2><div class="wide">{shown_curves}</div>')
    parts.append("<h2>Samples</h2>")
    for title, samples, neighbours in shown:
        parts.append(f"<h3>{html.escape(title)}</h3>{_image(samples, f'samples: {title}')}")
        if neighbours is not None:
            parts.append(_image(neighbours, f"training items nearest to samples: {title}"))
    return whole("Evaluation", "\n".join(parts))


def protocols(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Return each number's name, which are better, and how it was made, the network of its features by name alone."""
    found: dict[tuple[str, str, str], None] = {}
    for one in records:
        how = one["protocol"]
        if one["network"]:
            how = how.replace(one["network_protocol"], one["network"], 1)
        found[one["metric"], one["better"], f"{how}; interval: {one['interval']}"] = None
    return list(found)


def _protocols(records: Sequence[Record]) -> str:
    listed = [(name, f"{how}. {better.capitalize()} is better.") for name, better, how in protocols(records)]
    networks = dict.fromkeys((one["network"], one["network_protocol"]) for one in records if one["network"])
    listed += [(f"features {name}", protocol) for name, protocol in networks]
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in listed)
    references = ", ".join(dict.fromkeys(one["reference"] for one in records if one["reference"]))
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in dict.fromkeys(one["note"] for one in records) if note)
    beside = f"<p>Compared with {html.escape(references)}. Floor: the same of as many {FLOOR} in place of samples, "
    beside += "mean and spread over 20 draws.</p>"
    return f"<dl>{items}</dl>{beside if references else ''}{notes}"


def _image(image: Image.Image, text: str) -> str:
    return f'<img alt="{html.escape(text)}" src="{embedded(image)}">'
