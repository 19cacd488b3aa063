"""The data of a config: in memory, as batches, as a law with its exact fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from geonoise_jax import imports
from geonoise_jax.build.processes import loss_weight, process, time_law
from geonoise_jax.build.specs import from_spec, frozen
from geonoise_jax.data import load, memory
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.circle_points import CirclesSpec, circles_frame
from geonoise_jax.data.load import load_arrays
from geonoise_jax.data.pipeline import mirror
from geonoise_jax.exact import Circles, Distribution, FiniteSet, Marginal

# Items that are brought to model space at once.
_CHUNK = 1024


def distribution(config: ConfigDict, split: str | None = None, *, working_memory: int = 2**30) -> Distribution:
    """Return the law of the data, in model space: what the optimum of training is the optimum for.

    Args:
        config: the config.
        split: the points of this split, each as probable as any other, and as its mirror image if the config flips
            images. None: the law that the data was drawn from where it is known (``circles``), and the points of the
            training split otherwise.
        working_memory: see :class:`geonoise_jax.exact.FiniteSet`.
    """
    if split is None and config.data.name == "circles":
        circles = CirclesSpec(**{key: frozen(value) for key, value in config.data.kwargs.items()})
        return Circles(circles.radii, circles.weights, circles_frame(circles.dim, circles.seed))
    return finite_set(config, split, working_memory=working_memory)


def finite_set(config: ConfigDict, split: str | None = None, *, working_memory: int = 2**30) -> FiniteSet:
    """Return the law of the points of a split, in model space; arguments as for :func:`distribution`."""
    return FiniteSet(model_points(arrays(config, split), flip=config.data.flip), working_memory=working_memory)


def model_points(data: Arrays, *, flip: bool = False) -> Float32[np.ndarray, "N *event"]:
    """Return the items of a data set in model space and, with ``flip``, their mirror images after them.

    Raises:
        ValueError: if they do not fit into memory; the message gives the sizes.
    """
    shape = ((1 + flip) * len(data), *data.event_shape)
    nbytes = math.prod(shape) * np.dtype(np.float32).itemsize * memory.device_copies()
    what = f"{shape[0]} points of {data.name}/{data.split}{' with mirror images' if flip else ''} in float32"
    memory.require(nbytes, what, "take a part of the split, such as 'train[:10%]'")
    points = np.empty(shape, np.float32)
    for start in range(0, len(data), _CHUNK):
        rows = data.to_model(data.events[start : start + _CHUNK])
        points[start : start + len(rows)] = rows
        if flip:
            points[len(data) + start : len(data) + start + len(rows)] = mirror(rows)
    return points


def marginal(config: ConfigDict, law: Distribution | None = None, *, accuracy: float | None = None) -> Marginal:
    """Return the exact fields of a config: the ones that its network, if blind or conditional, should approach.

    The prior of the noise level is time law x loss weight, as in the expected loss.

    Args:
        config: the config.
        law: law of the data, by default :func:`distribution` of the config.
        accuracy: see :class:`geonoise_jax.exact.Marginal`.
    """
    law = distribution(config) if law is None else law
    return Marginal(law, process(config), time_law(config), loss_weight(config), accuracy=accuracy)


def arrays(config: ConfigDict, split: str | None = None, *, sharing: int = 1) -> Arrays:
    """Return one split of the data set of a config, the training split by default.

    It is in memory, or read as needed where it does not fit or ``data.placement`` says so.
    A name that imports a function is called with the split and the kwargs, and must return ``Arrays``.

    Args:
        config: the config.
        split: the split.
        sharing: number of processes on this machine that open it, which share the memory.
    """
    split = split or config.data.split
    if not imports.is_import(config.data.name):
        placed = {"placement": config.data.placement, "sharing": sharing}
        return load_arrays(config.data.name, split, **_origin(config), **placed)
    return from_spec("data", config.data, {}, kind=Arrays, split=split)


def scaling(config: ConfigDict) -> tuple[float, float]:
    """Return center and scale of the data set of a config, see ``data.Arrays``, without reading it if it is no own."""
    if imports.is_import(config.data.name):
        data = arrays(config)
        return data.center, data.scale
    return load.scaling(config.data.name, **_origin(config))


def split_sizes(config: ConfigDict) -> dict[str, int]:
    """Return the number of items of each split of the data set of a config; none are known of an imported function."""
    if imports.is_import(config.data.name):
        return {}
    origin = _origin(config)
    return load.split_sizes(config.data.name, data_dir=origin["data_dir"], builder_kwargs=origin["builder_kwargs"])


def _origin(config: ConfigDict) -> dict[str, Any]:
    return {
        "data_dir": config.data.data_dir or None,
        "builder_kwargs": {key: frozen(value) for key, value in config.data.kwargs.items()},
        "value_range": frozen(config.data.range),
    }
