"""Layers: folded group normalisation against flax and float64, attention, resampling, embeddings."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.nets import conditioning, layers
from geonoise_jax.nets.convolution import by_patches


def _normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _apply(module: nn.Module, params: Any, *args: Any) -> jax.Array:
    return jnp.asarray(jax.jit(module.apply)(params, *args))


def _reference_norm(x: jax.Array, groups: int) -> np.ndarray:
    """Group normalisation in float64, textbook order."""
    b, h, w, c = x.shape
    grouped = np.asarray(x, np.float64).reshape(b, h * w, groups, c // groups)
    mean = grouped.mean((1, 3), keepdims=True)
    var = grouped.var((1, 3), keepdims=True)
    return ((grouped - mean) / np.sqrt(var + 1e-6)).reshape(x.shape)


def _reference_gradient(x: jax.Array, groups: int, cotangent: jax.Array) -> np.ndarray:
    """(g - mean g - y mean(g y)) / std in each group, in float64."""
    b, h, w, c = x.shape
    shape = (b, h * w, groups, c // groups)
    grouped, g, y = (np.asarray(v, np.float64).reshape(shape) for v in (x, cotangent, _reference_norm(x, groups)))
    std = np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)
    return ((g - g.mean((1, 3), keepdims=True) - y * (g * y).mean((1, 3), keepdims=True)) / std).reshape(x.shape)


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (6, 1), (7, 1), (8, 2), (14, 2), (32, 8), (128, 32), (256, 32), (260, 26)]
)
def test_group_count_is_the_largest_admissible_divisor(channels: int, groups: int) -> None:
    assert layers.group_count(channels) == groups


@pytest.mark.parametrize("channels", [4, 7, 12])
def test_group_norm_equals_flax(channels: int) -> None:
    x = _normal(0, 3, 5, 4, channels) * 3.0 + 0.7
    params = {"params": {"scale": _normal(1, channels), "bias": _normal(2, channels)}}
    textbook = nn.GroupNorm(layers.group_count(channels), use_fast_variance=False)
    np.testing.assert_allclose(_apply(layers.GroupNorm(), params, x), _apply(textbook, params, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_group_norm_and_its_gradient_survive_a_large_mean(offset: float) -> None:
    x = _normal(0, 2, 6, 6, 8) + offset
    cotangent = _normal(1, *x.shape)
    unit, zero = jnp.ones((2, 8)), jnp.zeros((2, 8))

    @jax.jit
    def value_and_pullback(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(lambda x: layers.group_norm(x, unit, zero, 2), x)
        return out, pull(cotangent)[0]

    out, gradient = value_and_pullback(x)
    # The mean itself is only known to offset * 6e-8.
    np.testing.assert_allclose(out, _reference_norm(x, 2), atol=2e-6 + 3e-7 * offset)
    np.testing.assert_allclose(gradient, _reference_gradient(x, 2, cotangent), atol=1e-5 + 3e-7 * offset)


def test_group_norm_gradient_equals_that_of_the_textbook_form() -> None:
    x, cotangent = _normal(0, 2, 3, 4, 8), _normal(1, 2, 3, 4, 8)
    params = {"params": {"scale": _normal(2, 8), "bias": _normal(3, 8)}}
    textbook = nn.GroupNorm(2, use_fast_variance=False)

    def gradients(module: nn.Module) -> list[jax.Array]:
        pull = jax.jit(lambda params, x: jax.vjp(module.apply, params, x)[1](cotangent))
        return jax.tree.leaves(pull(params, x))

    for got, expected in zip(gradients(layers.GroupNorm()), gradients(textbook), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_modulation_is_folded_into_the_norm() -> None:
    x, scale, shift = _normal(0, 2, 3, 4, 8), _normal(1, 2, 8), _normal(2, 2, 8)
    params = {"params": {"scale": _normal(3, 8), "bias": _normal(4, 8)}}
    plain = _apply(layers.GroupNorm(), params, x)
    modulated = _apply(layers.GroupNorm(), params, x, (scale, shift))
    expected = plain * (1.0 + scale[:, None, None, :]) + shift[:, None, None, :]
    np.testing.assert_allclose(modulated, expected, rtol=1e-5, atol=1e-5)


def test_group_norm_statistics_are_float32_for_bfloat16_input() -> None:
    # Sums of 4,096 terms in bfloat16 would be wrong in the first digit.
    x = (_normal(0, 1, 64, 64, 4) + 5.0).astype(jnp.bfloat16)
    out = _apply(layers.GroupNorm("bfloat16"), {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), _reference_norm(x, 1), rtol=2**-8, atol=1e-4)


def test_group_norm_of_a_constant_is_zero_with_a_finite_gradient() -> None:
    def total(x: jax.Array) -> jax.Array:
        return layers.group_norm(x, jnp.ones((2, 8)), jnp.zeros((2, 8)), 2).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.full((2, 3, 3, 8), 123.4))
    assert value == 0.0
    assert bool(jnp.isfinite(gradient).all())


def test_a_single_pixel_is_not_normalised_away() -> None:
    x = _normal(0, 2, 1, 1, 8)
    out = jax.jit(layers.group_norm, static_argnums=3)(x, jnp.ones((2, 8)), jnp.zeros((2, 8)), layers.group_count(8))
    assert float(jnp.abs(out).max()) > 0.5


def test_attention_equals_the_sum_over_positions_written_out() -> None:
    b, h, w, c, heads = 2, 2, 3, 8, 2
    module = layers.SelfAttention(heads)
    x = _normal(0, b, h, w, c)
    params = jax.jit(module.init)(jax.random.key(0), x)
    np.testing.assert_array_equal(_apply(module, params, x), x)  # zero-initialised branch
    params["params"]["out"]["kernel"] = jnp.eye(c)
    branch = np.asarray(_apply(module, params, x)) - np.asarray(x)

    hidden = _reference_norm(x, layers.group_count(c)).reshape(b, h * w, c)
    kernel = np.asarray(params["params"]["qkv"]["kernel"], np.float64)
    q, k, v = np.split(hidden @ kernel, 3, axis=-1)
    for i in range(heads):
        part = slice(i * c // heads, (i + 1) * c // heads)
        logits = q[..., part] @ k[..., part].transpose(0, 2, 1) / np.sqrt(c // heads)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = (weights @ v[..., part]).reshape(b, h, w, -1)
        np.testing.assert_allclose(branch[..., part], expected, atol=1e-5)


def test_attention_refuses_heads_that_do_not_divide_the_channels() -> None:
    with pytest.raises(ValueError, match=r"num_heads = 3: must be a divisor .* 8(\n|$)"):
        jax.eval_shape(layers.SelfAttention(3).init, jax.random.key(0), jnp.zeros((1, 2, 2, 8)))


def _delta_kernel(channels: int) -> dict[str, dict[str, dict[str, jax.Array]]]:
    """Parameters that make a 3x3 convolution the identity."""
    kernel = jnp.zeros((3, 3, channels, channels)).at[1, 1].set(jnp.eye(channels))
    return {"params": {"conv": {"kernel": kernel, "bias": jnp.zeros(channels)}}}


def test_resampling_before_and_after_the_identity_convolution() -> None:
    x = _normal(0, 2, 4, 6, 3)
    up = _apply(layers.Upsample(), _delta_kernel(3), x)
    np.testing.assert_array_equal(up, np.repeat(np.repeat(np.asarray(x), 2, axis=1), 2, axis=2))
    np.testing.assert_array_equal(_apply(layers.Downsample(), _delta_kernel(3), x), x[:, ::2, ::2])


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (2, 0))])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
def test_convolution_by_patches_equals_that_of_xla(
    strides: tuple[int, int], kernel: tuple[int, int], padding: Any, x64: None
) -> None:
    rng = np.random.default_rng(0)
    images, weights = jnp.asarray(rng.standard_normal((2, 7, 8, 3))), jnp.asarray(rng.standard_normal((*kernel, 3, 4)))
    want = jax.lax.conv_general_dilated(images, weights, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(by_patches(images, weights, strides, padding), want, rtol=1e-12, atol=1e-13)


def test_residual_block_starts_as_its_skip_path() -> None:
    x = _normal(0, 2, 3, 3, 4)
    same, wider = layers.ResBlock(4), layers.ResBlock(8)
    np.testing.assert_array_equal(jax.jit(same.init_with_output)(jax.random.key(0), x)[0], x)
    params = jax.jit(wider.init)(jax.random.key(0), x)
    skip = jnp.einsum("bhwc,cd->bhwd", x, params["params"]["skip"]["kernel"][0, 0])
    np.testing.assert_allclose(_apply(wider, params, x), skip, rtol=1e-5, atol=1e-6)


def test_second_derivatives_agree_with_differences(x64: None) -> None:
    block, attention = layers.ResBlock(4, dtype="float64"), layers.SelfAttention(2, dtype="float64")
    rng = np.random.default_rng(0)
    x, v, w = (jnp.asarray(rng.standard_normal((2, 3, 3, 4))) for _ in range(3))
    condition = jnp.asarray(rng.standard_normal((2, 6)))
    shapes = (
        jax.eval_shape(block.init, jax.random.key(0), x, condition),
        jax.eval_shape(attention.init, jax.random.key(0), x),
    )
    params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), shapes)

    def slope(x: jax.Array) -> jax.Array:
        """w . f'(x) v by forward mode."""

        def function(x: jax.Array) -> jax.Array:
            return jnp.asarray(attention.apply(params[1], block.apply(params[0], x, condition)))

        return jnp.vdot(w, jax.jvp(function, (x,), (v,))[1])

    @jax.jit
    def slope_and_curvature(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(slope)(x)
        return value, jnp.vdot(gradient, v)

    h = 1e-5
    difference = (slope_and_curvature(x + h * v)[0] - slope_and_curvature(x - h * v)[0]) / (2 * h)
    np.testing.assert_allclose(slope_and_curvature(x)[1], difference, rtol=1e-6)


def test_sinusoidal_features_follow_the_formula_and_resolve_the_unit_interval(x64: None) -> None:
    t = jnp.linspace(0.0, 1.0, 1001)
    features = conditioning.sinusoidal_features(t, 8)
    phases = 1000.0 * np.asarray(t)[:, None] * 10_000.0 ** (-np.arange(4) / 3)
    np.testing.assert_allclose(features, np.concatenate([np.cos(phases), np.sin(phases)], -1), atol=1e-9)
    steps = np.linalg.norm(np.diff(conditioning.sinusoidal_features(t), axis=0), axis=-1)
    assert steps.min() > 0.5  # neighbouring levels of 1,000 are far apart, of norm 8


@pytest.mark.parametrize("features", [2, 7])
def test_sinusoidal_features_refuse_odd_or_tiny_lengths(features: int) -> None:
    with pytest.raises(ValueError, match=f"features = {features}: must be even"):
        conditioning.sinusoidal_features(jnp.zeros(1), features)
