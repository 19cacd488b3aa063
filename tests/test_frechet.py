"""Fréchet distances against closed forms, their intervals against the distance of the laws that features come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from geonoise_jax.evaluation.floors import floor, with_spread
from geonoise_jax.evaluation.frechet import Frechet, frechet_distance, frechet_infinity, frechet_interval
from geonoise_jax.evaluation.moments import Moments, grouped, moments

REFERENCE = 7.7483424112445751820717092963892785937723588085011


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(dim: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(draw(seed, dim, dim))[0]


def gaussian(variances: np.ndarray, basis: np.ndarray | None = None, mean: Any = 0.0) -> Moments:
    basis = np.eye(len(variances)) if basis is None else basis
    return Moments(np.broadcast_to(mean, variances.shape), (basis * variances) @ basis.T)


@pytest.mark.parametrize("dim", [1, 7, 200])
@pytest.mark.parametrize("rotated", [False, True])
def test_covariances_that_commute(dim: int, rotated: bool) -> None:
    """The roots of the variances differ, over twelve decades of them."""
    one, other = 10.0 ** np.linspace(2, -10, dim), 10.0 ** np.linspace(2, -10, dim) * np.exp(draw(1, dim))
    basis = rotation(dim) if rotated else None
    want = ((np.sqrt(one) - np.sqrt(other)) ** 2).sum()
    found = frechet_distance(gaussian(one, basis, 0.5), gaussian(other, basis))
    assert found.covariances == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert found.means == pytest.approx(0.25 * dim, rel=1e-14)
    assert found.value == found.means + found.covariances


@pytest.mark.parametrize(
    ("dim", "ranks"), [(6, (2, 3)), (60, (5, 40)), (300, (300, 20)), (300, (100, 250)), (4, (0, 2))]
)
def test_covariances_of_less_than_full_rank(dim: int, ranks: tuple[int, int]) -> None:
    """Projections onto two subspaces: the trace is that of the cosines of their angles."""
    frames = rotation(dim, 1)[:, : ranks[0]], rotation(dim, 2)[:, : ranks[1]]
    cosines = np.linalg.svd(frames[0].T @ frames[1], compute_uv=False)
    one, other = (Moments(np.zeros(dim), frame @ frame.T) for frame in frames)
    want = sum(ranks) - 2.0 * cosines.sum()
    assert frechet_distance(one, other).value == pytest.approx(want, rel=1e-12, abs=1e-12)
    assert frechet_distance(other, one).value == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_covariances_that_do_not_commute() -> None:
    """In two dimensions tr (S1 S2)^1/2 = sqrt(tr S1 S2 + 2 sqrt(det S1 det S2)), here at 50 digits."""
    one = Moments(np.array([1.0, -2.0]), np.array([[3.0, 1.0], [1.0, 0.5]]))
    other = Moments(np.array([0.25, 0.0]), np.array([[0.125, -0.25], [-0.25, 2.0]]))
    assert frechet_distance(one, other).value == pytest.approx(REFERENCE, rel=1e-14)


@pytest.mark.parametrize("num", [2, 30, 100, 2000])
def test_copies_are_no_distance_apart_and_shifts_their_length(num: int) -> None:
    features = draw(3, num, 40) * np.linspace(0.1, 3.0, 40)
    assert frechet_distance(features, features).value == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(features, features + 0.5).value == pytest.approx(10.0, rel=1e-10)
    assert frechet_distance(features, 3.0 * features).covariances == pytest.approx(
        4.0 * features.var(axis=0, ddof=1).sum(), rel=1e-10
    )


def test_it_is_symmetric_and_does_not_see_rotations_or_order() -> None:
    x, y = draw(4, 50, 20), draw(5, 70, 20) @ rotation(20) * 1.5 + 0.1
    value = frechet_distance(x, y).value
    basis = rotation(20, 6)
    for other in (
        frechet_distance(y, x),
        frechet_distance(x @ basis, y @ basis),
        frechet_distance(x[::-1], moments(y)),
    ):
        assert other.value == pytest.approx(value, rel=1e-12)
    assert Frechet(y)(x) == value


def test_too_few_features_are_said() -> None:
    x, y = draw(6, 20, 20), draw(7, 500, 20)
    assert frechet_distance(x, y).note.startswith("20 features of 20 dimensions: the covariance has not full rank")
    assert frechet_distance(draw(8, 21, 20), y).note == ""
    assert frechet_distance(gaussian(np.ones(20)), y).counts == (None, 500)
    assert "features of 20" in frechet_interval(draw(9, 20, 20), y, groups=5).note
    assert "50 features of 60 dim" in frechet_infinity(draw(10, 500, 60), gaussian(np.ones(60))).note


def test_it_is_a_measure_for_floors() -> None:
    data, held_out = draw(11, 400, 3), draw(12, 300, 3)
    base = floor(data, 100, Frechet(held_out))
    assert with_spread(draw(13, 100, 3) + 1.0, Frechet(held_out)).differs(base)


class Case(NamedTuple):
    """Two Gaussian laws, and how many features are drawn of them."""

    dim: int
    num: int
    apart: float

    def laws(self) -> tuple[Moments, Moments]:
        variances = np.exp(-2.0 * np.arange(self.dim) / self.dim)
        other = variances * (1.0 + self.apart)
        basis = rotation(self.dim) if self.apart else None
        return gaussian(variances), gaussian(other, basis, self.apart / np.sqrt(self.dim))


def features_of(law: Moments, num: int, generator: np.random.Generator) -> np.ndarray:
    return law.mean + generator.standard_normal((num, law.dim)) @ np.linalg.cholesky(law.covariance).T


def covered(case: Case, estimate: Callable[[np.ndarray, np.ndarray], Any], repetitions: int = 200) -> float:
    """The share of intervals that contain the distance of the laws."""
    one, other = case.laws()
    want = frechet_distance(one, other).value
    hits = 0
    for seed in range(repetitions):
        generator = np.random.default_rng([case.dim, case.num, seed])
        found = estimate(features_of(one, case.num, generator), features_of(other, case.num, generator))
        hits += found.low <= want <= found.high
    return hits / repetitions


QUICK = [Case(2, 1000, 0.3), Case(8, 1000, 0.0), Case(8, 1000, 0.03)]
LONG = [
    Case(2, 1000, 0.0),
    Case(8, 1000, 0.5),
    Case(64, 1000, 0.0),
    Case(64, 1000, 0.3),
    Case(8, 10_000, 0.3),
    Case(64, 10_000, 0.3),
]
LONG += [Case(8, 50_000, 0.0), Case(8, 50_000, 0.3), Case(64, 50_000, 0.0), Case(64, 50_000, 0.3)]
CASES = [*QUICK, *(pytest.param(*[case], marks=pytest.mark.slow) for case in LONG)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_intervals_contain_the_distance_of_the_laws(case: Case) -> None:
    assert covered(case, frechet_interval, 100 if case.num > 10_000 else 200) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(8, 1000, 0.0), Case(8, 1000, 0.3), Case(64, 10_000, 0.3)], ids=str)
def test_intervals_to_published_moments(case: Case) -> None:
    other = case.laws()[1]
    assert covered(case, lambda x, _: frechet_interval(x, other)) >= 0.9
    assert covered(case, lambda x, _: frechet_infinity(x, other), 30) >= 0.9


def test_the_published_number_is_outside_and_the_estimate_is_without_bias() -> None:
    """What a bootstrap of the published number would centre on."""
    case = Case(16, 400, 0.3)
    one, other = case.laws()
    want = frechet_distance(one, other).value
    generator = np.random.default_rng(0)
    sets = [features_of(one, case.num, generator) for _ in range(40)]
    published = np.array([frechet_distance(x, other).value for x in sets])
    estimates = np.array([frechet_interval(x, other).value for x in sets])
    error = estimates.std(ddof=1) / np.sqrt(40)
    assert published.mean() - want > 4.0 * error
    assert abs(estimates.mean() - want) < 3.0 * error
    spreads = [frechet_interval(x, other).spread for x in sets]
    assert np.mean(spreads) == pytest.approx(estimates.std(ddof=1), rel=0.3)
    infinite = [frechet_infinity(x, other) for x in sets[:20]]
    extrapolated = np.array([each.value for each in infinite])
    assert abs(extrapolated.mean() - want) < 4.0 * extrapolated.std(ddof=1) / np.sqrt(20)
    assert np.mean([each.spread for each in infinite]) == pytest.approx(extrapolated.std(ddof=1), rel=0.5)


def test_a_law_with_heavy_tails() -> None:
    """The jackknife assumes nothing of the features' law; with a Gaussian's variance intervals would be too narrow."""
    laws = Moments(np.zeros(3), np.eye(3)), Moments(np.zeros(3), 2.0 * np.eye(3))
    want = frechet_distance(*laws).value
    hits = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        features = generator.standard_exponential((1000, 3)) * generator.choice([-1.0, 1.0], (1000, 3)) / np.sqrt(2.0)
        found = frechet_interval(features, laws[1])
        hits += found.low <= want <= found.high
    assert hits >= 53


def test_groups_of_features_that_stream_give_the_same() -> None:
    x, y = draw(20, 500, 4), draw(21, 300, 4) + 0.2
    want = frechet_interval(x, y)
    batches = np.array_split(x, 9), np.array_split(y, 4)
    assert frechet_interval(*(grouped(each) for each in batches))[:4] == pytest.approx(want[:4], rel=1e-9)
    found = frechet_infinity(grouped(batches[0]), y)
    assert found[:4] == pytest.approx(frechet_infinity(x, moments(y))[:4], rel=1e-9)
    assert found.value != frechet_infinity(x, y, seed=1).value


NAN = np.array([[0.0, 1.0], [np.nan, 0.0], [0.0, np.inf]])
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: frechet_distance(NAN, draw(0, 5, 2)), "x: 2 of 3 rows are not finite; must be none"),
    (lambda: frechet_distance(draw(0, 5, 2), NAN), "y: 2 of 3 rows are not finite; must be none"),
    (lambda: frechet_distance(draw(0, 1, 2), draw(0, 5, 2)), r"x.shape\[0\] = 1: must be an integer >= 2"),
    (
        lambda: frechet_distance(draw(0, 5, 2), draw(0, 5, 3)),
        r"x.shape\[1:\] = \(2,\): must equal y.shape\[1:\] = \(3,\)",
    ),
    (lambda: frechet_interval(draw(0, 39, 2), draw(0, 50, 2)), r"x.shape\[0\] = 39: must be at least 40, two for each"),
    (lambda: frechet_infinity(draw(0, 50, 2), draw(0, 50, 2), groups=9), "groups = 9: must be at least 10"),
    (lambda: frechet_interval(draw(0, 50, 2), draw(0, 50, 2), groups=1), "groups = 1: must be an integer >= 2"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
