"""Own data in memory: plain arrays and functions of one item."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geonoise_jax.data import Pipeline, from_items, from_numpy, memory
from tests.own_files import pixels

IMAGES = pixels(0, 12, 4, 6, 3)


def test_arrays_are_taken_as_they_are() -> None:
    arrays = from_numpy(IMAGES, [0, 1, 2, -1] * 3, class_names=["a", "b", "c"], name="mine")
    assert arrays.events is IMAGES
    assert (arrays.num_classes, arrays.center, arrays.scale, arrays.name) == (3, 127.5, 2 / 255, "mine")
    np.testing.assert_array_equal(arrays.labels, [0, 1, 2, -1] * 3)
    assert from_numpy([[1.0, 2.0]]).event_shape == (2,)
    assert from_numpy(IMAGES[..., 0]).event_shape == (4, 6, 1)
    assert from_numpy(np.moveaxis(IMAGES, -1, 1), channels_first=True).event_shape == (4, 6, 3)
    assert from_numpy(IMAGES / 255, value_range=(0, 1)).scale == 2.0


def test_an_item_without_a_class_is_shown_as_the_class_none() -> None:
    pipeline = Pipeline(from_numpy(IMAGES, [0, 1, 2, -1] * 3), 12, 0)
    labels = pipeline.decode(pipeline.batch(0), pipeline.resident)["labels"]
    assert sorted(np.asarray(labels).tolist()) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    np.testing.assert_array_equal(from_numpy(IMAGES, [-1] * 12).labels, None)


@pytest.mark.parametrize(
    ("events", "labels", "message"),
    [
        ("text", None, "events of arrays/train must be real numbers"),
        ([[1.0], [1.0, 2.0]], None, "must be an array of real numbers"),
        ([[True]], None, "got dtype bool"),
        ([1.0, 2.0], None, r"must be \[N, \*event\]"),
        (np.moveaxis(IMAGES, -1, 1), None, "looks like"),
        (IMAGES / 255, None, "would be taken for -1..1"),
        (IMAGES.astype(int), None, "must be uint8 or floating"),
        (IMAGES, [0, 1], r"labels of arrays/train: have shape \[2\]; must be \[12\]"),
        (IMAGES, ["a"] * 12, "must be integers"),
        (IMAGES, [0.5] * 12, "must be integers"),
    ],
)
def test_bad_arrays_are_refused(events: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_numpy(events, labels)


def test_a_function_is_called_once_for_each_item() -> None:
    asked: list[int] = []

    def read(row: int) -> tuple[np.ndarray, int]:
        asked.append(row)
        return IMAGES[row], row % 2

    arrays = from_items(read, 12, name="mine")
    assert asked == list(range(12))
    np.testing.assert_array_equal(arrays.events, IMAGES)
    np.testing.assert_array_equal(arrays.labels, np.arange(12) % 2)
    assert from_items(lambda row: IMAGES[row], 3).labels is None


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda row: IMAGES[row, : 4 - row], r"read\(1\): is uint8 \[3, 6, 3\], but read\(0\) is uint8 \[4, 6, 3\]"),
        (lambda row: IMAGES[row].astype(["u1", "u2"][row]), r"read\(1\): is uint16"),
        (lambda row: (IMAGES[row], row)[: 2 - row], r"read\(1\): must return an item and its class"),
        (lambda row: (IMAGES[row], "cat"), r"the class of read\(0\): have dtype"),
    ],
)
def test_items_that_differ_are_refused(read: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=message):
        from_items(read, 2)


def test_memory_is_looked_at_after_the_first_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 100)
    with pytest.raises(ValueError, match=r"9 items of shape \[4, 6, 3\], uint8: needs"):
        from_items(lambda row: IMAGES[row], 9)
