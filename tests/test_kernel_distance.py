"""Kernel distances against brute force and closed forms, and their intervals against the distances of known laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import erf

from geonoise_jax.evaluation import kernel_sums
from geonoise_jax.evaluation.floors import floor, with_spread
from geonoise_jax.evaluation.kernel_distance import (
    energy,
    energy_distance,
    gaussian,
    gaussian_mmd,
    kid,
    median_bandwidth,
    polynomial,
    polynomial_mmd,
)
from geonoise_jax.evaluation.kernel_sums import Kernel, KernelDistance


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


KERNELS: dict[str, tuple[Kernel, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "polynomial": (polynomial(), lambda x, y: (x @ y.T / x.shape[1] + 1.0) ** 3),
    "gaussian": (gaussian(1.5), lambda x, y: np.exp(-cdist(x, y, "sqeuclidean") / 4.5)),
    "energy": (energy(), lambda x, y: -cdist(x, y)),
}


def brute(values: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    own, other = (values(each, each)[~np.eye(len(each), dtype=bool)].mean() for each in (x, y))
    return float(own + other - 2.0 * values(x, y).mean())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("n", "m", "dim", "entries"), [(2, 2, 1, 2**23), (60, 43, 5, 300), (41, 150, 16, 2**23)])
def test_they_are_means_over_pairs(
    name: str, n: int, m: int, dim: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in blocks of a few rows, and in float64 where jax's default is float32."""
    monkeypatch.setattr(kernel_sums, "_ENTRIES", entries)
    assert not jax.config.read("jax_enable_x64")
    kernel, values = KERNELS[name]
    x, y = draw(0, n, dim), draw(1, m, dim) + 0.2
    want = brute(values, x, y)
    assert KernelDistance(y, kernel)(x) == pytest.approx(want, rel=1e-10, abs=1e-14)
    groups = min(20, n // 2, m // 2)
    if groups > 1:
        assert KernelDistance(y, kernel, groups=groups).estimate(x).value == pytest.approx(want, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("name", KERNELS)
def test_the_jackknife_leaves_out_each_group(name: str) -> None:
    kernel, values = KERNELS[name]
    x, y = draw(2, 23, 3), draw(3, 31, 3)
    variance = 0.0
    for left, right, both in ((x, y, lambda a, b: (a, b)), (y, x, lambda a, b: (b, a))):
        turn = np.arange(len(left)) % 5
        share = np.bincount(turn) / len(left)
        without = np.array([brute(values, *both(left[turn != group], right)) for group in range(5)])
        whole = brute(values, x, y)
        pseudo = (whole - (1.0 - share) * without) / share
        centre = 5 * whole - ((1.0 - share) * without).sum()
        variance += ((pseudo - centre) ** 2 * share / (1.0 - share)).mean()
    assert KernelDistance(y, kernel, groups=5).estimate(x).spread == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_far_from_the_origin_no_digits_are_lost() -> None:
    x, y = draw(4, 50, 3), draw(5, 60, 3)
    for measure in (energy_distance, lambda x, y: gaussian_mmd(x, y, bandwidth=1.0)):
        assert measure(x + 1e6, y + 1e6).value == pytest.approx(measure(x, y).value, rel=1e-6)


def energy_between(shift: float, scale: float) -> float:
    """Of N(0, 1) and N(shift, scale^2): means of |N(m, s^2)|."""

    def mean(m: float, s: float) -> float:
        return float(s * np.sqrt(2.0 / np.pi) * np.exp(-0.5 * m * m / s**2) + m * erf(m / s / np.sqrt(2.0)))

    return 2.0 * mean(shift, np.hypot(1.0, scale)) - mean(0.0, np.sqrt(2.0)) - mean(0.0, scale * np.sqrt(2.0))


def gaussian_between(shift: float, scale: float, width: float, dim: int) -> float:
    def mean(variance: float) -> float:
        return float((width**2 / (width**2 + variance)) ** (dim / 2))

    cross = mean(1.0 + scale**2) * np.exp(-0.5 * shift**2 / (width**2 + 1.0 + scale**2))
    return mean(2.0) + mean(2.0 * scale**2) - 2.0 * float(cross)


def polynomial_between(shift: float, scale: float) -> float:
    """(1 + xy)^3 in one dimension: the squared differences of the moments, weighted 3, 3 and 1."""
    moments = shift, shift**2 + scale**2 - 1.0, shift**3 + 3.0 * shift * scale**2
    return 3.0 * moments[0] ** 2 + 3.0 * moments[1] ** 2 + moments[2] ** 2


LAWS = [(0.0, 1.0), (0.05, 1.0), (0.5, 1.3)]


@pytest.mark.parametrize(("shift", "scale"), LAWS)
def test_intervals_contain_the_distance_of_the_laws(shift: float, scale: float) -> None:
    hits = {"energy": 0, "gaussian": 0, "polynomial": 0}
    for seed in range(100):
        generator = np.random.default_rng(seed)
        one = generator.standard_normal((200, 1)), scale * generator.standard_normal((300, 1)) + shift
        found = {
            "energy": (energy_distance(*one), energy_between(shift, scale)),
            "gaussian": (gaussian_mmd(*one, bandwidth=0.7), gaussian_between(shift, scale, 0.7, 1)),
            "polynomial": (polynomial_mmd(*one), polynomial_between(shift, scale)),
        }
        for name, (estimate, want) in found.items():
            hits[name] += estimate.low <= want <= estimate.high
    assert min(hits.values()) >= 90, hits


@pytest.mark.parametrize("dim", [2, 8])
def test_closed_form_of_the_gaussian_kernel_in_more_dimensions(dim: int) -> None:
    x, y = draw(20, 2000, dim), 1.3 * draw(21, 2000, dim) + 0.5 / np.sqrt(dim)
    found = gaussian_mmd(x, y, bandwidth=3.0)
    assert abs(found.value - gaussian_between(0.5, 1.3, 3.0, dim)) < 3.5 * found.spread


@pytest.mark.parametrize("share", [0.1, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("shift", "scale"), LAWS)
def test_the_interval_of_kid_contains_the_distance_of_the_laws(shift: float, scale: float, share: float) -> None:
    """However much subsets overlap, where the scatter over the root of their number would be far too small."""
    hits, naive = 0, 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        x, y = generator.standard_normal((200, 1)), scale * generator.standard_normal((200, 1)) + shift
        found = kid(x, y, subsets=40, subset_size=round(200 * share))
        want = polynomial_between(shift, scale)
        hits += found.low <= want <= found.high
        naive += abs(found.value - want) <= 2.0 * found.over_subsets / np.sqrt(40)
    assert hits >= 54
    assert naive < 54


def test_kid_is_the_mean_of_its_subsets() -> None:
    x, y = draw(6, 100, 4), draw(7, 120, 4) + 0.5
    found = kid(x, y, subsets=12, subset_size=50, seed=3)
    generator = np.random.default_rng(3)
    values = []
    for _ in range(12):
        rows = generator.choice(100, 50, replace=False), generator.choice(120, 50, replace=False)
        values.append(brute(KERNELS["polynomial"][1], x[rows[0]], y[rows[1]]))
    assert found.value == pytest.approx(np.mean(values), rel=1e-12)
    assert found.over_subsets == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert kid(x, y, subsets=12, subset_size=50, seed=3) == found
    assert polynomial_mmd(x, y).low <= found.value <= polynomial_mmd(x, y).high


def test_they_are_measures_for_floors() -> None:
    data, held_out = draw(8, 400, 3), draw(9, 300, 3)
    for kernel in (energy(), gaussian(median_bandwidth(data, held_out)), polynomial()):
        measure = KernelDistance(held_out, kernel)
        base = floor(data, 100, measure)
        assert with_spread(draw(10, 100, 3) + 1.0, measure).differs(base)
        assert not with_spread(draw(11, 100, 3), measure).differs(base)


def test_the_median_bandwidth() -> None:
    x, y = draw(12, 30, 2), draw(13, 20, 2)
    together = np.concatenate([x, y])
    want = np.median(cdist(together, together)[np.triu_indices(50, 1)])
    assert median_bandwidth(x, y) == pytest.approx(want, rel=1e-12)
    x, y = draw(12, 50, 2), draw(13, 50, 2)
    assert gaussian_mmd(x, y) == gaussian_mmd(x, y, bandwidth=median_bandwidth(x, y))


NAN = np.array([[0.0, 1.0], [np.nan, 0.0], [0.0, np.inf]])
X = draw(14, 50, 2)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: energy_distance(NAN, X), "x: 2 of 3 rows are not finite; must be none"),
    (lambda: polynomial_mmd(X, NAN), "y: 2 of 3 rows are not finite; must be none"),
    (lambda: kid(X, NAN), "y: 2 of 3 rows are not finite; must be none"),
    (lambda: kid(X, X), "subset_size = 1000: must be at most half of each set, of 50 and 50 features"),
    (lambda: kid(X, X, subset_size=1), "subset_size = 1: must be an integer >= 2"),
    (lambda: kid(X, X, subset_size=10, subsets=1), "subsets = 1: must be an integer >= 2"),
    (lambda: energy_distance(X[:39], X), r"x.shape\[0\] = 39: must be at least 40, two for each of 20 groups"),
    (lambda: energy_distance(X, X[:1]), r"y.shape\[0\] = 1: must be at least 2 points"),
    (lambda: energy_distance(X, X[:, :1]), r"x.shape\[1:\] = \(2,\): must equal y.shape\[1:\] = \(1,\)"),
    (lambda: KernelDistance(X, energy())(X[:, :1]), r"x.shape\[1:\] = \(1,\): must equal y.shape\[1:\] = \(2,\)"),
    (lambda: gaussian_mmd(X, X, bandwidth=0.0), "bandwidth = 0.0: must be a number in"),
    (lambda: gaussian_mmd(np.zeros((40, 1)), np.zeros((40, 1))), "bandwidth: the median distance of points is 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
