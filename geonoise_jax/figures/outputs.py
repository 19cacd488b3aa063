"""Files of results: each appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from geonoise_jax.errors import UserError


def write(out: Path, picture: Image.Image, arrays: Mapping[str, Any]) -> list[Path]:
    """Write ``OUT.png`` and ``OUT.npz``, making their folder, and return their paths.

    Args:
        out: the common name without ending.
        picture: the picture.
        arrays: arrays by name.
    """
    png, npz = (out.with_name(out.name + ending) for ending in (".png", ".npz"))
    with replacing(png) as file:
        picture.save(file, format="PNG")
    with replacing(npz) as file:
        np.savez_compressed(file, **arrays)
    return [png, npz]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a draft that becomes ``path`` when the context ends well, and vanishes otherwise.

    It is opened before the work is done, so that a folder that cannot be written to is found out first.

    Raises:
        ValueError: if ``path`` is a folder.
    """
    if path.is_dir():
        raise UserError(f"out = {str(path)!r}: is a folder; must be the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
