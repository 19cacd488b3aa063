"""What an evaluation shows: one table, curves of quality, pictures of samples, a page, TensorBoard."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from PIL import Image

from geonoise_jax import files
from geonoise_jax.drawing import pictures
from geonoise_jax.drawing.text import aligned, with_error
from geonoise_jax.evaluation.evaluator import page
from geonoise_jax.evaluation.evaluator.cases import Case
from geonoise_jax.evaluation.evaluator.curves import curves
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.evaluator.records import Record
from geonoise_jax.evaluation.reference import Reference
from geonoise_jax.training.writers import EventFiles

_LOG = logging.getLogger(__name__)
_PICTURE, _NEIGHBOURS, _OF_EACH = 64, 8, 3
_AT_FLOOR = "="
# Samples and data that a table of their distances is made of at once.
_ENTRIES = 2**24


class Shown(NamedTuple):
    """What is shown of a case.

    Attributes:
        title: run, step, sampler.
        samples: picture of some samples.
        neighbours: some samples, each before the training items nearest to it; None where there are none.
        files: where the pictures lie.
    """

    title: str
    samples: Image.Image
    neighbours: Image.Image | None
    files: tuple[PurePath, ...]


def show(case: Case, samples: Kept, num: int, reference: Reference | None) -> Shown:
    """Draw samples of a case and, of images, the training items nearest to some of them."""
    x = samples.read("x", min(num, _PICTURE))
    evaluations = samples.read("evaluations", min(num, _PICTURE))
    title = pictures.caption(files.absolute(case.model.workdir).name, case.step, case.way, evaluations)
    known = None if reference is None else reference.training
    grid = pictures.sample_picture(x, known if x.ndim == 2 else None, title=title)
    path = samples.folder / "samples.png"
    pictures.save(grid, path)
    if known is None or x.ndim != 4:
        return Shown(title, grid, None, (path,))
    rows = nearest(x[:_NEIGHBOURS], known, _OF_EACH)
    tiles = np.concatenate([np.concatenate([one[None], known[found]]) for one, found in zip(x, rows, strict=False)])
    near = pictures.image_grid(pictures.to_pixels(tiles), columns=2 * (1 + _OF_EACH))
    near = pictures.captioned(near, f"samples, each before the {_OF_EACH} training items nearest to it")
    beside = samples.folder / "neighbours.png"
    pictures.save(near, beside)
    return Shown(title, grid, near, (path, beside))


def nearest(x: np.ndarray, points: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the nearest points of each x, nearest first; those of an x that is not finite are the first.

    Args:
        x: [n, *event].
        points: [N, *event].
        count: how many.
    """
    flat = np.nan_to_num(x.reshape(len(x), -1), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    squares = []
    step = max(1, _ENTRIES // max(flat.size, 1))
    for start in range(0, len(points), step):
        part = points[start : start + step].reshape(-1, flat.shape[1]).astype(np.float64)
        squares.append(np.square(flat[:, None] - part[None]).sum(-1))
    return np.argsort(np.concatenate(squares, axis=1), axis=1, kind="stable")[:, :count]


def write(
    folder: PurePath, records: Sequence[Record], missing: Sequence[tuple[str, str]], shown: Sequence[Shown]
) -> tuple[str, list[PurePath]]:
    """Write the page and the curves, and return the table as text and what was written."""
    text = table(records, missing)
    drawn = curves(records)
    written = [path for each in shown for path in each.files]
    if drawn is not None:
        pictures.save(drawn, folder / "curves.png")
        written.append(folder / "curves.png")
    images = [(each.title, each.samples, each.neighbours) for each in shown]
    files.write_text(folder / "report.html", page.report(rows(records), records, missing, images, drawn))
    return text, [*written, folder / "report.html"]


def table(records: Sequence[Record], missing: Sequence[tuple[str, str]]) -> str:
    """Return all numbers as text: a row a number, with its interval and its floor."""
    lines = aligned(rows(records), left=6) if records else ["nothing was measured"]
    lines += ["", *_legend(records)] if records else []
    lines += ["", "not measured:", *(f"  {name}: {why}" for name, why in missing)] if missing else []
    return "\n".join(lines)


def rows(records: Sequence[Record]) -> list[list[str]]:
    """Return the cells of the table, its heading first."""
    heading = ["run", "step", "sampling", "evaluations", "metric", "features", "value", "interval", "floor", ""]
    return [heading, *map(_row, records)]


def _row(one: Record) -> list[str]:
    evaluations = one.get("evaluations")
    return [
        one.get("run", ""),
        f"{one['step']}",
        one.get("way", one["params"]),
        "" if evaluations is None else f"{evaluations:.4g}",
        one["metric"],
        one["network"] or "",
        _value(one),
        "" if one["value"] is None else f"{_short(one['low'], one)} to {_short(one['high'], one)}",
        "" if one["floor"] is None else with_error(one["floor"]["value"], one["floor"]["spread"]),
        "at the floor" if one["at_floor"] else "",
    ]


def _value(one: Record) -> str:
    if one["not_finite"]:
        return f"none: {one['not_finite']} of {one['num']} samples are not finite"
    return "none" if one["value"] is None else _short(one["value"], one)


def _short(number: float | None, one: Record) -> str:
    """Return a number to the digits of its spread that count."""
    if number is None:
        return "unknown"
    spread = one["spread"]
    if not spread:
        return f"{number:.4g}"
    places = max(0, 1 - math.floor(math.log10(spread)))
    return f"{number:.{places}f}"


def _legend(records: Sequence[Record]) -> list[str]:
    """Return what stands behind the columns."""
    lines = [f"floor: the same of as many {page.FLOOR} in place of samples, mean and spread over 20 draws"]
    lines += [f"{name} ({better} is better): {how}" for name, better, how in page.protocols(records)]
    networks = dict.fromkeys((one["network"], one["network_protocol"]) for one in records if one["network"])
    lines += [f"features {name}: {protocol}" for name, protocol in networks]
    lines += [f"reference: {title}" for title in dict.fromkeys(one["reference"] for one in records) if title]
    lines += [f"note: {note}" for note in dict.fromkeys(one["note"] for one in records) if note]
    return lines


def to_tensorboard(workdir: PurePath, records: Sequence[Record]) -> None:
    """Write all values of a workdir for TensorBoard, where it is installed; a failure is said and ends nothing."""
    if not importlib.util.find_spec("tensorboardX"):
        return
    by_way: dict[str, list[Record]] = {}
    for one in sorted(records, key=lambda each: each["step"]):
        by_way.setdefault(str(one.get("way", one["params"])), []).append(one)
    try:
        for way, found in by_way.items():
            # Everything is written anew, and takes the place of what earlier files have.
            board = EventFiles(workdir / "tensorboard" / "evaluation" / way.replace(" ", "_").replace(",", ""), -1)
            for one in found:
                if one["value"] is not None:
                    board.write(one["step"], {"/".join(filter(None, (one["network"], one["metric"]))): one["value"]})
            board.close()
    except Exception as error:  # whatever another package raises
        _LOG.warning("TensorBoard was given no evaluation: %s: %s", type(error).__name__, error)
