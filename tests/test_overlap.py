"""Held-out points that stand in the training set are found by value, whatever a split is called."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from geonoise_jax.evaluation.overlap import check_held_out, shared_points

POINTS = np.random.default_rng(0).standard_normal((300, 4, 2)).astype(np.float32)


def test_points_are_compared_bit_for_bit_but_for_the_sign_of_zero() -> None:
    held_out = np.concatenate([POINTS[:3], POINTS[:1], np.nextafter(POINTS[3:5], np.inf), -POINTS[5:6]])
    assert shared_points(POINTS, held_out) == 4
    assert shared_points(np.zeros((1, 2)), np.array([[-0.0, 0.0], [0.0, 1.0]])) == 1
    assert shared_points(POINTS[::-1, ::-1], POINTS) == 0


@pytest.mark.parametrize("shared", [0, 1, 2, 3, 200])
def test_more_than_one_in_a_hundred_is_refused_and_fewer_are_said(
    shared: int, caplog: pytest.LogCaptureFixture
) -> None:
    training, held_out = POINTS[:200], np.concatenate([POINTS[:shared], POINTS[200:], POINTS[200:]])[:200]
    said = f"held_out = 'other': {shared} of its 200 points are points of the training split"
    if shared > 2:
        with pytest.raises(ValueError, match=said):
            check_held_out("other", training, held_out)
        return
    with caplog.at_level(logging.WARNING, logger="geonoise_jax"):
        check_held_out("other", training, held_out)
    assert (said in caplog.text) == (shared > 0)
