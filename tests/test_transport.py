"""The exact 2-Wasserstein distance against linear programs, closed forms and bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from geonoise_jax.evaluation import transport
from geonoise_jax.evaluation.floors import floor
from geonoise_jax.evaluation.point_metrics import sliced_wasserstein
from geonoise_jax.evaluation.transport import Wasserstein2, wasserstein2


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def programmed(x: np.ndarray, y: np.ndarray) -> float:
    """The least mean cost over all couplings."""
    costs = ((x[:, None] - y[None]) ** 2).sum(axis=-1)
    n, m = costs.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    masses = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    return float(np.sqrt(linprog(costs.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=masses).fun))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (4, 6), (1, 7), (12, 8), (10, 3)])
def test_it_is_the_linear_program(n: int, m: int) -> None:
    x, y = draw(0, n, 3), draw(1, m, 3) + 0.5
    assert Wasserstein2(y)(x) == pytest.approx(programmed(x, y), rel=1e-9)


def test_few_points_by_all_assignments() -> None:
    x, y = draw(2, 5, 2), draw(3, 5, 2)
    want = min(((x[list(order)] - y) ** 2).sum(axis=1).mean() for order in itertools.permutations(range(5)))
    assert Wasserstein2(y)(x) == pytest.approx(np.sqrt(want), rel=1e-12)


def test_it_is_a_distance_that_shifts_and_stretches_as_one_does() -> None:
    x, y, z = draw(4, 40, 4, 2), draw(5, 40, 4, 2), draw(6, 20, 4, 2)
    distance = Wasserstein2(y)(x)
    assert Wasserstein2(x)(y) == pytest.approx(distance, rel=1e-12)
    assert Wasserstein2(x)(x[::-1]) == 0.0
    assert Wasserstein2(x)(x + 0.5) == pytest.approx(0.5 * np.sqrt(8.0), rel=1e-12)
    assert Wasserstein2(3.0 * y)(3.0 * x) == pytest.approx(3.0 * distance, rel=1e-12)
    assert distance <= Wasserstein2(z)(x) + Wasserstein2(z)(y)
    assert distance / np.sqrt(8.0) >= sliced_wasserstein(x, y)


def test_its_spread_is_the_scatter_of_fresh_sets() -> None:
    reference = draw(7, 60, 2)
    found = wasserstein2(draw(8, 60, 2) + 1.0, reference)
    scatter = np.std([Wasserstein2(reference)(draw(seed, 60, 2) + 1.0) for seed in range(100, 160)], ddof=1)
    assert found.spread == pytest.approx(scatter, rel=0.5)
    base = floor(draw(9, 2000, 2), 60, Wasserstein2(reference))
    assert found.differs(base)
    assert sum(wasserstein2(draw(seed, 60, 2), reference).differs(base) for seed in range(10, 20)) <= 1


X = draw(11, 10, 2)
NAN = np.where(np.arange(20).reshape(10, 2) == 5, np.nan, 0.0)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: wasserstein2(NAN, X), "x: 1 of 10 rows are not finite; must be none"),
    (lambda: wasserstein2(X, NAN), "y: 1 of 10 rows are not finite; must be none"),
    (lambda: wasserstein2(X[:9], X), r"x.shape\[0\] = 9: must be even, for a spread by halves"),
    (lambda: Wasserstein2(X)(X[:0]), r"x.shape\[0\] = 0: must be at least 1 points"),
    (lambda: Wasserstein2(X)(X[:, :1]), r"x.shape\[1:\] = \(1,\): must equal y.shape\[1:\] = \(2,\)"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_sizes_without_a_small_common_multiple_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST", 89)
    with pytest.raises(ValueError, match=r"x.shape\[0\] = 9: must have a least common .* 10 points .* 89, not 90"):
        Wasserstein2(X)(X[:9])
