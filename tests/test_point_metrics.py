"""The sliced Wasserstein distance against brute force, quantiles and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from geonoise_jax.evaluation import point_metrics
from geonoise_jax.evaluation.point_metrics import sliced_wasserstein

SHAPES = [(1,), (3,), (8, 8, 1)]


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def assigned(x: np.ndarray, y: np.ndarray) -> float:
    """2-Wasserstein distance of two sets of one size on the line, by the best of all assignments."""
    cost = (x[:, None] - y[None, :]) ** 2
    return math.sqrt(cost[linear_sum_assignment(cost)].mean())


@pytest.mark.parametrize("size", [1, 2, 9, 40])
def test_on_the_line_it_is_the_optimal_assignment(size: int) -> None:
    x, y = draw(0, size), 2.0 * draw(1, size) + 0.5
    assert sliced_wasserstein(x[:, None], y[:, None]) == pytest.approx(assigned(x, y), rel=1e-12)
    # Ties, and a set without a second axis.
    x[: size // 2] = x[0]
    assert sliced_wasserstein(x, y) == pytest.approx(assigned(x, y), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (2, 3), (6, 4), (12, 30), (7, 31)])
def test_sets_of_different_sizes(n: int, m: int) -> None:
    """Each point of one set repeated as often as the other has points gives sets of one size, of the same laws."""
    x, y = draw(2, n), draw(3, m) - 1.0
    want = assigned(np.repeat(x, m), np.repeat(y, n))
    assert sliced_wasserstein(x[:, None], y[:, None]) == pytest.approx(want, rel=1e-12)
    quantile = (np.arange(200_000) + 0.5) / 200_000
    ordered = np.sort(x)[(quantile * n).astype(int)] - np.sort(y)[(quantile * m).astype(int)]
    assert want == pytest.approx(math.sqrt((ordered**2).mean()), rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_more_dimensions_it_is_the_mean_over_directions(shape: tuple[int, ...]) -> None:
    x, y = draw(4, 11, *shape), draw(5, 11, *shape) + 0.3
    directions = np.random.default_rng(7).standard_normal((math.prod(shape), 16))
    directions /= np.linalg.norm(directions, axis=0)
    each = [assigned(x.reshape(11, -1) @ v, y.reshape(11, -1) @ v) for v in directions.T]
    want = math.sqrt(np.mean(np.square(each)))
    assert sliced_wasserstein(x, y, num_projections=16, seed=7) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_a_distance_of_sets(shape: tuple[int, ...]) -> None:
    x, y = draw(6, 20, *shape), draw(7, 13, *shape)
    distance = sliced_wasserstein(x, y)
    assert distance > 0.1
    assert sliced_wasserstein(y, x) == pytest.approx(distance, rel=1e-12)
    assert sliced_wasserstein(x, x) == 0.0
    # The order of the points does not count, nor do copies of the whole set, nor the shape of a point.
    assert sliced_wasserstein(x[::-1], np.concatenate([y, y])) == pytest.approx(distance, rel=1e-12)
    assert sliced_wasserstein(x.reshape(20, -1), y.reshape(13, -1)) == distance
    assert sliced_wasserstein(3 * x - 1, 3 * y - 1) == pytest.approx(3 * distance, rel=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 16, 64])
def test_a_shift_by_v_is_v_over_root_d(dim: int) -> None:
    """E <v, theta>^2 = |v|^2 / D over unit directions."""
    x, v = draw(8, 30, dim), draw(9, dim)
    want = np.linalg.norm(v) / math.sqrt(dim)
    num = 20_000
    # <v, theta>^2 / |v|^2 follows Beta(1/2, (D-1)/2), of relative variance 2 (D-1) / (D+2).
    error = 0.5 * math.sqrt(2 * (dim - 1) / (dim + 2) / num)
    assert sliced_wasserstein(x, x + v, num_projections=num) == pytest.approx(want, rel=5 * error + 1e-9)


def test_directions_in_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(8, 30, 3), draw(9, 20, 3)
    whole = sliced_wasserstein(x, y)
    monkeypatch.setattr(point_metrics, "_ENTRIES", 700)
    assert sliced_wasserstein(x, y) == pytest.approx(whole, rel=1e-14)
    monkeypatch.setattr(point_metrics, "_ENTRIES", 1)
    assert sliced_wasserstein(x, y) == pytest.approx(whole, rel=1e-14)


def test_directions_come_from_the_seed() -> None:
    x, y = draw(10, 8, 5), draw(11, 8, 5)
    same = [sliced_wasserstein(x, y, num_projections=4) for _ in range(2)]
    assert same[0] == same[1] != sliced_wasserstein(x, y, num_projections=4, seed=1)


def test_single_precision_is_summed_in_double() -> None:
    x, y = draw(12, 50, 4).astype(np.float32) + 1e4, draw(13, 50, 4).astype(np.float32) + 1e4
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x.astype(np.float64), y.astype(np.float64))


NAN = np.array([[0.0, 1.0], [np.nan, 0.0], [0.0, np.inf]])
BAD: list[tuple[Any, Any, str]] = [
    (np.zeros((0, 2)), np.zeros((3, 2)), "x: must hold at least one point"),
    (np.zeros((3, 2)), np.zeros((0, 2)), "y: must hold at least one point"),
    (np.zeros((3, 2)), np.zeros((3, 3)), r"x.shape\[1:\] = \(2,\): must equal y.shape\[1:\] = \(3,\)"),
    (np.zeros((3, 4)), np.zeros((3, 2, 2)), r"x.shape\[1:\] = \(4,\): must equal y.shape\[1:\] = \(2, 2\)"),
    (NAN, np.zeros((3, 2)), "x: must be finite, but 2 of 3 points are not"),
    (np.zeros((3, 2)), NAN, "y: must be finite, but 2 of 3 points are not"),
]


@pytest.mark.parametrize(("x", "y", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_named(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(x, y)
