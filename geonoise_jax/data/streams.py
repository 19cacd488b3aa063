"""Independent random streams named by a purpose and integers."""

from __future__ import annotations

import zlib

import numpy as np


def stream(purpose: str, *key: int) -> np.random.Generator:
    """Return the generator of one purpose and key, e.g. `stream("epoch", seed, epoch)`.

    The purpose enters the seed, so that two uses of the same numbers (the points drawn from `(seed, 1)` and the shuffle
    of epoch 1) are independent. Philox is counter-based: making one costs microseconds and touches no global state.

    Args:
      purpose: name of the use.
      *key: non-negative integers, e.g. a seed and an epoch.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((zlib.crc32(purpose.encode()), *key))))
