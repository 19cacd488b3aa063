"""The Inception network of 2015-12-05 that the Fréchet Inception distance is defined on (Heusel et al. 2017).

Inception-v3 (Szegedy et al. 2016) with what the graph of that date has otherwise: 1008 classes, average pooling that
counts no padding, and max pooling in the last block. Blocks and layers are called as in torchvision. It is for use with
weights that are there already: normalisations are folded into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.nets.network import check_input

FEATURES = 2048
CLASSES = 1008

Images = Float[Array, "b h w c"]


class Layer(NamedTuple):
    """A convolution and ReLU; with a stride of 2 no padding, otherwise the same size."""

    name: str
    channels: int
    height: int = 1
    width: int = 1
    stride: int = 1


class Branch(NamedTuple):
    """Layers in a row, after which several side by side may end it."""

    layers: tuple[Layer, ...]
    ends: tuple[Layer, ...] = ()


class Block(NamedTuple):
    """Branches side by side, and one that pools first."""

    branches: tuple[Branch, ...]
    pool: Callable[[Images], Images]
    pooled: Branch


def average_pool(x: Images) -> Images:
    """Mean over 3x3 pixels of those that there are."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: Images) -> Images:
    """Maximum over 3x3 pixels."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halve(x: Images) -> Images:
    """Maximum over 3x3 pixels at every other place, without padding."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def _branch(name: str, *shapes: tuple[int, ...]) -> Branch:
    """A branch of several layers, numbered from 1; shapes are channels, height, width and stride."""
    return Branch(tuple(Layer(f"{name}_{number}", *shape) for number, shape in enumerate(shapes, start=1)))


def _single(name: str, channels: int) -> Branch:
    return Branch((Layer(name, channels),))


def _fork(name: str, number: int, channels: int) -> tuple[Layer, ...]:
    return Layer(f"{name}_{number}a", channels, 1, 3), Layer(f"{name}_{number}b", channels, 3, 1)


def _block_a(pooled: int) -> Block:
    double = _branch("branch3x3dbl", (64,), (96, 3, 3), (96, 3, 3))
    branches = _single("branch1x1", 64), _branch("branch5x5", (48,), (64, 5, 5)), double
    return Block(branches, average_pool, _single("branch_pool", pooled))


def _block_b() -> Block:
    double = _branch("branch3x3dbl", (64,), (96, 3, 3), (96, 3, 3, 2))
    return Block((Branch((Layer("branch3x3", 384, 3, 3, 2),)), double), halve, Branch(()))


def _block_c(inner: int) -> Block:
    once = _branch("branch7x7", (inner,), (inner, 1, 7), (192, 7, 1))
    twice = _branch("branch7x7dbl", (inner,), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7))
    return Block((_single("branch1x1", 192), once, twice), average_pool, _single("branch_pool", 192))


def _block_d() -> Block:
    long = _branch("branch7x7x3", (192,), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2))
    return Block((_branch("branch3x3", (192,), (320, 3, 3, 2)), long), halve, Branch(()))


def _block_e(pool: Callable[[Images], Images]) -> Block:
    once = Branch(_branch("branch3x3", (384,)).layers, _fork("branch3x3", 2, 384))
    twice = Branch(_branch("branch3x3dbl", (448,), (384, 3, 3)).layers, _fork("branch3x3dbl", 3, 384))
    return Block((_single("branch1x1", 320), once, twice), pool, _single("branch_pool", 192))


BLOCKS: dict[str, Block] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e(average_pool),
    "Mixed_7c": _block_e(max_pool),
}


class InceptionV3(nn.Module):
    """[B, H, W, 3] -> features [B, 2048] of the last pooling and logits [B, 1008], computed in `dtype`.

    The logits are those of the inception score, which leave out the bias of the last layer (as the code of Salimans et
    al. 2016 does).
    """

    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b 2048"], Float[Array, "b 1008"]]:
        """Apply the network to images of about -1..1, which protocols bring to 299x299.

        Raises:
          UserError: images are no floats [B, H, W, C].
        """
        check_input(images, "[B, H, W, 3]", rank=4)
        x = self._convolve(images, Layer("Conv2d_1a_3x3", 32, 3, 3, 2))
        x = self._convolve(x, Layer("Conv2d_2a_3x3", 32, 3, 3), "VALID")
        x = halve(self._convolve(x, Layer("Conv2d_2b_3x3", 64, 3, 3)))
        x = self._convolve(x, Layer("Conv2d_3b_1x1", 80))
        x = halve(self._convolve(x, Layer("Conv2d_4a_3x3", 192, 3, 3), "VALID"))
        for name, block in BLOCKS.items():
            x = Mixed(block, self.dtype, name=name)(x)
        features = x.mean((1, 2))
        return features, nn.Dense(CLASSES, use_bias=False, dtype=self.dtype, name="fc")(features)

    def _convolve(self, x: Images, layer: Layer, padding: str = "") -> Images:
        return convolve(x, layer, self.dtype, padding)


class Mixed(nn.Module):
    """One block: [B, H, W, C] -> the channels of its branches one after another."""

    block: Block
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Apply all branches."""
        found = [self._follow(branch, x) for branch in self.block.branches]
        return jnp.concatenate([*found, self._follow(self.block.pooled, self.block.pool(x))], axis=-1)

    def _follow(self, branch: Branch, x: Images) -> Images:
        for layer in branch.layers:
            x = convolve(x, layer, self.dtype)
        if not branch.ends:
            return x
        return jnp.concatenate([convolve(x, layer, self.dtype) for layer in branch.ends], axis=-1)


def convolve(x: Images, layer: Layer, dtype: str | np.dtype | type, padding: str = "") -> Images:
    """Apply a layer within the module that is being called; padding other than by the stride may be named."""
    padding = padding or ("SAME" if layer.stride == 1 else "VALID")
    kernel = (layer.height, layer.width)
    return nn.relu(nn.Conv(layer.channels, kernel, layer.stride, padding, dtype=dtype, name=layer.name)(x))
