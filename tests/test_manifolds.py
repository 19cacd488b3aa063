"""Precision, recall, density and coverage against brute force and the closed forms of equal laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from geonoise_jax.evaluation import manifolds
from geonoise_jax.evaluation.manifolds import coverage_of_equal_laws, density_coverage, precision_recall


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def brute(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage of samples x of data y."""
    cross = cdist(x, y)
    radius_x, radius_y = (np.sort(cdist(each, each), axis=1)[:, k] for each in (x, y))
    inside = cross <= radius_y[None]
    recalled = (cross <= radius_x[:, None]).any(axis=0)
    covered = cross.min(axis=0) <= radius_y
    return inside.any(axis=1).mean(), recalled.mean(), inside.sum(axis=1).mean() / k, covered.mean()


@pytest.mark.parametrize(("n", "m", "dim", "k"), [(40, 40, 1, 1), (150, 90, 3, 3), (60, 200, 16, 5), (41, 43, 2, 19)])
@pytest.mark.parametrize("entries", [2**23, 500])
def test_they_are_shares_of_balls(
    n: int, m: int, dim: int, k: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifolds, "_ENTRIES", entries)
    x, y = draw(0, n, dim), draw(1, m, dim) * 1.2 + 0.3
    (precision, recall), (density, coverage) = precision_recall(x, y, k=k), density_coverage(x, y, k=k)
    found = tuple(each.value for each in (precision, recall, density, coverage))
    assert found == pytest.approx(brute(x, y, k), rel=1e-12)


def test_the_jackknife_leaves_out_each_group() -> None:
    """Radii without a group are those of the set without it."""
    x, y = draw(2, 43, 2), draw(3, 51, 2)
    turns = np.arange(43) % 4, np.arange(51) % 4
    want = [0.0, 0.0, 0.0, 0.0]
    for part in (0, 1):
        share = np.bincount(turns[part]) / len(turns[part])
        without = [
            brute(x[turns[0] != group] if part == 0 else x, y[turns[1] != group] if part == 1 else y, 3)
            for group in range(4)
        ]
        whole = np.array(brute(x, y, 3))
        pseudo = (whole - (1.0 - share)[:, None] * without) / share[:, None]
        centre = 4 * whole - ((1.0 - share)[:, None] * without).sum(axis=0)
        want += ((pseudo - centre) ** 2 * (share / (1.0 - share))[:, None]).mean(axis=0)
    found = [*precision_recall(x, y, k=3, groups=4), *density_coverage(x, y, k=3, groups=4)]
    shares = np.array([each.value for each in found])
    binomial = np.sqrt(np.maximum(shares * (1.0 - shares), 0.0) / [43, 51, np.inf, 51])
    assert [each.spread for each in found] == pytest.approx(np.maximum(np.sqrt(want), binomial), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "m", "dim"),
    [(80, 200, 2), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((100, 100, 1), (200, 80, 8)))],
)
def test_samples_of_the_datas_law_have_the_density_and_coverage_of_the_closed_form(n: int, m: int, dim: int) -> None:
    """And their intervals contain them; those of precision contain its mean."""
    found = []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        x, y = (generator.standard_normal((num, dim)) for num in (n, m))
        found.append([*density_coverage(x, y), *precision_recall(x, y)])
    means = np.array([[each.value for each in row] for row in found]).mean(axis=0)
    errors = np.array([[each.value for each in row] for row in found]).std(axis=0) / 10.0
    want = [1.0, coverage_of_equal_laws(n, m), *means[2:]]
    assert (np.abs(means - want) < 4.0 * errors + 1e-12).all()
    hits = [sum(row[index].low <= want[index] <= row[index].high for row in found) for index in range(4)]
    assert min(hits) >= 90, hits


@pytest.mark.parametrize(("n", "m", "dim", "scale"), [(150, 120, 6, 0.8), (120, 100, 24, 1.2)])
def test_with_the_data_fixed_intervals_are_about_other_samples(n: int, m: int, dim: int, scale: float) -> None:
    """They contain the mean over sets of samples, and are narrower than those that are about other data too."""
    data = draw(7, m, dim)
    found, both = [], []
    for seed in range(100):
        x = scale * draw(1000 + seed, n, dim)
        found.append([*precision_recall(x, data, data_fixed=True), *density_coverage(x, data, data_fixed=True)])
        if seed < 4:
            both.append([*precision_recall(x, data), *density_coverage(x, data)])
    values, spreads = (
        np.array([[getattr(each, name) for each in row] for row in found]) for name in ("value", "spread")
    )
    means = values.mean(axis=0)
    hits = [sum(row[index].low <= means[index] <= row[index].high for row in found) for index in range(4)]
    assert min(hits) >= 89, hits
    assert (spreads.mean(axis=0) < 1.8 * values.std(axis=0, ddof=1)).all()
    assert (np.array([[each.spread for each in row] for row in both]).mean(axis=0) > 1.1 * spreads.mean(axis=0)).all()
    assert np.array([[each.value for each in row] for row in both]) == pytest.approx(values[:4])


def test_coverage_of_equal_laws_by_hand() -> None:
    """With one sample and k = 1: the sample is nearer than all other data with one chance in m."""
    assert coverage_of_equal_laws(1, 10, k=1) == pytest.approx(0.1)
    assert coverage_of_equal_laws(10**9, 10, k=3) == pytest.approx(1.0)


def test_lost_modes_cost_recall_and_outliers_precision() -> None:
    rng = np.random.default_rng(4)
    data = rng.standard_normal((300, 2)) + np.where(np.arange(300) % 4 == 0, 30.0, 0.0)[:, None]
    samples = rng.standard_normal((300, 2)) + np.where(np.arange(300) % 3 == 0, -30.0, 0.0)[:, None]
    precision, recall = precision_recall(samples, data)
    density, coverage = density_coverage(samples, data)
    assert precision.low < 2.0 / 3.0 < precision.high + 0.03
    assert recall.low < 0.75 < recall.high + 0.03
    assert density.low < 0.7 < density.high + 0.1
    assert 0.6 < coverage.value <= 0.75


def test_copies_are_inside_however_far_from_the_origin() -> None:
    data = np.repeat(draw(5, 30, 3), 3, axis=0) + 1e7
    precision, recall = precision_recall(data[::-1], data, k=2)
    assert (precision.value, recall.value) == (1.0, 1.0)
    assert precision.low < 1.0 == precision.high, "90 of 90 do not prove that all are"
    apart = precision_recall(data + 50.0, data, k=2).precision
    assert (apart.value, apart.low) == (0.0, 0.0)
    assert apart.high > 0.0


NAN = np.where(np.arange(80).reshape(40, 2) == 5, np.nan, 0.0)
X = draw(6, 50, 2)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: precision_recall(NAN, X), "samples: 1 of 40 rows are not finite; must be none"),
    (lambda: density_coverage(X, NAN), "data: 1 of 40 rows are not finite; must be none"),
    (lambda: precision_recall(X[:39], X), r"samples.shape\[0\] = 39: must be at least 40 points"),
    (lambda: precision_recall(X, X, k=25), r"samples.shape\[0\] = 50: must be at least 52 points"),
    (lambda: precision_recall(X, X, k=0), "k = 0: must be an integer >= 1"),
    (lambda: density_coverage(X, X[:, :1]), r"samples.shape\[1:\] = \(2,\): must equal data.shape\[1:\] = \(1,\)"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
