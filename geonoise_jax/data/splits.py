"""Splits and slices of splits, by the one syntax of TFDS for every kind of data set."""

from __future__ import annotations

from collections.abc import Mapping

from geonoise_jax.errors import UserError

Part = tuple[str, int, int]


def resolve(name: str, spec: str, sizes: Mapping[str, int]) -> list[Part]:
    """Return the parts of splits that a spec names.

    Args:
      name: name of the data set, for errors.
      spec: `train`, `train[:90%]`, `train[-100:]`, `train+test[:50]`, `all`, ...
      sizes: number of items of each split that there is.

    Returns:
      (split, start, stop) of each part, none empty.

    Raises:
      ValueError: no such split, a slice that cannot be read or leaves the split, or no items in it.
    """
    import tensorflow_datasets as tfds

    infos = {split: tfds.core.SplitInfo(name=split, shard_lengths=[n], num_bytes=0) for split, n in sizes.items()}
    known = ", ".join(f"{split} ({n} items)" for split, n in sizes.items())
    found = f"data.split = {spec!r} of data set {name!r}"
    try:
        absolute = tfds.core.ReadInstruction.from_spec(spec).to_absolute(infos)
    except (ValueError, KeyError, TypeError) as error:
        reason = _reason(str(error), sizes)
        raise UserError(
            f"{found}: {reason}; there is {known}, and slices of it such as train[:90%] or train[90%:]"
        ) from None
    parts = [
        (str(part.splitname), part.from_ or 0, sizes[str(part.splitname)] if part.to is None else part.to)
        for part in absolute
    ]
    parts = [part for part in parts if part[1] < part[2]]
    if not parts:
        raise UserError(f"{found}: holds no items; there is {known}")
    return parts


def _reason(message: str, sizes: Mapping[str, int]) -> str:
    if message.startswith("Unknown split"):
        return "no such split"
    if message.startswith("Requested slice"):
        return message.removesuffix(".").replace("Requested slice", "slice", 1).replace("examples", "items")
    return "is no split or slice of one" if sizes else "there are no splits"
