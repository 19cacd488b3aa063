"""Concentric circles: exact geometry, unique frame, names, reproducibility, refusals."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.data import CirclesSpec, circles_frame, load_arrays

SMALL: dict[str, Any] = {"dim": 8, "radii": (0.5, 1.0, 3.0), "weights": (1, 2, 1), "num_train": 60, "num_test": 40}


@pytest.mark.parametrize("dim", [2, 3, 8, 128])
def test_frame_is_orthonormal_and_reproducible(dim: int) -> None:
    frame = circles_frame(dim, seed=3)
    assert frame.shape == (dim, 2)
    assert frame.dtype == np.float64
    np.testing.assert_allclose(frame.T @ frame, np.eye(2), atol=1e-14)
    np.testing.assert_array_equal(frame, circles_frame(dim, seed=3))
    assert np.abs(frame - circles_frame(dim, seed=4)).max() > 1e-2


def test_frame_is_uniform_on_the_stiefel_manifold() -> None:
    """A uniform frame has mean 0 and second moment I/D; without the sign rule, QR leaves the first column biased."""
    frames = np.stack([circles_frame(3, seed) for seed in range(2000)])
    standard_error = 1 / np.sqrt(3 * 2000)
    assert np.abs(frames.mean(axis=0)).max() < 4 * standard_error
    assert np.abs((frames**2).mean(axis=0) - 1 / 3).max() < 4 * standard_error


def test_points_lie_on_their_circle_in_the_plane() -> None:
    spec = CirclesSpec(**SMALL)
    points, labels = spec.draw("train")
    assert points.shape == (60, 8)
    assert points.dtype == np.float32
    z = points @ circles_frame(8, spec.seed)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.asarray(spec.radii)[labels], rtol=1e-6)
    np.testing.assert_allclose(z @ circles_frame(8, spec.seed).T, points, atol=1e-6)


def test_angles_and_circles_have_the_stated_law() -> None:
    """Frequencies within four standard errors of the weights; first two circular moments within those of zero."""
    num = 20_000
    spec = CirclesSpec(dim=5, radii=(1.0, 2.0), weights=(3.0, 1.0), num_train=num)
    points, labels = spec.draw("train")
    assert abs(labels.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / num)
    z = points @ circles_frame(5, 0)
    angle = np.arctan2(z[:, 1], z[:, 0])
    moments = np.abs([np.exp(1j * k * angle).mean() for k in (1, 2)])
    assert moments.max() < 4 / np.sqrt(num)


def test_splits_and_seeds_are_independent_and_reproducible() -> None:
    """Compared in the plane, where the frame, which depends on the seed too, cannot hide equal angles."""

    def drawn(split: str, seed: int) -> np.ndarray:
        points, _ = CirclesSpec(num_train=50, num_test=50, seed=seed).draw(split)
        return points @ circles_frame(2, seed)

    train = drawn("train", 0)
    np.testing.assert_array_equal(train, drawn("train", 0))
    for other in (drawn("test", 0), drawn("train", 1)):
        assert np.abs(train - other).max(axis=1).min() > 1e-6


def test_name_identifies_the_parameters() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"dim": 3},
        {"radii": (1.0, 2.5)},
        {"radii": (2.0, 1.0)},
        {"weights": (1, 3)},
        {"seed": 1},
        {"num_train": 7},
        {"num_test": 7},
        {"radii": tuple(np.arange(1, 30) / 7)},
        {"radii": tuple(np.arange(2, 31) / 7)},
    ]
    names = [CirclesSpec(**change).name for change in changes]
    assert len(set(names)) == len(names)
    assert CirclesSpec(radii=[1, 2], weights=[5, 5]).name == names[0]
    assert all(len(name) < 255 and set(name) <= {*string.ascii_letters, *string.digits, *"._-"} for name in names)


def test_prepared_data_set_is_the_drawn_one(tmp_path: Path) -> None:
    spec = CirclesSpec(**SMALL)
    for split in ("train", "test"):
        arrays = load_arrays("circles", split, data_dir=tmp_path, builder_kwargs=SMALL)
        points, labels = spec.draw(split)
        assert arrays.labels is not None
        assert arrays.num_classes == 3
        assert _rows(arrays.events, arrays.labels) == _rows(points, labels)
        np.testing.assert_array_equal(arrays.to_model(arrays.events), arrays.events)
    assert (tmp_path / "circles" / spec.name).is_dir()


def test_predefined_and_custom_sets_live_side_by_side(tmp_path: Path) -> None:
    from geonoise_jax.data.circles import Circles

    predefined, custom = CirclesSpec(dim=32), CirclesSpec(dim=33)
    folders = {Path(Circles.of(spec, data_dir=tmp_path).data_dir).parent.name for spec in (predefined, custom)}
    assert folders == {predefined.name, custom.name}
    assert predefined.name in Circles.builder_configs


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dim": 1}, "dim = 1: must be an integer >= 2"),
        ({"dim": 2.5}, "dim = 2.5: must be an integer >= 2"),
        ({"seed": -1}, "seed"),
        ({"num_train": 0}, "num_train"),
        ({"num_test": "many"}, "num_test"),
        ({"radii": ()}, "radii"),
        ({"radii": 1.0}, "radii"),
        ({"radii": (1.0, 1.0)}, "radii must be distinct"),
        ({"radii": (1.0, -2.0)}, "radii"),
        ({"radii": (1.0, float("inf"))}, "radii"),
        ({"weights": (1.0,)}, "weights"),
        ({"weights": (1.0, 0.0)}, "weights"),
        ({"weights": (1.0, "x")}, "weights"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CirclesSpec(**parameters)


def test_bad_frame_and_split_are_named() -> None:
    with pytest.raises(ValueError, match="dim"):
        circles_frame(1, 0)
    with pytest.raises(ValueError, match="seed"):
        circles_frame(2, -1)
    with pytest.raises(ValueError, match="split must be one of"):
        CirclesSpec().draw("validation")


def _rows(events: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    """The data set as a multiset: TFDS stores it in its own order."""
    return sorted((event.tobytes(), int(label)) for event, label in zip(events, labels, strict=True))
