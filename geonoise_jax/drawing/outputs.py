"""The files of a study: a picture and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from geonoise_jax import files


def write(out: str | Path, picture: Image.Image, arrays: Mapping[str, Any]) -> list[Path]:
    """Write ``OUT.png`` and ``OUT.npz``, each whole or not at all, making their folder, and return their paths.

    Args:
        out: the common name without ending.
        picture: the picture.
        arrays: arrays by name.
    """
    out = files.local(out, "out")
    png, npz = (out.with_name(out.name + ending) for ending in (".png", ".npz"))
    files.write_picture(png, picture)
    files.write_arrays(npz, arrays)
    return [png, npz]
