"""EfficientNet-Lite0 as a network of features: ImageNet classes, of which the input of the last layer is kept.

EfficientNet (Tan & Le 2019, table 1) without squeeze-and-excitation and with ReLU6 for swish; stem and head keep their
widths. It is for use with weights that are there already: normalisations are folded into the convolutions before them,
and there is nothing to train with.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.nets.network import check_input

FEATURES = 1280
CLASSES = 1000
_STEM = 32


class Stage(NamedTuple):
    """Inverted bottlenecks in a row, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """[B, H, W, 3] -> features [B, 1280] and logits [B, 1000], computed in `dtype`.

    Convolutions pad as TensorFlow's "SAME" at the size that the input has, 224 where the weights were trained.
    """

    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b 1280"], Float[Array, "b 1000"]]:
        """Apply the network to images of (pixel - 127) / 128.

        Raises:
          UserError: images are no floats [B, H, W, C].
        """
        check_input(images, "[B, H, W, 3]", rank=4)
        x = relu6(self._conv(_STEM, 3, 2, "stem")(images))
        blocks = [(stage, 1 if again else stage.stride) for stage in STAGES for again in range(stage.repeats)]
        for number, (stage, stride) in enumerate(blocks):
            x = Bottleneck(stage, stride, self.dtype, name=f"block_{number}")(x)
        features = relu6(self._conv(FEATURES, 1, 1, "head")(x)).mean((1, 2))
        return features, nn.Dense(CLASSES, dtype=self.dtype, name="classes")(features)

    def _conv(self, channels: int, kernel: int, stride: int, name: str) -> nn.Conv:
        return nn.Conv(channels, (kernel, kernel), stride, dtype=self.dtype, name=name)


class Bottleneck(nn.Module):
    """Expand by a 1x1 convolution, convolve each channel for itself, project; plus the input where shapes agree."""

    stage: Stage
    stride: int
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """[B, H, W, C] -> [B, H / stride, W / stride, channels], rounded up."""
        stage, width = self.stage, x.shape[-1] * self.stage.expand
        hidden = x
        if stage.expand > 1:
            hidden = relu6(nn.Conv(width, (1, 1), dtype=self.dtype, name="expand")(hidden))
        hidden = relu6(Depthwise(stage.kernel, self.stride, self.dtype, name="depthwise")(hidden))
        hidden = nn.Conv(stage.channels, (1, 1), dtype=self.dtype, name="project")(hidden)
        return x + hidden if x.shape == hidden.shape and self.stride == 1 else hidden


class Depthwise(nn.Module):
    """A convolution of each channel for itself, as a sum of shifted images.

    XLA's CPU backend takes several times as long for the same as a convolution of groups.
    """

    kernel: int
    stride: int
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """[B, H, W, C] -> [B, H / stride, W / stride, C], rounded up."""
        k, step, c = self.kernel, self.stride, x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, c)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (c,)).astype(self.dtype)
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (step, step), "SAME")
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), *pads, (0, 0)))
        rows, columns = (-(-n // step) for n in x.shape[1:3])
        total = jnp.broadcast_to(bias, (x.shape[0], rows, columns, c))
        for i, j in np.ndindex(k, k):
            shifted = padded[:, i : i + (rows - 1) * step + 1 : step, j : j + (columns - 1) * step + 1 : step]
            total = total + shifted * kernel[None, i : i + 1, j]
        return total


def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return min(max(x, 0), 6)."""
    return jnp.clip(x, 0.0, 6.0)
