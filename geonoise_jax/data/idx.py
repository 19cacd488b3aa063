"""The files of MNIST and of sets like it, ``train-images-idx3-ubyte.gz`` and so on."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from geonoise_jax.errors import UserError

_SPLITS = {"train": "train", "test": "t10k"}
_UINT8 = 0x08


def read_splits(folder: Path) -> dict[str, np.ndarray]:
    """Return ``x_train`` [N, H, W, 1], ``y_train`` [N] and those of the test split, as ``npz`` reads them.

    Args:
        folder: the folder of the four files.

    Raises:
        UserError: if a file is missing or damaged, or items and labels are not as many.
    """
    arrays: dict[str, np.ndarray] = {}
    for split, name in _SPLITS.items():
        images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            shapes = f"{list(images.shape)} and {list(labels.shape)}"
            raise UserError(f"path = {str(folder)!r}: {name} has shapes {shapes}; must be [N, H, W] and [N]")
        arrays |= {f"x_{split}": images[..., None], f"y_{split}": labels.astype(np.int64)}
    return arrays


def read_idx(path: Path) -> UInt8[np.ndarray, "*shape"]:
    """Return the bytes of a gzipped IDX file: two zeros, type, number of axes, their lengths in four bytes each, data.

    Raises:
        UserError: if it is missing or damaged, or of another type than unsigned bytes.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: is missing, damaged or cannot be read ({error})") from error
    head = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != bytes([0, 0, _UINT8]) or len(content) < head:
        raise UserError(f"{path}: is no IDX file of unsigned bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=content[3], offset=4))
    if len(content) != head + math.prod(shape):
        raise UserError(f"{path}: is damaged: holds {len(content) - head} bytes; must hold {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
