"""Slices of splits: the syntax of TFDS, and what is said of others."""

from __future__ import annotations

import pytest

from geonoise_jax.data.splits import resolve

SIZES = {"train": 100, "test": 7}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("train", [("train", 0, 100)]),
        ("train[:90%]", [("train", 0, 90)]),
        ("train[90%:]", [("train", 90, 100)]),
        ("train[-5:]", [("train", 95, 100)]),
        ("test[:50%]", [("test", 0, 4)]),
        ("train[:2]+test", [("train", 0, 2), ("test", 0, 7)]),
        ("train[3:3]+test", [("test", 0, 7)]),
        ("all", [("train", 0, 100), ("test", 0, 7)]),
    ],
)
def test_slices_are_those_of_tfds(spec: str, parts: list[tuple[str, int, int]]) -> None:
    assert resolve("mine", spec, SIZES) == parts


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("val", "no such split"),
        ("train[10:10]", "holds no items"),
        ("train[20:10]", "holds no items"),
        ("train[:1000]", r"slice \[:1000\] incompatible with 100 items"),
        ("train[", "is no split or slice of one"),
        ("", "is no split or slice of one"),
        ("train[:150%]", "is no split or slice of one"),
    ],
)
def test_others_are_refused_with_the_splits_that_there_are(spec: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        resolve("mine", spec, SIZES)
    message = str(caught.value)
    assert message.startswith(f"data.split = {spec!r} of data set 'mine': ")
    assert "there is train (100 items), test (7 items)" in message
    assert "\n" not in message
