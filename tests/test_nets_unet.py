"""The U-Net alone: image sizes and padding, where attention sits, parameter count, bad fields and images."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.nets import UNet
from geonoise_jax.nets.convolution import CONVOLUTIONS


def _shapes(net: UNet, *image: int) -> Any:
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, *image)), jnp.zeros(2))["params"]


def _tiny(**fields: Any) -> UNet:
    return UNet(**{"base_channels": 4, "channel_multipliers": (1, 2), "blocks_per_level": 1, **fields})


@pytest.mark.parametrize("image", [(7, 7, 1), (8, 12, 3), (28, 28, 4), (5, 9, 1), (4, 4, 3)])
def test_output_has_the_shape_of_the_image(image: tuple[int, ...]) -> None:
    net = UNet(base_channels=8, channel_multipliers=[1, 2, 2], blocks_per_level=2)
    u, t = jnp.zeros((2, *image)), jnp.zeros(2)
    out, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), u, t)
    assert out.shape == u.shape


def test_padding_is_zeros_on_both_sides_and_cropped_again_sample_by_sample() -> None:
    net = _tiny(channel_multipliers=(1, 1, 1), conditional=False, middle_attention=False)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, 4, 4, 2)))
    params = jax.tree.map(lambda s: jnp.asarray(0.4 * rng.standard_normal(s.shape), s.dtype), shapes)
    u = jnp.asarray(rng.standard_normal((2, 5, 6, 2)), jnp.float32)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compile quickly rather than well
    def value_and_gradient(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(lambda u: jnp.asarray(net.apply(params, u)), u)
        return out, pull(jnp.zeros_like(out).at[0].set(1.0))[0]

    out, gradient = value_and_gradient(u)
    # 5 -> 8: one row above, two below; 6 -> 8: one column on either side.
    by_hand, _ = value_and_gradient(jnp.pad(u, ((0, 0), (1, 2), (1, 1), (0, 0))))
    np.testing.assert_allclose(out, by_hand[:, 1:6, 1:7], rtol=1e-5, atol=1e-5)
    assert bool((gradient[0] != 0).all())
    np.testing.assert_array_equal(gradient[1], 0.0)


def test_attention_sits_at_the_chosen_resolutions() -> None:
    net = _tiny(attention_resolutions=[6], middle_attention=False, num_heads=2)
    attended = {name for name in _shapes(net, 8, 11, 1) if "attention" in name}
    assert attended == {"down_1_block_0_attention", "up_1_block_0_attention", "up_1_block_1_attention"}
    assert "middle_attention" in _shapes(_tiny(), 8, 8, 1)


def test_lists_are_accepted_and_the_module_is_hashable() -> None:
    lists = UNet(channel_multipliers=[1, 2], attention_resolutions=[4])
    assert lists == UNet(channel_multipliers=(1, 2), attention_resolutions=(4,))
    assert hash(lists) == hash(UNet(channel_multipliers=(1, 2), attention_resolutions=(4,)))


def _conv(a: int, b: int) -> int:
    return 9 * a * b + b


@pytest.mark.parametrize(
    ("conditional", "classes", "attention"), [(True, 0, True), (True, 5, False), (False, 5, True), (False, 0, False)]
)
def test_parameter_count_is_that_of_the_formula(conditional: bool, classes: int, attention: bool) -> None:
    width = 16  # of the conditioning vector: 4 * 4

    def block(a: int, b: int) -> int:
        norms_and_convs = 2 * a + _conv(a, b) + 2 * b + _conv(b, b)
        film = width * 2 * b + 2 * b if conditional or classes else 0
        return norms_and_convs + film + (a * b + b if a != b else 0)

    expected = _conv(3, 4) + block(4, 4) + _conv(4, 4) + block(4, 8)  # down: 4 | 4 | 4 (resampled) | 8
    expected += 2 * block(8, 8) + (2 * 8 + 8 * 24 + 24 + 8 * 8 + 8 if attention else 0)
    expected += block(8 + 8, 8) + block(8 + 4, 8) + _conv(8, 8) + block(8 + 4, 4) + block(4 + 4, 4)
    expected += 2 * 4 + _conv(4, 3)
    expected += (128 * width + width + width**2 + width) if conditional else 0
    expected += (classes + 1) * width if classes else 0
    net = _tiny(conditional=conditional, num_classes=classes, middle_attention=attention)
    assert sum(leaf.size for leaf in jax.tree.leaves(_shapes(net, 8, 8, 3))) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_channels": 0}, "base_channels = 0: must be an integer >= 1"),
        ({"channel_multipliers": ()}, r"channel_multipliers = \(\): must be of at least one level"),
        ({"channel_multipliers": (1, 0)}, "channel_multipliers = 0: must be an integer >= 1"),
        ({"channel_multipliers": 2}, "channel_multipliers = 2: must be a sequence of positive integers"),
        ({"channel_multipliers": "122"}, "channel_multipliers = '122': must be a sequence"),
        ({"attention_resolutions": (-4,)}, "attention_resolutions = -4: must be an integer >= 1"),
        ({"blocks_per_level": 1.5}, "blocks_per_level = 1.5: must be an integer >= 1"),
        ({"num_heads": 0}, "num_heads = 0: must be an integer >= 1"),
        ({"num_heads": 3}, "num_heads = 3: must be a divisor .* 32"),
        ({"convolution": "fft"}, "convolution = 'fft': must be one of xla, patches"),
        ({"middle_attention": "no"}, "middle_attention = 'no': must be True or False"),
    ],
)
def test_bad_fields_are_refused_at_construction(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**fields)


@pytest.mark.parametrize("image", [(8, 8), (8,), (2, 8, 8, 1)])
def test_wrong_ranks_are_refused(image: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"u.shape = .*: must be \[B, H, W, C\]"):
        _shapes(_tiny(), *image)


def test_images_smaller_than_the_factor_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"u.shape = \[2, 3, 8, 1\]: must have height and width of at least 4 for 3 levels"
    ):
        _shapes(_tiny(channel_multipliers=(1, 2, 2)), 3, 8, 1)


def test_attention_at_a_resolution_that_never_occurs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attention_resolutions = \[16\]: must be among \[8, 4\], .* 8x8"):
        _shapes(_tiny(attention_resolutions=(4, 16)), 7, 8, 1)


@pytest.mark.slow
def test_both_ways_to_convolve_are_one_network(x64: None) -> None:
    """With the same parameters, values, gradients and gradients of gradients agree; the image is odd and padded."""
    nets = [_tiny(dtype="float64", middle_attention=False, convolution=name) for name in CONVOLUTIONS]
    rng = np.random.default_rng(0)
    u, t = jnp.asarray(rng.standard_normal((2, 7, 10, 3))), jnp.array([0.1, 0.8])
    shapes = jax.eval_shape(nets[0].init, jax.random.key(0), u, t)
    assert shapes == jax.eval_shape(nets[1].init, jax.random.key(0), u, t)
    params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), shapes)

    def slopes(net: UNet) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            field = jax.grad(lambda u: jnp.sum(u * jnp.asarray(net.apply(params, u, t))))(u)
            return jnp.mean(field**2), field

        (_, field), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return field, gradient

    for one, other in zip(jax.tree.leaves(slopes(nets[0])), jax.tree.leaves(slopes(nets[1])), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)
