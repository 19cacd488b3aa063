"""Two-dimensional convolutions, by XLA or as products of matrices.

XLA's CPU backend brings convolutions into the layout of its fast kernels only outside loops, and the gradient of a
convolution in its input has another layout: inside a sampler's loop it runs some ten times slower than outside. As a
product of patches and kernel it is fast everywhere, at the price of memory for the patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Convolution = Callable[..., Float[Array, "b h2 w2 o"]]


def by_patches(
    images: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c o"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **unused: Any,  # noqa: ARG001
) -> Float[Array, "b h2 w2 o"]:
    """Convolve as ``lax.conv_general_dilated`` does, without dilation or groups.

    Args:
        images: input.
        kernel: kernel.
        strides: step of the window along height and width.
        padding: zeros before and after height and width, or ``"SAME"`` or ``"VALID"``.
        **unused: what flax passes besides, all at its defaults in this package.
    """
    height, width = kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], (height, width), strides, padding)
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    rows, columns = ((n - k) // step for n, k, step in zip(padded.shape[1:3], (height, width), strides, strict=True))
    shifted = [
        padded[:, i : i + rows * strides[0] + 1 : strides[0], j : j + columns * strides[1] + 1 : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


CONVOLUTIONS: dict[str, Convolution] = {"xla": lax.conv_general_dilated, "patches": by_patches}
