"""Mean and spread of distances: against the scatter of fresh sets, and against closed forms of linear statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geonoise_jax.evaluation.floors import DRAWS, Distance, floor, over_draws, reference_spread, with_spread
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein

RNG = np.random.default_rng


def mean(points: np.ndarray) -> float:
    """A linear statistic, whose scatter is that of a mean."""
    return float(points.mean())


def test_the_floor_has_mean_and_spread_of_draws_of_the_same_size() -> None:
    data = RNG(0).standard_normal((400, 3))
    seen: list[np.ndarray] = []

    def measure(points: np.ndarray) -> float:
        seen.append(points)
        return mean(points)

    base = floor(data, 100, measure)
    assert len(seen) == DRAWS >= 20
    assert all(len(np.unique(points, axis=0)) == 100 for points in seen), "a point was drawn twice"
    assert base.value == pytest.approx(np.mean([mean(points) for points in seen]))
    assert base.spread == pytest.approx(np.std([mean(points) for points in seen], ddof=1) / math.sqrt(1 - 100 / 400))
    assert floor(data, 100, mean) == base != floor(data, 100, mean, seed=1)


@pytest.mark.parametrize("num", [20, 200, 399, 400, 700])
def test_the_spread_is_that_of_fresh_data_however_much_the_draws_overlap(num: int) -> None:
    data = RNG(0).standard_normal((400, 1))
    spread = floor(data, num, mean, draws=300).spread
    assert spread == pytest.approx(data.std() / math.sqrt(num), rel=0.15)


def test_draws_have_the_classes_of_the_samples() -> None:
    """Whose own scatter leaves the spread: a statistic of the classes alone has none."""
    labels = np.repeat([0, 1, 2], [300, 60, 40])
    data = labels[:, None] + 0.01 * RNG(0).standard_normal((400, 1))
    like = np.arange(90) % 3

    def counts(points: np.ndarray) -> float:
        assert np.bincount(np.rint(points[:, 0]).astype(int)).tolist() == [30, 30, 30]
        return mean(points)

    balanced = floor(data, 90, counts, labels=labels, like=like)
    assert balanced.value == pytest.approx(1.0, abs=0.005)
    assert balanced.spread < 0.01 < 0.05 < floor(data, 90, mean).spread
    # More of a class than there is: drawn with replacement.
    assert floor(data, 90, mean, labels=labels, like=np.full(90, 2)).value == pytest.approx(2.0, abs=0.01)


def test_samples_of_the_datas_law_do_not_look_better_than_data() -> None:
    """What one random draw as a floor gets wrong one time in two."""
    population = RNG(0).standard_normal((3000, 8))
    training, held_out, fresh = population[:800], population[800:1000], population[1000:]
    measure = SlicedWasserstein(held_out, num_projections=64)
    base = floor(training, 200, measure)
    sets = [with_spread(fresh[start : start + 200], measure) for start in range(0, 2000, 200)]
    assert sum(each.differs(base) for each in sets) <= 1
    assert any(each.value < base.value for each in sets)
    assert with_spread(fresh[:200] + 0.5, measure).differs(base)


MAKERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "at the floor": lambda rng: rng.standard_normal((200, 8)),
    "off": lambda rng: rng.standard_normal((200, 8)) + 0.3,
    "few outliers": lambda rng: rng.standard_normal((200, 8)) * np.where(rng.random((200, 1)) < 0.05, 9.0, 1.0),
}


@pytest.mark.parametrize("name", MAKERS)
def test_spread_of_samples_is_the_scatter_of_repeated_sampling(name: str) -> None:
    measure = SlicedWasserstein(RNG(0).standard_normal((300, 8)), num_projections=32)
    sets = [MAKERS[name](RNG(seed)) for seed in range(1, 101)]
    spreads = [with_spread(each, measure).spread for each in sets[:20]]
    scatter = np.std([measure(each) for each in sets], ddof=1)
    # The scatter is known to 7%, the mean of the spreads to about as much; the estimate itself to a fifth.
    assert np.sqrt(np.mean(np.square(spreads))) == pytest.approx(scatter, rel=0.35)


def test_spread_of_a_linear_statistic_is_the_standard_error() -> None:
    samples = RNG(0).standard_normal((301, 2)) * 3.0
    found = with_spread(samples, mean, halvings=400)
    assert found.value == mean(samples)
    assert found.spread == pytest.approx(samples.mean(axis=1).std() / math.sqrt(301), rel=0.1)
    assert with_spread(samples, mean) == with_spread(samples, mean) != with_spread(samples, mean, seed=1)


def test_halves_have_the_same_classes() -> None:
    labels = np.arange(101) % 4
    samples = labels[RNG(0).permutation(101)][:, None] + 0.0
    assert with_spread(samples, mean).spread > 0.1
    own = samples[:, 0].astype(int)
    assert with_spread(samples[own < 4], mean, labels=own).spread < 0.02


def test_samples_that_are_not_finite_are_infinitely_far_and_differ_from_all_that_are() -> None:
    lost = with_spread(np.array([[0.0], [np.nan]]), mean)
    assert lost == Distance(math.inf, 0.0)
    near = Distance(0.5, 0.1)
    assert lost.differs(near)
    assert near.differs(lost)
    assert not lost.differs(lost)
    assert lost.over(near) == Distance(math.inf, 0.0)
    assert lost.range() == (math.inf, math.inf)


def test_the_spread_of_a_reference() -> None:
    reference = RNG(0).standard_normal((200, 1))

    def to(part: np.ndarray) -> Any:
        return lambda points: abs(mean(points) - mean(part))

    found = reference_spread(np.full((7, 1), 50.0), reference, to, halvings=300)
    assert found == pytest.approx(reference.std() / math.sqrt(200), rel=0.15)


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [((1.0, 0.1), (1.2, 0.1), False), ((1.0, 0.1), (1.3, 0.1), True), ((1.3, 0.1), (1.0, 0.1), True)],
)
def test_a_difference_is_seen_from_two_spreads_on(one: Any, other: Any, differs: bool) -> None:
    assert Distance(*one).differs(Distance(*other)) == differs


def test_ratios_have_the_spread_of_both() -> None:
    rng = RNG(0)
    one, other = Distance(3.0, 0.06), Distance(2.0, 0.05)
    ratio = one.over(other)
    drawn = rng.normal(*one, 100_000) / rng.normal(*other, 100_000)
    assert ratio == pytest.approx((1.5, drawn.std()), rel=0.02)
    assert ratio.range() == pytest.approx((1.5 - 2 * ratio.spread, 1.5 + 2 * ratio.spread))


TWO = np.zeros((2, 1))
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: over_draws([1.0]), "values: 1 draws; must be at least 2"),
    (lambda: over_draws([1.0, 2.0], overlap=1.0), "overlap = 1.0: must be in"),
    (lambda: floor(TWO, 0, mean), "num = 0 of 2 points: both must be at least 1"),
    (lambda: floor(TWO[:0], 1, mean), "num = 1 of 0 points: both must be at least 1"),
    (lambda: floor(TWO, 1, mean, labels=np.zeros(2, int)), "labels and like: must be given together"),
    (lambda: floor(TWO, 3, mean, labels=np.zeros(2, int), like=np.zeros(2, int)), "labels and like: must be given"),
    (lambda: floor(TWO, 1, mean, labels=np.zeros(2, int), like=np.array([4])), "no point of class 4"),
    (lambda: with_spread(TWO[:1], mean), "samples: 1; must be at least 2"),
    (lambda: with_spread(TWO, mean, halvings=0), "halvings: 0; must be at least 1"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
