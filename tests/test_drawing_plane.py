"""The picture of an exact field in the plane."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.drawing import plane
from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Velocity
from geonoise_jax.process.times import Uniform


def marginal(dim: int = 2) -> Marginal:
    return Marginal(Gaussian(jnp.zeros(dim), jnp.ones(dim)), Process(Linear(), Velocity()), Uniform(0.01, 0.9))


def test_arrows_of_the_terms_add_up_to_those_of_the_field() -> None:
    parts = marginal().decompose(jnp.asarray([[0.3, -1.0], [2.0, 0.5]]))
    field, *terms = plane._arrows(parts).values()
    np.testing.assert_allclose(sum(terms), field, atol=1e-5)
    np.testing.assert_array_equal(field, -parts.field)


def test_arrows_are_unit_vectors_and_zero_stays_zero() -> None:
    arrows = np.array([[3.0, -4.0], [0.0, 0.0], [0.0, 1e-9]])
    np.testing.assert_allclose(plane._unit(arrows), [[0.6, -0.8], [0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(plane._log_length(arrows), np.log10([5.0, 5e-3, 5e-3]))
    assert np.isfinite(plane._log_length(np.zeros((2, 2)))).all()


@pytest.mark.parametrize(
    ("dim", "num", "message"), [(3, 1, r"event_shape = \(3,\)"), (2, 0, "queries.* = 0"), (2, 9, "queries.* = 9")]
)
def test_refuses_what_cannot_be_drawn(dim: int, num: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        plane.draw_plane(marginal(dim), tmp_path / "plane.png", queries=np.zeros((num, 2)))
    assert not list(tmp_path.iterdir())
