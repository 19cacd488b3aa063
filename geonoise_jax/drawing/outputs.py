"""The files of a study: a picture and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax import files
from geonoise_jax.drawing import style
from geonoise_jax.drawing.pictures import to_image

# The same names of parts in each run.
_SVG: Any = {"svg.hashsalt": "geonoise"}


def write(out: str | PurePath, picture: Image.Image, arrays: Mapping[str, Any]) -> list[PurePath]:
    """Write ``OUT.png`` and ``OUT.npz``, each whole or not at all, making their folder, and return their paths.

    Args:
        out: the common name without ending.
        picture: the picture.
        arrays: arrays by name.
    """
    png, npz = beside(out, ".png"), beside(out, ".npz")
    files.write_picture(png, picture)
    files.write_arrays(npz, arrays)
    return [png, npz]


def beside(out: str | PurePath, ending: str) -> PurePath:
    """Return the path of the common name with an ending, whatever dots the name has."""
    out = files.location(out, "out")
    return out.with_name(out.name + ending)


@style.paper()
def rendered(figure: Figure) -> Image.Image:
    """Return a figure as an image: with ticks, which are made as late as this, in the common look."""
    return to_image(figure)


@style.paper()
def write_svg(path: str | PurePath, figure: Figure) -> None:
    """Write a figure as SVG, whole or not at all, the same bytes each time."""
    with files.replacing(path) as file, matplotlib.rc_context(_SVG):
        figure.savefig(file, format="svg", metadata={"Date": None})
