"""Digits: the real data, divided once and for all, with no TensorFlow anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from geonoise_jax.data import Arrays, load_arrays

Splits = dict[str, Arrays]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    data_dir = tmp_path_factory.mktemp("digits")
    return {split: load_arrays("digits", split, data_dir=data_dir) for split in ("train", "test")}


def test_both_splits_together_are_the_published_digits(splits: Splits) -> None:
    """As multisets, so the splits are disjoint too: no row is in both unless it is twice in the original."""
    digits = load_digits()
    published = _rows(digits.images.astype(np.uint8), digits.target)
    rows = [row for arrays in splits.values() for row in _rows(arrays.events, _labels(arrays))]
    assert sorted(rows) == published


def test_sizes_types_and_range(splits: Splits) -> None:
    assert {name: arrays.events.shape for name, arrays in splits.items()} == {
        "train": (1437, 8, 8, 1),
        "test": (360, 8, 8, 1),
    }
    for arrays in splits.values():
        assert (str(arrays.events.dtype), arrays.events.min(), arrays.events.max()) == ("uint8", 0, 16)
        assert arrays.num_classes == 10
        x = arrays.to_model(arrays.events)
        assert (str(x.dtype), x.min(), x.max()) == ("float32", -1.0, 1.0)


def test_split_is_stratified(splits: Splits) -> None:
    """Each class has its share of the test split to within one item."""
    counts = {name: np.bincount(_labels(arrays), minlength=10) for name, arrays in splits.items()}
    share = (counts["train"] + counts["test"]) * 360 / 1797
    assert np.abs(counts["test"] - share).max() < 1


def test_prepared_again_elsewhere_it_is_the_same(splits: Splits, tmp_path: Path) -> None:
    again = load_arrays("digits", "test", data_dir=tmp_path)
    np.testing.assert_array_equal(again.events, splits["test"].events)
    np.testing.assert_array_equal(_labels(again), _labels(splits["test"]))


def test_sub_splits_are_slices(tmp_path: Path, splits: Splits) -> None:
    part = load_arrays("digits", "test[:10]", data_dir=tmp_path)
    np.testing.assert_array_equal(part.events, splits["test"].events[:10])


def test_no_tensorflow_and_a_cheap_import(tmp_path: Path) -> None:
    """In a fresh interpreter: importing the package imports no TFDS; TFDS is silent, and logging works afterwards."""
    program = f"""
import sys
import geonoise_jax.data as data
assert not {{"tensorflow_datasets", "flax", "sklearn"}} & set(sys.modules)
train = data.load_arrays("digits", "train", data_dir={str(tmp_path)!r})
circles = data.load_arrays("circles", "test", data_dir={str(tmp_path)!r}, builder_kwargs={{"num_train": 9}})
data.Pipeline(train, 4, 0).batch(0)
assert len(train) == 1437
assert "tensorflow" not in sys.modules
from absl import logging
logging.warning("heard")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "WARNING:absl:heard\n")


def _labels(arrays: Arrays) -> np.ndarray:
    assert arrays.labels is not None
    return arrays.labels


def _rows(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
