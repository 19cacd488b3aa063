"""What a config would train on, in words and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.data import memory
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.pipeline import resolved
from geonoise_jax.data.prefetch import depth
from geonoise_jax.drawing import pictures
from geonoise_jax.drawing.data_grid import captioned_grid
from geonoise_jax.errors import UserError

_CHUNK = 1024
# Items of the picture.
_IMAGES, _POINTS = 64, 2000
# Items of a set that is read as needed which stand for all.
_LOOKED_AT = 4096
# Classes that are listed.
_LISTED = 20
# A standard deviation that differs by more from data.sigma_data is worth a word.
_NEAR = 0.1


class Statistics(NamedTuple):
    """Of all entries in model space."""

    low: float
    high: float
    mean: float
    std: float


def describe(config: ConfigDict, *, split: str | None = None, out: Path | None = None) -> str:
    """Load the data of a config and describe them.

    Args:
        config: the config.
        split: another split than the config's.
        out: a PNG file for a picture of some items, by default none.

    Returns:
        One line for each thing that there is to say.

    Raises:
        ValueError: as training would, if the data cannot be loaded.
    """
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"out = {str(out)!r}: must be the name of a .png file")
    data = build.arrays(config, split)
    splits = [f"{name} ({size} items)" for name, size in build.split_sizes(config).items()]
    known = {"splits": f"{', '.join(splits)}, and slices such as train[:90%]"} if splits else {}
    rows = {
        "data set": f"{data.name}{_path(config)}, split {data.split}",
        **known,
        **_rows(config, data),
    }
    if out is not None:
        pictures.save(_picture(data), out)
        rows["picture"] = str(out)
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def statistics(data: Arrays) -> Statistics:
    """Return range, mean and standard deviation of the entries in model space, without a copy of the data.

    Of a set that is read as needed those of at most 4096 items, evenly spread.
    """
    total = square = size = 0.0
    low, high = np.inf, -np.inf
    step = _stride(data)
    for start in range(0, len(data), _CHUNK * step):
        x = data.to_model(data.events[start : start + _CHUNK * step : step]).astype(np.float64)
        total, square, size = total + float(x.sum()), square + float(np.square(x).sum()), size + x.size
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    mean = total / size
    return Statistics(low, high, mean, max(square / size - mean**2, 0.0) ** 0.5)


def _stride(data: Arrays) -> int:
    """Return from how many items one is looked at."""
    return -(-len(data) // _LOOKED_AT) if data.is_streamed else 1


def _rows(config: ConfigDict, data: Arrays) -> dict[str, str]:
    found, (low, high) = statistics(data), data.value_range
    shape = "x".join(map(str, data.event_shape))
    kind = " (height x width x channels)" if data.is_image else ""
    sampled = f", of {len(range(0, len(data), _stride(data)))} items" if data.is_streamed else ""
    return {
        "items": f"{len(data)}, of which a batch takes {config.training.batch_size}",
        "shape": f"{shape}{kind}",
        "classes": _classes(data),
        "stored": f"{data.events.dtype}, {low:g}..{high:g}",
        "model space": f"{found.low:.4g}..{found.high:.4g}, mean {found.mean:.4g}, standard deviation {found.std:.4g}"
        + sampled,
        "sigma_data": _sigma(config.data.sigma_data, found.std),
        "mirrored": "left-right, at random" if config.data.flip else "no",
        **({} if config.data.augment.name == "none" else {"augmented": config.data.augment.name}),
        "memory": _memory(config, data),
        "checksum": str(data.checksum()),
    }


def _memory(config: ConfigDict, data: Arrays) -> str:
    """Say how large the data are and where they go, with what is held of them."""
    size = f"{data.nbytes / 2**20:.3g} MiB"
    if not data.is_streamed:
        return f"{size}, on the {resolved(config.data.placement, data.nbytes)}"
    share, batch = memory.share(), data.nbytes // len(data) * config.training.batch_size
    held = "" if share is None else f" (a process may hold {memory.in_words(share)})"
    return f"{size}, read from files as needed{held}; {memory.in_words(batch)} a batch, {depth(batch)} read ahead"


def _path(config: ConfigDict) -> str:
    path = config.data.kwargs.get("path")
    return f" {str(path)!r}" if path else ""


def _classes(data: Arrays) -> str:
    if data.labels is None or not data.num_classes:
        return "none"
    counts = np.bincount(data.labels[data.labels >= 0], minlength=data.num_classes)
    names = data.class_names or tuple(map(str, range(data.num_classes)))
    listed = ", ".join(f"{name} {count}" for name, count in list(zip(names, counts, strict=True))[:_LISTED])
    more = f", and {data.num_classes - _LISTED} more" if data.num_classes > _LISTED else ""
    without = int((data.labels < 0).sum())
    return f"{data.num_classes}: {listed}{more}" + (f"; without a class {without}" if without else "")


def _sigma(given: float, found: float) -> str:
    if abs(found - given) <= _NEAR * found:
        return f"{given:g} (data.sigma_data), near the standard deviation"
    return f"{given:g}; the standard deviation suggests --config.data.sigma_data={found:.2g}"


def _picture(data: Arrays) -> pictures.Image.Image:
    num = min(len(data), _IMAGES if data.is_image else _POINTS)
    chosen = np.linspace(0, len(data) - 1, num).astype(int)
    x = data.to_model(data.events[chosen])
    if not data.is_image:
        return pictures.scatter(x, None, title=data.name)
    return captioned_grid(pictures.to_pixels(x), [] if data.labels is None else _names(data, data.labels[chosen]))


def _names(data: Arrays, labels: np.ndarray) -> list[str]:
    names = data.class_names or tuple(map(str, range(data.num_classes or 0)))
    return ["none" if label < 0 else names[label] for label in labels]
