"""Streaming means and covariances against numpy's, merging and taking apart, and the files in which they are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.evaluation.moments import (
    Moments,
    accumulate,
    grouped,
    merged,
    moments,
    read_moments,
    write_moments,
)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_same(found: Moments, want: Moments, rel: float = 1e-12) -> None:
    assert found.count == want.count
    np.testing.assert_allclose(found.mean, want.mean, rtol=rel, atol=rel)
    np.testing.assert_allclose(found.covariance, want.covariance, rtol=0, atol=rel * np.abs(want.covariance).max())


@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (100, 4), (20_000, 3), (50, 2, 3)])
def test_they_are_numpys(shape: tuple[int, ...]) -> None:
    features = draw(0, *shape)
    flat = features.reshape(shape[0], -1)
    found = moments(features)
    assert_same(found, Moments(flat.mean(axis=0), np.cov(flat.T).reshape(2 * flat.shape[1:]), len(flat)))


@pytest.mark.parametrize("cuts", [[1], [1, 2, 3], [500, 999], [0, 1000], [7, 8, 700]])
def test_batches_of_any_size_give_the_same(cuts: list[int]) -> None:
    features = draw(1, 1000, 4)
    batches = [batch for batch in np.split(features, cuts) if len(batch)]
    assert_same(accumulate(batches), moments(features))
    assert_same(merged([moments(batch) for batch in batches[::-1]]), moments(features))


def test_a_large_mean_costs_no_digits() -> None:
    """Sums of squares would lose all of them."""
    features = draw(2, 5000, 3)
    far = features + 1e8
    exact = far - 1e8
    want = np.cov(exact.T)
    np.testing.assert_allclose(accumulate(np.array_split(far, 40)).covariance, want, rtol=1e-7, atol=1e-8)


def test_single_precision_is_summed_in_double() -> None:
    features = (draw(3, 4000, 3) + 50.0).astype(np.float32)
    assert_same(moments(features), moments(features.astype(np.float64)))


def test_parts_can_be_taken_out() -> None:
    features = draw(4, 300, 5) + 10.0
    whole = moments(features)
    assert_same(whole.without(moments(features[:40])), moments(features[40:]), rel=1e-11)
    one = whole.without(moments(features[1:]))
    np.testing.assert_allclose(one.mean, features[0], rtol=1e-12)
    np.testing.assert_allclose(one.covariance, 0.0, atol=1e-10)


@pytest.mark.parametrize("sizes", [[100], [1, 99], [33, 33, 34], [3, 4] * 14 + [2]])
def test_groups_do_not_depend_on_the_batches(sizes: list[int]) -> None:
    features = draw(5, 100, 2)
    found = grouped(np.split(features, np.cumsum(sizes)[:-1]), 7)
    for group, part in enumerate(found):
        assert_same(part, moments(features[group::7]))
    assert_same(merged(found), moments(features))


def test_files_keep_every_bit(tmp_path: Path) -> None:
    found = moments(draw(6, 30, 4))
    write_moments(tmp_path / "moments.npz", found)
    again = read_moments(tmp_path / "moments.npz")
    assert again.count == 30
    np.testing.assert_array_equal(again.mean, found.mean)
    np.testing.assert_array_equal(again.covariance, found.covariance)


def test_published_files_have_no_count_and_other_arrays(tmp_path: Path) -> None:
    found = moments(draw(7, 50, 3))
    published: dict[str, Any] = {"mu": found.mean.astype(np.float32), "sigma": found.covariance.astype(np.float32)}
    np.savez(tmp_path / "published.npz", **published, mu_s=np.zeros(7), sigma_s=np.zeros((7, 7)), arr_0=np.zeros(3))
    again = read_moments(tmp_path / "published.npz")
    assert again.count is None
    assert again.spans
    np.testing.assert_allclose(again.covariance, found.covariance, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="Moments.count = None: must be known"):
        again.merge(found)


EYE = np.eye(2)
FILES: list[tuple[dict[str, Any], str]] = [
    ({"mu": np.zeros(2)}, "has arrays mu; must have mu and sigma"),
    ({"mu": np.zeros(3), "sigma": EYE}, r"has mu \[3\] and sigma \[2, 2\]; must be \[d\] and \[d, d\]"),
    ({"mu": np.zeros((1, 2)), "sigma": EYE}, r"has mu \[1, 2\] and sigma \[2, 2\]"),
    ({"mu": np.array([np.nan, 0.0]), "sigma": EYE}, "1 of 2 entries of mu are not finite"),
    ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.inf)}, "4 of 4 entries of sigma are not finite"),
    ({"mu": np.zeros(2), "sigma": np.array([[1, 0.1], [0, 1]])}, "sigma differs from its transpose by 0.1"),
    ({"mu": np.zeros(2), "sigma": -EYE}, "sigma has the eigenvalue -1; must be positive semi-definite"),
]


@pytest.mark.parametrize(("arrays", "message"), FILES, ids=[message for _, message in FILES])
def test_files_that_hold_no_moments(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_moments(tmp_path / "bad.npz")


NAN = np.array([[0.0, 1.0], [np.nan, 0.0], [0.0, np.inf]])
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: moments(NAN), "features: 2 of 3 rows are not finite; must be none"),
    (lambda: moments(np.zeros((0, 2))), r"features.shape\[0\] = 0: must be at least 1 points"),
    (lambda: moments(np.zeros((2, 0))), "features.shape = .2, 0.: must have at least one coordinate"),
    (lambda: accumulate([]), "features: must be at least 1 item"),
    (lambda: accumulate([np.zeros((2, 2)), np.zeros((2, 3))]), r"must equal Moments.mean.shape\[1:\] = \(2,\)"),
    (lambda: moments(np.array([["a"]])), "features = .*: must be real points"),
    (lambda: grouped([np.zeros((9, 2))], 5), r"features.shape\[0\] = 9: must be at least 10, two for each of 5"),
    (lambda: grouped([np.zeros((9, 2))], 1), "groups = 1: must be an integer >= 2"),
    (
        lambda: moments(np.zeros((2, 2))).without(moments(np.zeros((2, 2)))),
        "part.count = 2: must be smaller than the 2",
    ),
    (lambda: Moments(np.zeros(2), np.eye(3)), r"Moments.covariance.shape = \[3, 3\]: must be \[2, 2\]"),
    (lambda: Moments(np.zeros(2), np.eye(2), 0), "Moments.count = 0: must be an integer >= 1"),
    (lambda: Moments(np.full(2, np.nan), np.eye(2)), "Moments.mean: must be finite"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
