"""Arrays that a study keeps in its folder, so that the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np

from geonoise_jax import files


def kept(
    folder: PurePath, name: str, depends: tuple[Any, ...], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of a file, which is made if it is not there.

    Args:
        folder: where it is.
        name: how its name begins.
        depends: what the arrays depend on, each with a ``repr`` that tells it; the name of the file ends with a digest.
        make: makes the arrays.
    """
    digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:16]
    return kept_in(folder / f"{name}-{digest}.npz", make)


def kept_in(path: PurePath, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of a file, which is made if it is not there; its name tells all that they depend on."""
    if files.exists(path):
        return files.read_arrays(path)
    found = make()
    files.write_arrays(path, found)
    return found
