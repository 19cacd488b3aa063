"""A residual U-Net for images: that of DDPM (Ho et al. 2020) with scale-shift conditioning (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.nets.convolution import CONVOLUTIONS
from geonoise_jax.nets.layers import Downsample, GroupNorm, ResBlock, SelfAttention, Upsample, check_heads, conv3x3
from geonoise_jax.nets.network import Network, accumulation_dtype, check_input

Images = Float[Array, "b h w c"]


class UNet(Network, kw_only=True):
    """Residual U-Net over [B, H, W, C] with any C, for images at least as large as its down-sampling factor.

    Level i has `base_channels * channel_multipliers[i]` channels at 1/2^i of the resolution. On the way down each level
    has `blocks_per_level` residual blocks and, except the last, a strided convolution; on the way up
    `blocks_per_level + 1` blocks, each joined with one stored activation, and nearest-neighbour up-sampling with a
    convolution. The conditioning vector has 4 * base_channels entries and scales and shifts the second normalisation
    of every block.

    If H or W is not a multiple of 2^(levels-1), the image is padded with zeros on both sides (the odd row or column
    at the bottom or right) to the next multiple, and the output is cropped; all statistics include the padding.

    The last convolution of every block, the attention's last layer and the output convolution start at zero: the
    untrained network returns 0.

    Attributes:
      base_channels: channels of the first level.
      channel_multipliers: one positive integer for each level.
      blocks_per_level: residual blocks per level on the way down.
      attention_resolutions: attention follows each block of the levels whose (padded) feature map has
        max(height, width) in this list.
      middle_attention: attention between the two blocks in the middle.
      num_heads: heads of every attention; must divide the channels of every level if there is any attention.
      convolution: how convolutions are computed, `xla` or `patches`; see `convolution`. The parameters are the same.

    Raises:
      ValueError: at construction, for a field out of range (see also `Network`).
    """

    base_channels: int = 32
    channel_multipliers: Sequence[int] = (1, 2, 2)
    blocks_per_level: int = 2
    attention_resolutions: Sequence[int] = ()
    middle_attention: bool = True
    num_heads: int = 1
    convolution: str = "xla"

    def __post_init__(self) -> None:
        # Tuples keep the module hashable when a config passes lists.
        self.channel_multipliers = _checked_tuple("channel_multipliers", self.channel_multipliers)
        self.attention_resolutions = _checked_tuple("attention_resolutions", self.attention_resolutions)
        if not self.channel_multipliers:
            raise refused("channel_multipliers", (), "of at least one level")
        for name in ("base_channels", "blocks_per_level", "num_heads"):
            checks.integer(name, getattr(self, name), low=1)
        checks.truth("middle_attention", self.middle_attention)
        checks.choice("convolution", self.convolution, CONVOLUTIONS)
        if self.middle_attention or self.attention_resolutions:
            for multiplier in self.channel_multipliers:
                check_heads(self.num_heads, self.base_channels * multiplier)
        super().__post_init__()

    @property
    def factor(self) -> int:
        """The down-sampling factor 2^(levels-1)."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @nn.compact
    def __call__(
        self,
        u: Images,
        t: Float[Array, "b"] | None = None,
        labels: Int[Array, "b"] | None = None,
        *,
        train: bool = False,
        augment: Float[Array, "b a"] | None = None,
    ) -> Images:
        """Predict for a batch of images.

        Args:
          u: [B, H, W, C] inputs.
          t: [B] noise features of roughly unit range; ignored, and may be None, in a blind network.
          labels: [B] integers in 0..num_classes; None: no class.
          train: activate dropout, with the rng named 'dropout'.
          augment: [B, augment_dim] labels of augmentation; None: zeros.

        Returns:
          [B, H, W, C] in float32 (float64 if dtype is float64).

        Raises:
          ValueError: u, t or labels of a wrong shape or dtype; t missing in a conditional network; an image smaller
            than the factor; an attention resolution that no level has.
        """
        check_input(u, "[B, H, W, C]", rank=4)
        padded, margins = self._pad(u)
        self._check_attention(padded)
        condition = self.condition(u, t, labels, 4 * self.base_channels, augment)
        hidden, stored = self._encode(padded.astype(self.dtype), condition, train)
        hidden = self._middle(hidden, condition, train)
        hidden = self._decode(hidden, stored, condition, train)
        (top, left), (height, width) = margins, u.shape[1:3]
        return self._head(hidden, u.shape[-1])[:, top : top + height, left : left + width]

    def _pad(self, u: Images) -> tuple[Images, tuple[int, int]]:
        """Zero-pad height and width to multiples of the factor; the margins are those at the top and left."""
        if min(u.shape[1:3]) < self.factor:
            raise UserError(
                f"u.shape = {list(u.shape)}: must have height and width of at least {self.factor} for "
                f"{len(self.channel_multipliers)} levels; use fewer channel_multipliers"
            )
        (top, bottom), (left, right) = ((-n % self.factor // 2, (-n % self.factor + 1) // 2) for n in u.shape[1:3])
        return jnp.pad(u, ((0, 0), (top, bottom), (left, right), (0, 0))), (top, left)

    def _check_attention(self, padded: Images) -> None:
        available = [max(padded.shape[1:3]) // 2**i for i in range(len(self.channel_multipliers))]
        missing = [r for r in self.attention_resolutions if r not in available]
        if missing:
            raise UserError(
                f"attention_resolutions = {missing}: must be among {available}, the levels of images padded to "
                f"{padded.shape[1]}x{padded.shape[2]}"
            )

    def _block(self, name: str, level: int, x: Images, condition: Float[Array, "b e"] | None, train: bool) -> Images:
        """A residual block, then attention if this resolution is attended."""
        channels = self.base_channels * self.channel_multipliers[level]
        x = self._residual(name, channels)(x, condition, train=train)
        if max(x.shape[1:3]) in self.attention_resolutions:
            x = SelfAttention(self.num_heads, self.dtype, name=f"{name}_attention")(x)
        return x

    def _residual(self, name: str, channels: int) -> ResBlock:
        return ResBlock(channels, self.dropout, self.dtype, self.convolution, name=name)

    def _encode(self, x: Images, condition: Float[Array, "b e"] | None, train: bool) -> tuple[Images, list[Images]]:
        """The way down: the coarsest activation, and all activations that the way up joins, in order."""
        x = conv3x3(self.base_channels, self.dtype, "input", convolution=self.convolution)(x)
        stored = [x]
        for level in range(len(self.channel_multipliers)):
            if level > 0:
                x = Downsample(self.dtype, self.convolution, name=f"down_{level}_resample")(x)
                stored.append(x)
            for i in range(self.blocks_per_level):
                x = self._block(f"down_{level}_block_{i}", level, x, condition, train)
                stored.append(x)
        return x, stored

    def _middle(self, x: Images, condition: Float[Array, "b e"] | None, train: bool) -> Images:
        channels = x.shape[-1]
        x = self._residual("middle_block_0", channels)(x, condition, train=train)
        if self.middle_attention:
            x = SelfAttention(self.num_heads, self.dtype, name="middle_attention")(x)
        return self._residual("middle_block_1", channels)(x, condition, train=train)

    def _decode(self, x: Images, stored: list[Images], condition: Float[Array, "b e"] | None, train: bool) -> Images:
        """The way up, which takes the stored activations in reverse order, `blocks_per_level + 1` at each level."""
        reverse = iter(reversed(stored))
        for level in reversed(range(len(self.channel_multipliers))):
            for i in range(self.blocks_per_level + 1):
                joined = jnp.concatenate([x, next(reverse)], axis=-1)
                x = self._block(f"up_{level}_block_{i}", level, joined, condition, train)
            if level > 0:
                x = Upsample(self.dtype, self.convolution, name=f"up_{level}_resample")(x)
        return x

    def _head(self, x: Images, channels: int) -> Images:
        # In float32, because rounding the prediction itself to bfloat16 would limit every sampler.
        wide = accumulation_dtype(self.dtype)
        hidden = nn.silu(GroupNorm(wide, name="output_norm")(x))
        return conv3x3(channels, wide, "output", zero=True, convolution=self.convolution)(hidden)


def _checked_tuple(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise refused(name, values, "a sequence of positive integers")
    for value in values:
        checks.integer(name, value, low=1)
    return tuple(values)
