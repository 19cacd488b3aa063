"""Batches read ahead: the same, in turn or not, a bounded number of them, errors where they belong."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from geonoise_jax.data import prefetch
from geonoise_jax.data.prefetch import AHEAD_BYTES, Prefetcher, depth
from geonoise_jax.data.rows import UnreadableItemError

BATCH = 50


class Source:
    """Items that are ten times their numbers, and what was asked of them."""

    def __init__(self, bad: int | None = None) -> None:
        self.steps: list[int] = []
        self.bad, self.live, self.most, self.lock = bad, 0, 0, threading.Lock()

    def index(self, step: int) -> np.ndarray:
        self.steps.append(step)
        return np.arange(step * BATCH, (step + 1) * BATCH)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        with self.lock:
            self.live += 1
            self.most = max(self.most, self.live)
        time.sleep(0.001)
        with self.lock:
            self.live -= 1
        if self.bad is not None and self.bad in index:
            raise UnreadableItemError(f"item {self.bad}")
        return {"events": 10 * index, "labels": -index}


def reader(source: Source, ahead: int = 3, workers: int = 4) -> Prefetcher:
    return Prefetcher(source.index, source.take, ahead=ahead, workers=workers)


def check(batch: dict[str, np.ndarray], step: int) -> None:
    np.testing.assert_array_equal(batch["events"], 10 * np.arange(step * BATCH, (step + 1) * BATCH))
    np.testing.assert_array_equal(batch["labels"], -np.arange(step * BATCH, (step + 1) * BATCH))


def test_batches_in_turn_are_begun_once_and_not_further_ahead() -> None:
    source = Source()
    read = reader(source)
    for step in range(5, 25):
        check(read(step), step)
        assert source.steps == list(range(5, step + 4))
    read.close()
    assert source.most <= 4


@pytest.mark.parametrize("steps", [[0, 1, 0, 2, 3], [3, 4, 0, 5, 6], [7, 8, 0, 1, 2, 3], [2, 2, 2, 3], [9, 3, 9, 10]])
def test_any_other_step_is_read_as_well(steps: list[int]) -> None:
    read = reader(Source())
    for step in steps:
        check(read(step), step)
    read.close()


def test_a_look_aside_keeps_what_is_begun() -> None:
    source = Source()
    read = reader(source)
    for step in (4, 5, 0, 6):
        check(read(step), step)
    assert sorted(source.steps) == [0, 4, 5, 6, 7, 8, 9]
    read.close()


def test_a_new_start_is_read_ahead_too() -> None:
    source = Source()
    read = reader(source)
    for step in (4, 5, 0, 1, 2):
        check(read(step), step)
    assert source.steps[-1] == 5
    assert source.steps.count(2) == 1
    read.close()


def test_an_error_is_raised_at_its_step() -> None:
    read = reader(Source(bad=3 * BATCH + 7))
    for step in range(3):
        check(read(step), step)
    with pytest.raises(UnreadableItemError, match="item 157"):
        read(3)
    check(read(4), 4)
    read.close()


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    read = reader(Source())
    read(0)
    read.close()
    assert threading.active_count() == before


def test_the_bytes_that_are_read_ahead_are_bounded() -> None:
    assert [depth(size) for size in (1, AHEAD_BYTES // 4, AHEAD_BYTES // 2, AHEAD_BYTES, 10 * AHEAD_BYTES)] == [
        *(prefetch._DEPTH, prefetch._DEPTH, 2, 1, 1)
    ]
