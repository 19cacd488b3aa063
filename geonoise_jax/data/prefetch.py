"""Batches read ahead of the step that takes them, in threads, of a bounded number of bytes.

A batch is a pure function of its step, so that nothing needs an iterator, its state or a queue of items: a pool of the
standard library that reads whole parts of batches does it. (Grain's pipelines of single items are three to six times
slower here, and fed with parts of batches are just such a pool.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

Index = Int[np.ndarray, "n"]
Part = dict[str, np.ndarray]

# Files and decoders leave the interpreter free.
WORKERS = min(8, os.cpu_count() or 1)
# Bytes of batches that are read ahead, but for one batch at least.
AHEAD_BYTES = 256 * 2**20
# Items that a thread reads at once, at least and at most.
_PART = (16, 256)
# Batches that are read ahead at most.
_DEPTH = 4


def depth(batch_bytes: int) -> int:
    """Return how many batches of this size are read ahead."""
    return max(1, min(_DEPTH, AHEAD_BYTES // max(batch_bytes, 1)))


class Prefetcher:
    """Reads the batches of the steps to come while one is used.

    A step that is asked for in turn is there or on its way, and the next are begun; any other is read at once.
    """

    def __init__(
        self, index: Callable[[int], Index], take: Callable[[Index], Part], *, ahead: int, workers: int = WORKERS
    ) -> None:
        """Start no thread yet.

        Args:
          index: returns the numbers of the items of a step.
          take: reads these items, arrays by name; called from threads.
          ahead: number of batches that are begun before they are asked for.
          workers: number of threads.
        """
        self._index, self._take, self._ahead, self._workers = index, take, ahead, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
        self._begun: dict[int, list[Future[Part]]] = {}
        self._last = -1

    def __call__(self, step: int) -> Part:
        """Return the batch of a step, and begin with the next ones.

        Raises:
          UnreadableItemError: an item of this step cannot be read; an error of later steps is theirs.
        """
        in_turn = not self._begun or step in self._begun or step == self._last + 1
        self._last = step
        parts = self._begun.pop(step, None) or self._begin(step)
        if in_turn:
            wanted = range(step + 1, step + 1 + self._ahead)
            self._drop(keep=wanted)
            self._begun |= {later: self._begin(later) for later in wanted if later not in self._begun}
        return _joined(parts)

    def close(self) -> None:
        """End the threads."""
        self._drop(keep=())
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, step: int) -> list[Future[Part]]:
        index = self._index(step)
        low, high = _PART
        size = min(max(-(-len(index) // self._workers), low), high)
        return [self._pool.submit(self._take, index[at : at + size]) for at in range(0, len(index), size)]

    def _drop(self, keep: Collection[int]) -> None:
        for step in [step for step in self._begun if step not in keep]:
            for part in self._begun.pop(step):
                part.cancel()


def _joined(parts: list[Future[Part]]) -> Part:
    read = [part.result() for part in parts]
    return {name: np.concatenate([part[name] for part in read]) for name in read[0]}
