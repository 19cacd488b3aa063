"""Features of many images: in batches over a mesh, as a stream or as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.features.network import FeatureNetwork
from geonoise_jax.sampling.batches import by_rows, whole
from geonoise_jax.training.sharding import replicated

BATCH_SIZE = 64
NOT_FINITE = ("refuse", "mark")

Images = Shaped[np.ndarray, "n h w c"] | Iterable[Shaped[np.ndarray, "n h w c"]]


class Features(NamedTuple):
    """Features of images, row by row in their order.

    Attributes:
        features: float32 [N, d].
        logits: float32 [N, K], or None of a network without classes.
        not_finite: how many images held a number that is not finite; their rows are NaN.
    """

    features: Float[np.ndarray, "N d"]
    logits: Float[np.ndarray, "N k"] | None
    not_finite: int = 0


def extract(network: FeatureNetwork, images: Images, **options: Any) -> Features:
    """Return the features of images.

    Args:
        network: the network.
        images: see :func:`stream`.
        **options: of :func:`stream`.

    Raises:
        UserError: see :func:`stream`.
    """
    parts = list(stream(network, images, **options))
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(
        np.concatenate([part.features for part in parts]),
        np.concatenate(logits) if logits else None,
        sum(part.not_finite for part in parts),
    )


def stream(
    network: FeatureNetwork,
    images: Images,
    *,
    batch_size: int = BATCH_SIZE,
    mesh: Mesh | None = None,
    progress: Callable[[int], None] | None = None,
    not_finite: str = "refuse",
) -> Iterator[Features]:
    """Yield the features of images batch by batch, in their order and with memory for two batches.

    The last batch is filled up and the filling dropped: the features of an image depend on no other image, and, up to
    the rounding of floats, neither on the size of the batch nor on the number of devices.

    Args:
        network: the network.
        images: uint8, pixels 0..255, or floats of model space, -1..1; an array, or batches of any size one by one.
        batch_size: images computed at once over all devices, rounded up to a multiple of the devices.
        mesh: devices to split each batch over; None for one device.
        progress: called with the number of images finished.
        not_finite: what is done about images that hold a number that is not finite: ``refuse`` is an error, ``mark``
            makes their rows NaN and counts them.

    Raises:
        UserError: if there are no images, or they are none that the network takes, or not finite and refused.
    """
    checks.choice("not_finite", not_finite, NOT_FINITE)
    size = _batch_size(checks.integer("batch_size", batch_size, low=1), images, mesh)
    rows = None if mesh is None else by_rows(mesh)
    params = jax.device_put(network.params, None if mesh is None else replicated(mesh))
    done, waiting = 0, None
    for batch, count in _batches(images, size):
        # The devices compute this batch while the host reads the one before.
        now = network.compiled(params, jax.device_put(batch, rows)), count
        if waiting is not None:
            yield _to_host(*waiting, done, not_finite)
            done = _report(done + waiting[1], progress)
        waiting = now
    if waiting is None:
        raise UserError("images: 0; must be at least 1")
    yield _to_host(*waiting, done, not_finite)
    _report(done + waiting[1], progress)


def _batch_size(asked: int, images: Images, mesh: Mesh | None) -> int:
    wanted = asked
    if isinstance(images, (np.ndarray, jax.Array)):
        if images.ndim != 4:
            raise UserError(f"images.shape = {list(images.shape)}: must be [N, H, W, C]")
        wanted = max(1, min(asked, len(images)))
    return whole(wanted, mesh)


def _report(done: int, progress: Callable[[int], None] | None) -> int:
    if progress is not None:
        progress(done)
    return done


def _to_host(outputs: Any, count: int, done: int, not_finite: str) -> Features:
    features, logits, finite = outputs
    bad = np.flatnonzero(~np.asarray(finite)[:count])
    if bad.size and not_finite == "refuse":
        raise UserError(
            f"images: {bad.size} of {count} in a batch hold numbers that are not finite, the first at index "
            f"{done + bad[0]}; must be finite (not_finite='mark' counts them)"
        )
    kept = None if logits is None else np.asarray(logits, np.float32)[:count]
    return Features(np.asarray(features, np.float32)[:count], kept, int(bad.size))


def _batches(images: Images, size: int) -> Iterator[tuple[Shaped[np.ndarray, "{size} h w c"], int]]:
    """Yield batches of one size, the last one filled up with its first image, and how many of each count."""
    held: np.ndarray | None = None
    for part in _parts(images, size):
        if held is not None and (part.shape[1:], part.dtype) != (held.shape[1:], held.dtype):
            raise UserError(
                f"images: a batch is {part.dtype} {list(part.shape)} after {held.dtype} {list(held.shape)}; "
                "must be of one dtype and shape"
            )
        held = part if held is None or not len(held) else np.concatenate([held, part])
        while len(held) >= size:
            yield held[:size], size
            held = held[size:]
    if held is not None and len(held):
        yield np.concatenate([held, np.repeat(held[:1], size - len(held), axis=0)]), len(held)


def _parts(images: Images, size: int) -> Iterator[np.ndarray]:
    if not isinstance(images, (np.ndarray, jax.Array)):
        yield from map(np.asarray, images)
        return
    for start in range(0, len(images), size):
        yield np.asarray(images[start : start + size])
