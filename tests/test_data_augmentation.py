"""Augmentation on the device: each change against brute force, labels, probabilities, the same for any split."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import ndimage

from geonoise_jax.data import Arrays, Pipeline
from geonoise_jax.data import augmentation as module
from geonoise_jax.data.augmentation import Changes, EDMAugmentation
from geonoise_jax.process.keys import root_key

NONE: dict[str, Any] = {
    "mirror_x": False,
    "mirror_y": False,
    "scale": 0.0,
    "angle": 0.0,
    "anisotropy": 0.0,
    "axis": 0.0,
    "translation": (0.0, 0.0),
}
# One of each, and all together.
CHANGES: dict[str, dict[str, Any]] = {
    "scale": {"scale": 1.3},
    "smaller": {"scale": -1.1},
    "angle": {"angle": 0.7},
    "anisotropy": {"anisotropy": 1.2},
    "turned anisotropy": {"anisotropy": -0.9, "axis": 1.1},
    "translation": {"translation": (0.9, -0.4)},
    "all": {
        "mirror_x": True,
        "mirror_y": True,
        "scale": 0.5,
        "angle": -2.5,
        "anisotropy": 0.8,
        "axis": -0.6,
        "translation": (-0.7, 0.3),
    },
}


def changes(*each: dict[str, Any]) -> Changes:
    rows = [{**NONE, **one} for one in each]
    return Changes(**{name: jnp.asarray([row[name] for row in rows]) for name in NONE})


def noise(num: int = 1, height: int = 9, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (num, height, width, 2)).astype(np.float32)


def matrix(change: dict[str, Any]) -> np.ndarray:
    """The linear part of the map from results to what they come from, by the parts of the docstring."""
    given = {**NONE, **change}

    def turn(angle: float) -> np.ndarray:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    a, s, r = 2.0 ** (0.2 * given["anisotropy"]), 2.0 ** (0.2 * given["scale"]), given["axis"]
    return turn(given["angle"]) @ turn(-r) @ np.diag([1 / a, a]) @ turn(r) / s


def origin(
    change: dict[str, Any], y: np.ndarray, x: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels at (y, x) come from, in pixels from the top left."""
    height, width = size
    moved = np.array({**NONE, **change}["translation"]) * 0.125 * np.array([width, height])
    p = np.stack([x - (width - 1) / 2 - moved[0], y - (height - 1) / 2 - moved[1]])
    qx, qy = np.einsum("ij,jab->iab", matrix(change), p)
    return qy + (height - 1) / 2, qx + (width - 1) / 2


def brute(image: np.ndarray, change: dict[str, Any]) -> np.ndarray:
    """The published recipe in float64: pad by reflection, up by zeros and filter, read bilinearly, filter and down."""
    image = image[:, ::-1] if change.get("mirror_x") else image
    image = image[::-1] if change.get("mirror_y") else image
    (height, width), taps, pad = image.shape[:2], np.array(module.SYM6), 4 * max(image.shape)
    padded = np.pad(image.astype(np.float64), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    fine = np.zeros((2 * padded.shape[0], 2 * padded.shape[1], padded.shape[2]))
    fine[::2, ::2] = padded
    for axis in (0, 1):  # out[m] = sum_i taps[i] in[m + 5 - i]
        fine = ndimage.correlate1d(fine, taps[::-1], axis=axis, mode="constant", origin=0)
    y, x = np.meshgrid(np.arange(-6, 2 * height + 6) / 2, np.arange(-6, 2 * width + 6) / 2, indexing="ij")
    from_y, from_x = origin(change, y, x, (height, width))
    channels = []
    for channel in range(image.shape[2]):
        # scipy centres twelve taps on the seventh.
        read = ndimage.map_coordinates(fine[..., channel], [2 * (from_y + pad), 2 * (from_x + pad)], order=1)
        down = ndimage.correlate1d(ndimage.correlate1d(read, taps, axis=0, origin=-1), taps, axis=1, origin=-1)
        channels.append(down[6:-6:2, 6:-6:2])
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_those_of_brute_force(change: dict[str, Any]) -> None:
    image = noise()
    found = jax.jit(module.apply)(image, changes(change))
    np.testing.assert_allclose(found[0], brute(image[0], change), atol=2e-5)


def smooth(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(0.25 * x + 0.5) * np.cos(0.2 * y), np.cos(0.15 * x - 0.22 * y)], axis=-1)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_smooth_image_is_moved_as_its_function_is(change: dict[str, Any]) -> None:
    """To 3% of its amplitude, where no reflection comes in: a wavelet that is not symmetric shifts by a little."""
    size = (28, 32)
    y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    image = smooth(y, x).astype(np.float32)
    found = np.asarray(
        module.apply(jnp.asarray(image)[None], changes({**change, "mirror_x": False, "mirror_y": False}))
    )[0]
    from_y, from_x = origin(change, y, x, size)
    inside = (from_y > 6) & (from_y < size[0] - 7) & (from_x > 6) & (from_x < size[1] - 7)
    assert inside.sum() > 150
    np.testing.assert_allclose(found[inside], smooth(from_y, from_x)[inside], atol=0.03)


def test_mirrors_are_exchanges_of_pixels() -> None:
    image = jnp.asarray(noise())
    both = changes({"mirror_x": True, "mirror_y": True})
    np.testing.assert_array_equal(module.apply(image, both)[0], image[0, ::-1, ::-1])


def test_the_filter_is_orthonormal_and_keeps_constants() -> None:
    for side in (1, 2, 5, 9):
        up, down = module._finer(side), module._coarser(side)
        constant = jnp.full((1, side, side, 1), 0.7)
        found = module.apply(constant, changes(CHANGES["all"]))
        np.testing.assert_allclose(found, np.asarray(constant), atol=0.012)
        assert (up.shape[1], down.shape[0]) == (side, side)
    taps = np.array(module.SYM6)
    shifts = [np.dot(taps[2 * k :], taps[: len(taps) - 2 * k]) for k in range(6)]
    np.testing.assert_allclose(shifts, [1, 0, 0, 0, 0, 0], atol=1e-9)


def test_nothing_is_done_with_probability_0_to_the_bit() -> None:
    x, none = noise(50), EDMAugmentation(probability=0.0)
    found, told = none(jnp.asarray(x), root_key(0))
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(told, np.zeros((50, 9)))


def test_images_without_labels_are_as_they_were_to_the_bit() -> None:
    x, pipe = noise(400), EDMAugmentation(probability=0.12)
    found, told = (np.asarray(each) for each in jax.jit(pipe)(x, root_key(1)))
    same = (found == x).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same, (told == 0).all(axis=1))
    mirrored = (told[:, 0] == 1) & (told[:, 1:] == 0).all(axis=1)
    np.testing.assert_array_equal(found[mirrored], x[mirrored][:, :, ::-1])
    assert same.sum() > 50
    assert mirrored.sum() > 50


def test_labels_are_those_of_the_changes() -> None:
    told = np.asarray(module.labels_of(changes(CHANGES["all"], {})))
    w, r = 0.8, -0.6
    expected = [1, 1, 0.5, np.cos(-2.5) - 1, np.sin(-2.5), w * np.cos(r), w * np.sin(r), -0.7, 0.3]
    np.testing.assert_allclose(told[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(told[1], np.zeros(9))


def test_changes_have_their_probabilities_and_laws() -> None:
    num, p = 40_000, 0.3
    drawn = jax.tree.map(np.asarray, EDMAugmentation(p).draw(root_key(2), num))
    chosen = {
        "mirror_x": (drawn.mirror_x, 0.5),
        "mirror_y": (drawn.mirror_y, p / 2),
        "scale": (drawn.scale != 0, p),
        "angle": (drawn.angle != 0, p),
        "anisotropy": (drawn.anisotropy != 0, p),
        "axis": (drawn.axis != 0, 0.5),
        "translation": ((drawn.translation != 0).all(axis=1), p),
    }
    for name, (found, probability) in chosen.items():
        assert abs(found.mean() - probability) < 5 * np.sqrt(probability * (1 - probability) / num), name
    normal = [drawn.scale[drawn.scale != 0], drawn.anisotropy[drawn.anisotropy != 0], drawn.translation.ravel()]
    for values in normal:
        values = values[values != 0]
        assert abs(values.mean()) < 5 / np.sqrt(len(values))
        assert abs(values.std() - 1) < 5 / np.sqrt(2 * len(values))
    for turns in (drawn.angle[drawn.angle != 0], drawn.axis[drawn.axis != 0]):
        assert abs(turns.std() - np.pi / np.sqrt(3)) < 5 / np.sqrt(len(turns))
        assert abs(turns).max() <= np.float32(np.pi)
    together = np.stack([found for name, (found, _) in chosen.items()]).astype(float)
    correlation = np.corrcoef(together) - np.eye(len(together))
    assert abs(correlation).max() < 5 / np.sqrt(num), "changes are independent"


def pipeline(num: int = 64) -> Pipeline:
    events = np.random.default_rng(0).integers(0, 256, (num, 8, 8, 3)).astype(np.uint8)
    arrays = Arrays(events=events, center=127.5, scale=1 / 127.5)
    return Pipeline(arrays, 32, seed=0, placement="host", augment=EDMAugmentation(0.5))


def test_a_row_is_the_same_on_any_number_of_devices() -> None:
    stream, key = pipeline(), root_key(3)
    batch, decode = stream.batch(0), jax.jit(stream.decode)
    whole = jax.tree.map(np.asarray, decode(batch, {}, key))
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = decode(jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data"))), {}, key)
    np.testing.assert_array_equal(spread["augment"], whole["augment"])
    np.testing.assert_allclose(spread["x"], whole["x"], atol=1e-6)
    part = decode({name: values[:16] for name, values in batch.items()}, {}, key)
    np.testing.assert_array_equal(part["augment"], whole["augment"][:16])
    np.testing.assert_allclose(part["x"], whole["x"][:16], atol=1e-6)
    again = decode(batch, {}, key)
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(whole))


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match=r"data.augment.kwargs.probability = 1.5"):
        EDMAugmentation(1.5)
    with pytest.raises(ValueError, match=r"augment needs images \[H, W, C\], got events of shape \(3,\)"):
        Pipeline(Arrays(events=np.zeros((4, 3))), 4, 0, augment=EDMAugmentation())
    with pytest.raises(ValueError, match="key must be given"):
        pipeline().decode(pipeline().batch(0), {})
