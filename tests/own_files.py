"""Small images on disk, told apart by their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def pixels(seed: int, *shape: int) -> np.ndarray:
    """Random bytes of an image of this shape."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    """Write an image without loss where the suffix allows it, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def photos(folder: Path, *names: str, shape: tuple[int, ...] = (6, 8, 3)) -> dict[str, np.ndarray]:
    """Write one image under each name, and return their pixels."""
    arrays = {name: pixels(seed, *shape) for seed, name in enumerate(names)}
    for name, array in arrays.items():
        save(folder / name, array)
    return arrays
