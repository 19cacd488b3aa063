"""Weights of modes and distances to circles, of samples drawn from laws that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geonoise_jax.evaluation.modes import (
    circle_distances,
    manifold_distance,
    mode_weights,
    nearest_circle,
    nearest_mode,
)
from geonoise_jax.exact import Circles

WEIGHTS = np.array([0.5, 0.3, 0.15, 0.05])


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_nearest_mode() -> None:
    modes = draw(0, 12, 2, 3) * 2.0
    points = draw(1, 300, 2, 3) * 2.0
    want = ((points[:, None] - modes[None]) ** 2).sum(axis=(2, 3)).argmin(axis=1)
    np.testing.assert_array_equal(nearest_mode(points, modes), want)


def test_all_intervals_together_contain_the_weights_of_the_law() -> None:
    found = [mode_weights(np.random.default_rng(seed).choice(4, 400, p=WEIGHTS), 4, WEIGHTS) for seed in range(200)]
    assert sum(not each.differs for each in found) >= 180
    # Each alone is narrower, and would miss some weight more often than one time in ten.
    assert np.mean([each.p_value < 0.05 for each in found]) < 0.1
    assert found[0].shares.sum() == pytest.approx(1.0)


def test_a_lost_mode_is_seen() -> None:
    labels = np.random.default_rng(0).choice(4, 400, p=[0.5, 0.3, 0.2, 0.0])
    found = mode_weights(labels, 4, WEIGHTS)
    assert found.missing == 1
    assert found.differs
    assert found.p_value < 1e-3
    assert found.distance == pytest.approx(0.5 * np.abs(found.shares - WEIGHTS).sum())
    assert found.high[3] > 0.0, "none of 400 does not prove that there is none"
    uniform = mode_weights(np.arange(400) % 4, 4)
    assert (uniform.distance, uniform.p_value, uniform.differs, uniform.num) == (0.0, 1.0, False, 400)


def circles(dim: int) -> Circles:
    frame = np.linalg.qr(draw(2, dim, 2))[0] if dim > 2 else None
    return Circles(np.array([0.5, 1.0, 2.0]), np.array([0.2, 0.3, 0.5]), frame)


@pytest.mark.parametrize("dim", [2, 5])
def test_distances_to_circles(dim: int) -> None:
    law = circles(dim)
    frame = np.asarray(law.frame, np.float64)
    normal = np.linalg.svd(frame.T)[2][-1] if dim > 2 else np.zeros(2)
    angle = np.linspace(0.0, 6.0, 7)
    radius = np.array([0.0, 0.5, 0.7, 0.8, 1.6, 2.0, 5.0])
    points = (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)) @ frame.T + 0.3 * normal
    off = 0.3 if dim > 2 else 0.0
    want = np.hypot([0.5, 0.0, 0.2, 0.2, 0.4, 0.0, 3.0], off)
    np.testing.assert_allclose(circle_distances(points, law), want, atol=1e-6)
    assert nearest_circle(points, law).tolist() == [0, 0, 0, 1, 2, 2, 2]


def test_samples_of_the_law_are_on_it_and_have_its_weights() -> None:
    import jax

    law = circles(5)
    points = np.asarray(law.sample(jax.random.key(0), 500))
    assert manifold_distance(points, lambda points: circle_distances(points, law)).value < 1e-6
    assert not mode_weights(nearest_circle(points, law), 3, np.asarray(law.weights)).differs


def test_the_interval_contains_the_mean_distance() -> None:
    """Normal noise of 0.01 along the radius: sqrt(2 / pi) of it on average, to first order."""
    want, hits = 0.01 * np.sqrt(2.0 / np.pi), 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        angle = generator.uniform(0.0, 2.0 * np.pi, 80)
        radius = generator.choice([0.5, 1.0, 2.0], 80) + 0.01 * generator.standard_normal(80)
        points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        found = manifold_distance(points, lambda points: circle_distances(points, circles(2)))
        hits += found.low <= want <= found.high
    assert hits >= 90


X = draw(3, 10, 2)
NAN = np.where(np.arange(20).reshape(10, 2) == 5, np.nan, 0.0)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: nearest_mode(NAN, X), "points: 1 of 10 rows are not finite; must be none"),
    (lambda: nearest_mode(X, X[:, :1]), r"points.shape\[1:\] = \(2,\): must equal modes.shape\[1:\] = \(1,\)"),
    (lambda: nearest_circle(X, circles(5)), r"points.shape\[1:\] = \(2,\): must equal circles.frame.shape.* = \(5,\)"),
    (lambda: circle_distances(NAN, circles(2)), "points: 1 of 10 rows are not finite; must be none"),
    (lambda: manifold_distance(X, lambda x: x), r"distances\(points\).shape = \[10, 2\]: must be \[10\]"),
    (lambda: manifold_distance(X, lambda x: x[:, 0]), r"distances\(points\): \d of 10 are negative or not finite"),
    (lambda: mode_weights(np.array([0, 4]), 4), "labels: are in 0..4; must be in 0..3"),
    (lambda: mode_weights(np.zeros(0, int), 4), "labels = .*: must be .n. integers, of at least one sample"),
    (lambda: mode_weights(np.zeros(3), 4), "labels = float64.*: must be .n. integers"),
    (lambda: mode_weights(np.zeros(3, int), 1), "num_modes = 1: must be an integer >= 2"),
    (lambda: mode_weights(np.zeros(3, int), 2, np.array([0.5, 0.6])), "weights: from 0.5 on, of sum 1.1; must be"),
    (lambda: mode_weights(np.zeros(3, int), 2, np.array([0.0, 1.0])), "weights: from 0 on, of sum 1; must be"),
    (lambda: mode_weights(np.zeros(3, int), 2, np.ones(3) / 3), r"weights.shape = \[3\]: must be \[2\]"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
