"""Files of points: what they may hold, in which range, and how stored values come to model space."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.evaluation import draw, exact_points
from geonoise_jax.evaluation.point_files import Space, as_events, read_points, space_of
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES
from geonoise_jax.process.targets import Signal
from geonoise_jax.training.workdir import Facts
from tests.own_files import photos, pixels, save

PIXELS = Space((8, 8, 1), (127.5, 2 / 255), 3.0)
RNG = np.random.default_rng(0)


def given(points: Any, tmp_path: Path, space: Space = PIXELS) -> np.ndarray:
    np.save(tmp_path / "x.npy", points)
    return as_events(read_points(tmp_path / "x.npy", "x"), space)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (4, 64)])
def test_integers_are_scaled_as_the_data_set_scales_its_own(
    dtype: type[np.generic], shape: tuple[int, ...], tmp_path: Path
) -> None:
    pixels = RNG.integers(0, 256, shape).astype(dtype)
    events = given(pixels, tmp_path)
    np.testing.assert_allclose(events, pixels.reshape(4, 8, 8, 1) / 127.5 - 1.0, atol=1e-6)
    assert events.dtype == np.float32


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_floats_are_values_of_model_space(lowest: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = RNG.uniform(lowest, 1.0, (4, 8, 8, 1))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(given(points, tmp_path), points.astype(np.float32))
    assert ("pixels of another range?" in caplog.text) == (lowest == 0.0)


DIGITS = Space((8, 8, 1), (8.0, 1 / 8), 3.0)
UNKNOWN = Space((8, 8, 1), None, 3.0)
WIDE = Space((8, 8, 1), (127.5, 2 / 255), 500.0)
VECTORS = Space((3,), (0.0, 1.0), 3.0)
PICTURE = np.arange(64).reshape(1, 8, 8, 1)
REFUSED = [
    (PICTURE * 4.0, PIXELS, r"has values 0\.\.252; floats are values of model space, where images lie in \[-1, 1\]"),
    (PICTURE * 4.0, WIDE, r"has values 0\.\.252; .*, and half of all noise is negative"),
    (PICTURE / 16.0, DIGITS, r"has values 0\.\.3\.9"),
    (PICTURE - 200.0, PIXELS, r"has values -200\.\.-137; .* up to 3 is possible"),
    (PICTURE.astype(np.uint8), DIGITS, r"holds integers 0\.\.63; integers are stored values .* in 0\.\.16"),
    (PICTURE - 1, PIXELS, r"holds integers -1\.\.62; integers are stored values .* in 0\.\.255"),
    (PICTURE, UNKNOWN, r"holds integers 0\.\.63; must be floats in model space"),
    (np.where(PICTURE == 7, np.nan, 0.5), PIXELS, "1 of 1 points are not finite numbers, the first at index 0"),
    (np.array([[0.0, 1.0, 2.0], [0.0, np.inf, 0.0]]), VECTORS, "1 of 2 points are not finite numbers, .* index 1"),
]


@pytest.mark.parametrize(("points", "space", "message"), REFUSED)
def test_what_is_in_no_range_is_refused_with_the_range_found(
    points: Any, space: Space, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"x = .*{message}"):
        given(points, tmp_path, space)


def test_vectors_that_are_not_scaled_have_no_range(tmp_path: Path) -> None:
    np.testing.assert_array_equal(given([[1, 2, 300]], tmp_path, VECTORS), [[1.0, 2.0, 300.0]])
    np.testing.assert_array_equal(given([[1.0, 2.0, -300.0]], tmp_path, VECTORS), [[1.0, 2.0, -300.0]])


def test_a_workdir_knows_how_its_data_are_scaled() -> None:
    """Without the data; one of a version that did not store it takes floats only."""
    field, base = SimpleNamespace(event_shape=(8, 8, 1)), config.base_config()
    facts = Facts((8, 8, 1), 10, 8.0, 0.125)
    assert draw._space(Trained(field, base, facts, 0)).scaling == (8.0, 0.125)  # type: ignore[arg-type]
    older = Facts((8, 8, 1), 10)
    assert draw._space(Trained(field, base, older, 0)).scaling is None  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noisy_images_of_every_level_are_in_reach(schedule: Any) -> None:
    process = Process(schedule(), Signal())
    for t in np.linspace(process.schedule.t_min, process.schedule.t_max, 5):
        x, eps = RNG.uniform(-1, 1, (64, 8, 8, 1)), RNG.standard_normal((64, 8, 8, 1))
        u = process.corrupt(jnp.asarray(x), jnp.asarray(eps), jnp.full(64, t))
        assert np.abs(u).max() < exact_points._reach(process)


@pytest.mark.slow
def test_exact_quantities_of_stored_images_are_those_of_model_space(tmp_path: Path) -> None:
    choice = config.load("configs/digits.py:flow_matching")
    config.override(choice, [("data.data_dir", str(tmp_path))])
    data = build.arrays(choice, "test")
    pixels = data.events[:3]
    results = []
    for points in (pixels, data.to_model(pixels)):
        np.save(tmp_path / "u.npy", points)
        options = exact_points.Options(points=tmp_path / "u.npy", split="test", accuracy=1e-2)
        exact_points.evaluate(choice, tmp_path / "out.npz", options)
        with np.load(tmp_path / "out.npz") as arrays:
            results.append((arrays["u"], arrays["energy"]))
    for stored, floats in zip(*results, strict=True):
        np.testing.assert_allclose(stored, floats, rtol=1e-6)
    np.save(tmp_path / "u.npy", pixels.astype(float))
    with pytest.raises(ValueError, match=r"points = .*has values 0\.\.16; floats are values of model space"):
        exact_points.evaluate(choice, tmp_path / "out.npz", exact_points.Options(points=tmp_path / "u.npy"))


def folder_config(**kwargs: Any) -> config.ConfigDict:
    choice = config.load("configs/images.py")
    return config.override(choice, [(f"data.kwargs.{key}", str(value)) for key, value in kwargs.items()])


def test_images_come_in_the_order_of_their_names_and_as_the_configs_own(tmp_path: Path) -> None:
    written = photos(tmp_path, "b.png", "a.png", "deep/c.png", shape=(8, 8, 3))
    space = space_of(folder_config(size=8), (8, 8, 3), (127.5, 2 / 255), 3.0)
    events = as_events(read_points(tmp_path, "x"), space)
    expected = np.stack([written[name] for name in ("a.png", "b.png", "deep/c.png")]) / 127.5 - 1.0
    np.testing.assert_allclose(events, expected, atol=1e-6)
    assert events.dtype == np.float32
    halved = space_of(folder_config(size=8), (8, 8, 3), (255.0, 1 / 255), 3.0)
    np.testing.assert_allclose(as_events(read_points(tmp_path, "x"), halved), (expected - 1.0) / 2.0, atol=1e-6)
    one = as_events(read_points(tmp_path / "a.png", "x"), space)
    np.testing.assert_array_equal(one, events[:1])


def test_images_of_another_size_are_fitted_by_the_rule_of_the_config_only(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", pixels(0, 8, 16, 3))
    for fit, number in (("crop", 1), ("tiles", 2)):
        space = space_of(folder_config(size=8, fit=fit), (8, 8, 3), (127.5, 2 / 255), 3.0)
        assert as_events(read_points(image, "x"), space).shape == (number, 8, 8, 3)
    other = space_of(config.load("configs/svhn.py"), (8, 8, 3), (127.5, 2 / 255), 3.0)
    assert space_of(None, (8, 8, 3), (127.5, 2 / 255), 3.0) == other, "of a run of own objects"
    with pytest.raises(ValueError, match=r"x = .*a.png'?: has images of 8x16 pixels \(height x width\); must be 8x8"):
        as_events(read_points(image, "x"), other)
    with pytest.raises(ValueError, match=r"is an image or holds some; the config's data are \[3\]"):
        as_events(read_points(image, "x"), VECTORS)
    (tmp_path / "bad.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"x = .*: 1 of 2 files: '.*bad.png' is no image that is read"):
        as_events(read_points(tmp_path, "x"), other)


def test_pictures_show_model_space_whatever_the_data_set_stores(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", pixels(0, 8, 8))
    events = as_events(read_points(image, "x"), space_of(config.load("configs/digits.py"), (8, 8, 1), (8, 1 / 8), 3.0))
    np.testing.assert_allclose(events[0, ..., 0], pixels(0, 8, 8) / 127.5 - 1.0, atol=1e-6)


@pytest.mark.parametrize("option", ["x", "points"])
def test_arrays_of_a_npz_are_found_by_name(option: str, tmp_path: Path) -> None:
    x, u = RNG.uniform(-1, 1, (2, 4, 8, 8, 1))
    np.savez(tmp_path / "a.npz", x=x, u=u, step=3)
    np.testing.assert_array_equal(read_points(tmp_path / "a.npz", option).points, x if option == "x" else u)
    np.savez(tmp_path / "a.npz", other=x)
    np.testing.assert_array_equal(read_points(tmp_path / "a.npz", option).points, x)
    np.savez(tmp_path / "a.npz", other=x, more=u)
    with pytest.raises(ValueError, match=rf"{option} = .*: has arrays other, more; one must be called {option} or"):
        read_points(tmp_path / "a.npz", option)
