"""Building blocks: folded group normalisation, feature-wise modulation, attention, residual block, resampling.

Initialisation: weights lecun-normal, biases zero, and the last layer of every residual branch zero, so that each block
starts as the identity (on its skip path).
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.checks import refused
from geonoise_jax.nets.convolution import CONVOLUTIONS
from geonoise_jax.nets.network import accumulation_dtype

MAX_GROUPS = 32
MIN_GROUP_CHANNELS = 4


def group_count(channels: int) -> int:
    """The largest divisor of `channels` that is <= 32 and leaves at least 4 channels in a group (1 if there is none).

    The lower bound on the group size is that of Karras et al. (2022): with one channel per group a 1x1 feature map
    would be normalised to zero, and at 4x4 the mean of a channel, which carries most of its information, is removed.
    """
    largest = max(1, min(MAX_GROUPS, channels // MIN_GROUP_CHANNELS))
    return next(groups for groups in range(largest, 0, -1) if channels % groups == 0)


def _per_pixel(v: Float[Array, "b c"], rank: int) -> Float[Array, "b ... c"]:
    """Insert unit axes so that per-channel values meet [B, *space, C]."""
    return jnp.expand_dims(v, tuple(range(1, rank - 1)))


def _group_mean(v: Float[Array, "b c"], groups: int) -> Float[Array, "b c"]:
    """Mean over the channels of each group, repeated to all its channels."""
    b, c = v.shape
    grouped = v.reshape(b, groups, c // groups)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(b, c)


def group_norm(
    x: Float[Array, "b *space c"],
    gain: Float[Array, "b c"],
    offset: Float[Array, "b c"],
    groups: int,
    epsilon: float = 1e-6,
) -> Float[Array, "b *space c"]:
    """Group normalisation (Wu & He 2018) folded into one multiply-add per element.

    Per-channel sums give group statistics of shape [B, C], which fold with gain and offset into `(x - p) * A + B`.
    The pivot p is one pixel of each channel: a value of the sample itself lies within sqrt(n) standard deviations of
    the mean of its n pixels, so that E[(x-p)^2] - E[x-p]^2 loses at most a factor n of the precision however large the
    mean is, in one pass over x. The result does not depend on p; hence no derivative goes through it.

    Args:
      x: [B, *space, C], of any floating dtype.
      gain, offset: [B, C] in the dtype to compute in (float32 or wider).
      groups: number of groups, a divisor of C.
      epsilon: added to the variance.

    Returns:
      [B, *space, C] in the dtype of gain.
    """
    space = tuple(range(1, x.ndim - 1))
    x = x.astype(gain.dtype)
    pivot = jax.lax.stop_gradient(x[(slice(None), *(0 for _ in space))])
    centred = x - _per_pixel(pivot, x.ndim)
    first = centred.mean(space)
    within = jnp.square(centred).mean(space) - jnp.square(first)
    deviation = pivot + first - _group_mean(pivot + first, groups)
    variance = jnp.maximum(_group_mean(within + jnp.square(deviation), groups), 0.0)
    slope = gain * jax.lax.rsqrt(variance + epsilon)
    intercept = (deviation - first) * slope + offset
    return centred * _per_pixel(slope, x.ndim) + _per_pixel(intercept, x.ndim)


class GroupNorm(nn.Module):
    """Folded group normalisation with the parameters of `flax.linen.GroupNorm` and, optionally, FiLM folded in.

    With modulation (s, h) the result is `norm(x) * (1 + s) + h`. Statistics are float32 or wider.
    """

    dtype: str | np.dtype | type = "float32"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *space c"],
        modulation: tuple[Float[Array, "b c"], Float[Array, "b c"]] | None = None,
    ) -> Float[Array, "b *space c"]:
        """Normalise x [B, *space, C]; modulation: (scale, shift), each [B, C]."""
        b, c = x.shape[0], x.shape[-1]
        wide = accumulation_dtype(self.dtype)
        gain = self.param("scale", nn.initializers.ones, (c,), jnp.float32).astype(wide)
        offset = self.param("bias", nn.initializers.zeros, (c,), jnp.float32).astype(wide)
        gain, offset = (jnp.broadcast_to(v, (b, c)) for v in (gain, offset))
        if modulation is not None:
            scale, shift = modulation
            gain, offset = gain * (1.0 + scale), offset * (1.0 + scale) + shift
        return group_norm(x, gain, offset, group_count(c), self.epsilon).astype(self.dtype)


class Modulation(nn.Module):
    """FiLM: a Dense from the conditioning vector [B, E] to (scale, shift), each [B, channels], in float32 or wider."""

    channels: int
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, condition: Float[Array, "b e"]) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
        """Project the conditioning vector."""
        dense = nn.Dense(2 * self.channels, dtype=accumulation_dtype(self.dtype), name="dense")
        scale, shift = jnp.split(dense(condition), 2, axis=-1)
        return scale, shift


def conv3x3(
    channels: int,
    dtype: str | np.dtype | type,
    name: str,
    *,
    zero: bool = False,
    stride: int = 1,
    convolution: str = "xla",
) -> nn.Conv:
    """A 3x3 convolution with padding 1 on every side, by one of CONVOLUTIONS; `zero` starts it at zero."""
    return nn.Conv(
        channels,
        (3, 3),
        stride,
        padding=1,
        kernel_init=nn.initializers.zeros if zero else nn.initializers.lecun_normal(),
        dtype=dtype,
        conv_general_dilated=CONVOLUTIONS[convolution],
        name=name,
    )


class ResBlock(nn.Module):
    """norm, SiLU, conv, norm (modulated), SiLU, dropout, conv; plus the input (1x1 conv if the channels differ).

    [B, H, W, C] -> [B, H, W, channels]. Without a conditioning vector there is no modulation and no parameter for it.
    """

    channels: int
    dropout: float = 0.0
    dtype: str | np.dtype | type = "float32"
    convolution: str = "xla"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], condition: Float[Array, "b e"] | None = None, *, train: bool = False
    ) -> Float[Array, "b h w {self.channels}"]:
        """Apply the block; condition: [B, E] or None."""
        hidden = nn.silu(GroupNorm(self.dtype, name="norm_in")(x))
        hidden = conv3x3(self.channels, self.dtype, "conv_in", convolution=self.convolution)(hidden)
        film = None if condition is None else Modulation(self.channels, self.dtype, name="film")(condition)
        hidden = nn.silu(GroupNorm(self.dtype, name="norm_out")(hidden, film))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        hidden = conv3x3(self.channels, self.dtype, "conv_out", zero=True, convolution=self.convolution)(hidden)
        if x.shape[-1] != self.channels:
            by = CONVOLUTIONS[self.convolution]
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, conv_general_dilated=by, name="skip")(x)
        return x + hidden


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over all positions of [B, H, W, C]; the softmax is float32 or wider.

    Raises:
      ValueError: num_heads does not divide C.
    """

    num_heads: int = 1
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attend and add to x."""
        b, h, w, c = x.shape
        check_heads(self.num_heads, c)
        hidden = GroupNorm(self.dtype, name="norm")(x).reshape(b, h * w, c)
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(hidden)
        hidden = _attend(qkv, self.num_heads).reshape(b, h, w, c)
        out = nn.Dense(c, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")
        return x + out(hidden)


def check_heads(num_heads: int, channels: int) -> None:
    """Refuse a number of heads that does not divide the channels with a ValueError."""
    if channels % num_heads:
        raise refused("num_heads", num_heads, f"a divisor of the channels of every attended level, of which {channels}")


def _attend(qkv: Float[Array, "b n 3*c"], heads: int) -> Float[Array, "b n c"]:
    b, n, channels = qkv.shape
    head = channels // (3 * heads)
    q, k, v = jnp.split(qkv.reshape(b, n, 3 * heads, head), 3, axis=2)
    wide = accumulation_dtype(qkv.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide) / math.sqrt(head)
    weights = jax.nn.softmax(logits, axis=-1).astype(qkv.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, n, heads * head)


class Downsample(nn.Module):
    """Halve height and width, both even, by a 3x3 convolution of stride 2 that keeps the channels."""

    dtype: str | np.dtype | type = "float32"
    convolution: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
        """[B, H, W, C] -> [B, H/2, W/2, C]."""
        return conv3x3(x.shape[-1], self.dtype, "conv", stride=2, convolution=self.convolution)(x)


class Upsample(nn.Module):
    """Double height and width by nearest neighbour, then a 3x3 convolution that keeps the channels."""

    dtype: str | np.dtype | type = "float32"
    convolution: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
        """[B, H, W, C] -> [B, 2H, 2W, C]."""
        b, h, w, c = x.shape
        repeated = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
        return conv3x3(c, self.dtype, "conv", convolution=self.convolution)(repeated)
