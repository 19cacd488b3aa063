"""An endless stream of shuffled batches in which the batch of step s is a pure function of (seed, s).

Position p = s B + j of the stream (step s, item j of a batch of B) lies in epoch e = p // N and shows the item
permutation(seed, e)[p % N]: every item comes once per epoch, batches run across the ends of epochs, and there is no
iterator state to save. The batch does not depend on the number of processes; each makes its own contiguous slice.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key

from geonoise_jax import checks
from geonoise_jax.data.arrays import NO_CLASS, AnyArray, Arrays
from geonoise_jax.data.augmentation import Augmentation
from geonoise_jax.data.streams import stream
from geonoise_jax.errors import UserError

# What `decode` takes: arrays by name, on the host or on the devices.
Batch = Mapping[str, np.ndarray | Array]

PLACEMENTS = ("auto", "host", "device", "stream")
# Small beside the memory of any accelerator, and enough for CIFAR-10 six times over.
DEVICE_BUDGET_BYTES = 1 << 30
_CACHED_EPOCHS = 4
# Of the key of a step, which mirrors images as it is.
_AUGMENT_STREAM = 1


def resolved(placement: str, nbytes: int, budget: int = DEVICE_BUDGET_BYTES, share: int | None = None) -> str:
    """Return where data go: as the placement says, and with ``auto`` to the fastest place in which they fit.

    Args:
      placement: one of `PLACEMENTS`.
      nbytes: their size.
      budget: bytes that are put on devices.
      share: bytes that this process may hold; None for any number.
    """
    if placement != "auto":
        return placement
    if share is not None and nbytes > share:
        return "stream"
    return "device" if nbytes <= budget else "host"


class Pipeline:
    """Batches of a data set for one process of a run.

    A trainer puts `resident` on its devices once (replicated), and then for each step makes `batch(step)` on the host,
    sends it, and calls `decode(batch, resident)` inside the jitted step. With placement `device` the data set itself is
    resident and a batch is only the numbers of its items; with `host` a batch holds the stored items, and with `stream`
    too, read from their files. All decode to the same bits.

    Attributes:
      arrays: the data set.
      batch_size: global batch size B.
      local_batch_size: size b = B / process_count of this process's slice.
      placement: "host", "device" or "stream", after `auto` is resolved.
    """

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        seed: int,
        *,
        placement: str = "auto",
        process_index: int | None = None,
        process_count: int | None = None,
        device_budget_bytes: int = DEVICE_BUDGET_BYTES,
        flip: bool = False,
        augment: Augmentation | None = None,
    ) -> None:
        """Set up the stream; costs nothing.

        Args:
          arrays: the data set, N items. B may exceed N.
          batch_size: global batch size B, divisible by the number of processes.
          seed: seed of the order, at least 0.
          placement: "host", "device", or "auto": device if the data set fits the budget. A set that is read as needed
            is "stream" with "auto", and one in memory "host" with "stream".
          process_index: rank of this process; `jax.process_index()` when None.
          process_count: number of processes; `jax.process_count()` when None.
          device_budget_bytes: largest data set that `auto` puts on the devices.
          flip: mirror each image left-right with probability 1/2 in `decode`.
          augment: what `decode` does to images, and tells the network of; None for nothing.

        Raises:
          ValueError: an argument is out of its range (the message names it).
        """
        if placement not in PLACEMENTS:
            raise UserError(f"placement must be one of {PLACEMENTS}, got {placement!r}")
        for name, given in (("flip", flip), ("augment", augment is not None)):
            if given and not arrays.is_image:
                raise UserError(f"{name} needs images [H, W, C], got events of shape {arrays.event_shape}")
        count = jax.process_count() if process_count is None else checks.integer("process_count", process_count, low=1)
        rank = jax.process_index() if process_index is None else checks.integer("process_index", process_index, low=0)
        if rank >= count:
            raise UserError(f"process_index must be below process_count={count}, got {rank}")
        self.arrays = arrays
        self.batch_size = checks.integer("batch_size", batch_size, low=1)
        if self.batch_size % count:
            raise UserError(f"batch_size must be divisible by process_count={count}, got {batch_size}")
        self.local_batch_size = self.batch_size // count
        self.placement = _placement(placement, arrays, device_budget_bytes)
        self._flip, self._augment = flip, augment
        self._first = rank * self.local_batch_size
        self._order = functools.lru_cache(_CACHED_EPOCHS)(
            functools.partial(epoch_order, checks.integer("seed", seed, low=0), size=len(arrays))
        )

    @property
    def resident(self) -> dict[str, np.ndarray]:
        """What `decode` needs on the devices, to be put there once: the data set, or nothing with placement `host`."""
        if self.placement != "device":
            return {}
        stored: dict[str, Any] = {"events": self.arrays.events, "labels": self.arrays.labels}
        return {name: values for name, values in stored.items() if values is not None}

    def index(self, step: int) -> Int32[np.ndarray, "b"]:
        """Return which items this process's slice of the batch of `step` shows.

        Raises:
          ValueError: `step` is not an integer or is negative.
        """
        first = checks.integer("step", step, low=0) * self.batch_size + self._first
        epochs, offsets = np.divmod(first + np.arange(self.local_batch_size, dtype=np.int64), len(self.arrays))
        parts = [self._order(epoch)[offsets[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)]
        return np.concatenate(parts)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Make this process's slice of the batch of `step`, a pure function of (seed, step).

        Returns:
          `{"index": int32 [b]}` with placement `device`, else `{"events": [b, *event] as stored, "labels": int32 [b]}`
          (without labels if the data set has none).

        Raises:
          ValueError: `step` is not an integer or is negative, or an item cannot be read.
        """
        return self.rows(step, slice(None))

    def rows(self, step: int, rows: slice | Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Make some rows of this process's slice of the batch of `step`, all that is copied or read; see `batch`."""
        return self.take(self.index(step)[rows])

    def take(self, index: Int32[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Make the rows of a batch that show these items."""
        return {"index": index} if self.placement == "device" else self.arrays.take(index)

    def decode(self, batch: Batch, resident: Batch, key: Key[Array, ""] | None = None) -> dict[str, Array]:
        """Turn a batch into what a loss takes; pure JAX, to be called inside jit on the global batch.

        Args:
          batch: the result of `batch`, on the devices.
          resident: the result of `resident`, on the devices.
          key: random key of the step, needed with `flip` and `augment`: what is done to row i is a function of this
            key and i alone.

        Returns:
          `{"x": float32 [B, *event] in model space, "labels": int32 [B]}` (without labels if the data set has none),
          with `augment` also `"augment"`, [B, augment.labels]. An item without a class has the label `num_classes`,
          which networks know as none.

        Raises:
          ValueError: `flip` or `augment` is on and there is no key.
        """
        if key is None and (self._flip or self._augment is not None):
            raise UserError("key must be given to decode when flip=True or with augment")
        if self.placement == "device":
            batch = {name: jnp.take(values, batch["index"], axis=0, mode="clip") for name, values in resident.items()}
        x = self.arrays.to_model(jnp.asarray(batch["events"]))
        classes = {"labels": self._classes(jnp.asarray(batch["labels"]))} if "labels" in batch else {}
        if key is not None and self._flip:
            x = _mirrored(x, key)
        if key is None or self._augment is None:
            return {"x": x, **classes}
        x, told = self._augment(x, jax.random.fold_in(key, _AUGMENT_STREAM))
        return {"x": x, "augment": told, **classes}

    def _classes(self, labels: Int32[Array, "B"]) -> Int32[Array, "B"]:
        return jnp.where(labels == NO_CLASS, jnp.int32(self.arrays.num_classes or 0), labels)


def _placement(asked: str, arrays: Arrays, budget: int) -> str:
    if not arrays.is_streamed:
        return "host" if asked == "stream" else resolved(asked, arrays.nbytes, budget)
    if asked not in ("auto", "stream"):
        raise UserError(
            f"placement must be auto or stream for {arrays.name}/{arrays.split}, read as needed, got {asked!r}"
        )
    return "stream"


def epoch_order(seed: int, epoch: int, *, size: int) -> Int32[np.ndarray, "N"]:
    """Return the order in which epoch `epoch` shows the `size` items: a permutation, the same in every process."""
    return stream("epoch", seed, epoch).permutation(size).astype(np.int32)


def mirror(x: Float[AnyArray, "B H W C"]) -> Float[AnyArray, "B H W C"]:
    """Return the images mirrored left-right."""
    return x[:, :, ::-1]


def _mirrored(x: Float[Array, "B H W C"], key: Key[Array, ""]) -> Float[Array, "B H W C"]:
    """Mirror each image left-right with probability 1/2."""
    chosen = jax.random.bernoulli(key, shape=(x.shape[0], 1, 1, 1))
    return jnp.where(chosen, mirror(x), x)
