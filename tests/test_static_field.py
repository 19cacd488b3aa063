"""Particles in frozen fields: paths that have closed forms, where they end, and the animation."""

from __future__ import annotations

import io
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.exact import FiniteSet
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Equilibrium
from geonoise_jax.studies import static_field
from geonoise_jax.studies.ring import exact_field
from geonoise_jax.studies.static_field import NEAR, QUICK, Options, Ride, Study, ride, step_lengths
from geonoise_jax.studies.verdicts import Outcome


@pytest.fixture(scope="module")
def study() -> Study:
    return static_field.measure(QUICK)


def test_steps_fall_to_zero_and_add_up() -> None:
    steps = step_lengths(50, 3.0)
    assert steps.sum() == pytest.approx(3.0)
    np.testing.assert_allclose(np.diff(steps), steps[1] - steps[0])
    assert 0.0 < steps[-1] < 0.02 * steps[0]


def test_one_datum_is_approached_along_a_straight_line(x64: None) -> None:
    """EqM's field is u - x there: every step shortens the way by its length."""
    x = np.array([[0.5, -1.0, 2.0]])
    field = exact_field(FiniteSet(jnp.asarray(x)), Process(Linear(), Equilibrium()), blind=True)
    start, steps = np.random.default_rng(0).standard_normal((4, 3)), step_lengths(30, 2.0)
    found = np.asarray(ride(field, jnp.asarray(start), jnp.asarray(steps)))
    expected = x + (start - x) * np.cumprod(1.0 - steps)[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_in_eight_dimensions_all_particles_end_at_the_data(study: Study) -> None:
    assert [(each.target, each.dim) for each in study.rides] == [
        (target, dim) for target in ("Velocity", "Noise", "Equilibrium") for dim in (2, 8)
    ]
    for each in study.rides:
        assert each.plane.shape == (41, 40, 2)
        assert each.tau[0] == 0.0
        assert each.tau[-1] == pytest.approx(QUICK.duration)
        assert (np.diff(each.tau) >= 0.0).all()
        if each.dim == 8:
            assert each.distance.max() < NEAR
    # From the same starts.
    np.testing.assert_array_equal(study.rides[0].plane[0], study.rides[2].plane[0])


def test_shares_have_intervals_of_their_own(study: Study) -> None:
    made = Ride("Noise", 2, np.zeros(1), np.zeros((1, 40, 2)), np.repeat([0.01, 1.0], [30, 10]))
    share, low, high = made.reached
    assert share == 0.75
    # Wilson's, of 30 in 40.
    np.testing.assert_allclose((low, high), (0.5981, 0.8581), atol=1e-3)
    verdicts = static_field.verdicts(Study(QUICK, (made,), 0.0))
    assert verdicts[0].outcome is Outcome.FAILS
    assert {each.value for each in static_field.verdicts(study)} >= {1.0}


def test_it_is_drawn_and_written(study: Study) -> None:
    picture = rendered(static_field.picture(study))
    assert picture.format == "PNG"
    assert static_field.arrays(study)["plane"].shape == (6, 41, 40, 2)
    assert "100.0%" in static_field.table(study)


def test_the_animation_plays(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_field, "_FRAMES", 4)
    pages = static_field.pages(study, Image.new("RGB", (1, 1)))
    assert pages.keys() == {".webp", ".gif"}
    for content in pages.values():
        assert isinstance(content, bytes)
        with Image.open(io.BytesIO(content)) as image:
            # Those that are alike are one.
            assert sum(1 for _ in ImageSequence.Iterator(image)) > 1
            assert image.size == (900, 330)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (1,)}, "dims = 1: must be an integer >= 2"),
        ({"num_steps": 39}, "num_steps = 39: must be an integer >= 40"),
        ({"duration": 0.0}, "duration = 0.0: must be a number"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
