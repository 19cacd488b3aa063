"""Input pipelines: pixels by every rule, resizing against Pillow, jax and closed forms, and the table of protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from geonoise_jax.data.in_memory import from_numpy
from geonoise_jax.evaluation.features.protocols import INCEPTION, PIXELS, Protocol, to_pixels
from geonoise_jax.evaluation.features.resizing import RULES, resize, weights

RNG = np.random.default_rng
SIZES = [(32, 299), (28, 112), (299, 299), (300, 299), (640, 224), (8, 75), (1, 5), (7, 3)]


@pytest.mark.parametrize(("length", "size"), SIZES)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_averages(rule: str, length: int, size: int) -> None:
    found = weights(length, size, rule)
    assert found.shape == (size, length)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    assert found.min() >= (-0.2 if rule == "bicubic_pil" else 0.0)
    if length == size:
        np.testing.assert_array_equal(found, np.eye(size))


@pytest.mark.parametrize("size", [5, 64, 299])
@pytest.mark.parametrize(("rule", "resample"), [("bilinear_pil", 2), ("bicubic_pil", 3)])
def test_pillows_rules_are_pillows(rule: str, resample: int, size: int) -> None:
    image = RNG(0).uniform(0, 255, (41, 64)).astype(np.float32)
    wanted = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling(resample)))
    found = resize(jnp.asarray(image[None, :, :, None]), size, rule)[0, :, :, 0]
    np.testing.assert_allclose(found, wanted, atol=255 * 1e-5)


@pytest.mark.parametrize("size", [5, 64, 299])
def test_bilinear_is_between_the_nearest_centres(size: int) -> None:
    images = jnp.asarray(RNG(0).uniform(0, 255, (2, 41, 64, 3)), jnp.float32)
    wanted = jax.image.resize(images, (2, size, size, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(resize(images, size, "bilinear"), wanted, atol=255 * 1e-5)


def test_tensorflows_rule_is_off_by_half_a_pixel() -> None:
    """A ramp stays one, from the corner of the first pixel on, and is cut at the last centre."""
    ramp = weights(32, 299, "bilinear_tf1") @ np.arange(32)
    np.testing.assert_allclose(ramp, np.minimum(np.arange(299) * 32 / 299, 31.0), atol=1e-5)
    np.testing.assert_array_equal(weights(600, 300, "bilinear_tf1") @ np.arange(600), np.arange(0, 600, 2))
    half = weights(32, 299, "bilinear") @ np.arange(32)
    np.testing.assert_allclose(half, np.clip((np.arange(299) + 0.5) * 32 / 299 - 0.5, 0, 31), atol=1e-12)


def test_height_and_width_are_not_exchanged() -> None:
    images = jnp.asarray(np.broadcast_to(np.arange(4.0)[:, None, None], (1, 4, 6, 1)), jnp.float32)
    found = np.asarray(resize(images, 8, "bilinear"))[0, :, :, 0]
    assert np.ptp(found, axis=1).max() == 0.0
    assert (np.diff(found[:, 0]) >= 0.0).all()


@pytest.mark.parametrize("rule", PIXELS)
def test_pixels_come_back_from_model_space(rule: str) -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    model = from_numpy(stored).to_model(stored)
    np.testing.assert_allclose(to_pixels(jnp.asarray(model), rule), stored, atol=1e-4 if rule == "none" else 0)
    np.testing.assert_array_equal(to_pixels(jnp.asarray(stored), rule), stored)


def test_pixels_are_rounded_as_the_rule_says() -> None:
    x = jnp.asarray([-1.3, -1.0, -0.995, -0.5, 0.0, 0.003, 0.997, 1.0, 7.0])
    # 127.5 x + 127.5 = -38.3, 0, 0.64, 63.75, 127.5, 127.88, 254.6, 255, 1020
    np.testing.assert_array_equal(to_pixels(x, "half_up"), [0, 0, 1, 64, 128, 128, 255, 255, 255])
    np.testing.assert_array_equal(to_pixels(x, "floor"), [0, 0, 0, 63, 127, 127, 254, 255, 255])


GREY = RNG(1).integers(0, 256, (2, 9, 9, 1), dtype=np.uint8)
# What the first pixel becomes, whose corner none of the bilinear rules mixes with others.
FIRST: dict[str, Callable[[float], float]] = {
    "pytorch_fid": lambda v: v / 127.5 - 1.0,
    "torch_fidelity": lambda v: (v - 128.0) / 128.0,
    "edm": lambda v: (v - 128.0) / 128.0,
    "adm": lambda v: (v - 128.0) / 128.0,
}


@pytest.mark.parametrize("name", INCEPTION)
def test_each_protocol_brings_images_to_its_network(name: str) -> None:
    seen = INCEPTION[name].prepare(jnp.asarray(GREY))
    assert seen.shape == (2, 299, 299, 3)
    np.testing.assert_array_equal(seen[..., 0], seen[..., 2])
    if name in FIRST:
        np.testing.assert_allclose(seen[:, 0, 0, 0], [FIRST[name](float(v)) for v in GREY[:, 0, 0, 0]], atol=1e-6)
    colours = INCEPTION[name].prepare(jnp.asarray(np.concatenate([GREY, GREY, GREY], axis=-1)))
    np.testing.assert_allclose(seen, colours, atol=1e-6)


def test_what_the_cubic_overshoots_is_cut() -> None:
    step = jnp.asarray(np.broadcast_to(np.repeat([0, 255], 4).astype(np.uint8)[None, :, None, None], (1, 8, 8, 1)))
    assert float(resize(step.astype(jnp.float32), 299, "bicubic_pil").max()) > 260.0
    seen = INCEPTION["clean_fid"].prepare(step)
    assert float(seen.min()) == -1.0
    assert float(seen.max()) == 127.0 / 128.0


def test_a_protocol_says_all_of_it() -> None:
    kinds = [Protocol(), *(Protocol(**{key: value}) for key, value in CHANGES.items())]
    assert len({str(kind) for kind in kinds}) == len(CHANGES) + 1
    assert str(INCEPTION["clean_fid"]) == (
        "pixels floor(127.5 x + 128) in 0..255, grey as three equal channels, bicubic_pil to 299x299, clipped to "
        "0..255, (v - 128) / 128"
    )


CHANGES: dict[str, Any] = {
    "pixels": "floor",
    "rule": "bicubic_pil",
    "size": 75,
    "clip": True,
    "center": 128.0,
    "scale": 128.0,
}
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Protocol(rule="bicubic"), "rule = 'bicubic': unknown; did you mean 'bicubic_pil'"),
    (lambda: Protocol(pixels="round"), "pixels = 'round'"),
    (lambda: Protocol(size=0), "Protocol.size = 0: must be an integer >= 1"),
    (lambda: Protocol(scale=0.0), "Protocol.scale = 0.0"),
    (lambda: weights(3, 4, "nearest"), "rule = 'nearest': must be one of"),
    (lambda: Protocol().prepare(jnp.zeros((2, 8, 8, 2))), r"images.shape = \[2, 8, 8, 2\]: must be \[N, H, W, C\]"),
    (lambda: Protocol().prepare(jnp.zeros((8, 8, 3))), r"images.shape = \[8, 8, 3\]"),
    (lambda: Protocol().prepare(jnp.zeros((2, 8, 8, 1), jnp.int32)), "images.dtype = int32: must be uint8"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
