"""Arrays: the way between stored values, model space and pictures."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build
from geonoise_jax.data import Arrays, memory
from geonoise_jax.drawing.pictures import to_pixels

PIXELS: dict[str, Any] = {"center": 127.5, "scale": 2 / 255}


def images(top: int = 255) -> Arrays:
    """One image per grey level, so that every stored value occurs."""
    events = np.arange(top + 1, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    return Arrays(events=events, center=top / 2, scale=2 / top)


@pytest.mark.parametrize("top", [16, 255])
def test_model_space_is_rounded_once_symmetric_and_ends_at_one(top: int) -> None:
    arrays = images(top)
    x = arrays.to_model(arrays.events)[:, 0, 0, 0]
    assert x.dtype == np.float32
    assert (x[0], x[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(x, -x[::-1])
    np.testing.assert_allclose(x, 2 * np.arange(top + 1) / top - 1, rtol=2**-23)


def test_model_space_is_the_same_in_numpy_and_jit() -> None:
    arrays = images()
    np.testing.assert_array_equal(jax.jit(arrays.to_model)(jnp.asarray(arrays.events)), arrays.to_model(arrays.events))


def test_vectors_are_unchanged() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(Arrays(events=points).to_model(points), points)


def test_pictures_of_8_bit_images_are_the_images() -> None:
    arrays = images()
    np.testing.assert_array_equal(to_pixels(arrays.to_model(arrays.events)), arrays.events)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"events": np.zeros((0, 3))}, "events"),
        ({"events": np.zeros((4, 0))}, "events"),
        ({"events": np.zeros(4)}, "events"),
        ({"scale": 0.0}, "scale"),
        ({"center": float("nan")}, "center"),
        ({"events": np.array([[0.0], [np.nan]])}, r"must be finite numbers .*, but 1 of 2 .* index 1: nan"),
        ({"events": np.array([[0.0], [-np.inf]])}, "arrays/train must be finite numbers"),
        ({"events": np.full((1, 2, 2, 1), 255.0)}, r"have values 255..255, .* and must be in \[-1, 1\]"),
        ({"events": np.full((1, 2, 2, 1), -1.5)}, r"have values -1.5..-1.5, .* by data.range in a config"),
        ({"events": np.full((1, 2, 2, 1), 17, np.uint8), "center": 8.0, "scale": 1 / 8}, "17..17, which are 1.125.."),
        ({"labels": np.zeros(3, np.int32), "num_classes": 1}, "labels"),
        ({"labels": np.zeros(4, np.int64), "num_classes": 1}, "labels"),
        ({"labels": np.zeros(4, np.int32)}, "num_classes"),
        (
            {"labels": np.full(4, 2, np.int32), "num_classes": 2},
            r"in 0..1 \(num_classes.*: 4 of 4 .* 0 is 2",
        ),
        (
            {"labels": np.array([0, -1, 1, -2], np.int32), "num_classes": 2},
            "1 of 4 .* index 3 is -2",
        ),
        ({"labels": np.zeros(4, np.int32), "num_classes": 2, "class_names": ("one",)}, "class_names .* must be 2"),
        ({"events": np.zeros((4, 3), bool)}, "must be real numbers, got dtype bool"),
        ({"events": np.array([[0.0], [1e39]])}, r"1 of 2 items hold others, the first at index 1: 1e\+39"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(**{"events": np.zeros((4, 3)), **fields})


def test_the_checksum_tells_data_sets_apart() -> None:
    base = images()
    changed = base.events.copy()
    changed[200, 1, 2, 0] ^= 1
    labels = np.zeros(256, np.int32)
    others = [
        dataclasses.replace(base, events=changed),
        dataclasses.replace(base, events=base.events[:255]),
        dataclasses.replace(base, events=base.events[::-1]),
        dataclasses.replace(base, labels=labels, num_classes=2),
        dataclasses.replace(base, labels=labels + 1, num_classes=2),
    ]
    assert base.checksum() == images().checksum()
    assert len({each.checksum() for each in (base, *others)}) == 6


@pytest.mark.parametrize("flip", [False, True])
def test_points_in_model_space_need_no_memory_beside_themselves(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Arrays(events=np.random.default_rng(0).integers(0, 256, (5000, 16, 16, 1)).astype(np.uint8), **PIXELS)
    whole = data.to_model(data.events)
    tracemalloc.start()
    points = build.model_points(data, flip=flip)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(points, np.concatenate([whole, whole[:, :, ::-1]]) if flip else whole)
    # Some temporary arrays of a chunk of 1024.
    assert peak < points.nbytes + 4 * 1024 * 256 * 4
    needed = memory.device_copies() * points.nbytes
    monkeypatch.setattr(memory, "available", lambda: needed)
    assert len(build.model_points(data, flip=flip)) == len(points)
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    what = f"{len(points)} points of arrays/train{' with mirror images' if flip else ''} in float32"
    with pytest.raises(ValueError, match=rf"{what}: needs \S+ GiB of memory, of which \S+ GiB are available; take a"):
        build.model_points(data, flip=flip)
