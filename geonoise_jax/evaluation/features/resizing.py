"""Resizing images as the published protocols do: each rule is a matrix of weights along height and along width.

Pixel j of n covers [j, j + 1). The rules differ in where they look for output pixel i of m, and in whether what they
look at grows when images get smaller:

* ``bilinear``: at (i + 1/2) n / m, between the two nearest centres (torch's ``interpolate(align_corners=False)``);
* ``bilinear_tf1``: at i n / m + 1/2, half a pixel off (``ResizeBilinear`` of TensorFlow 1 without half-pixel centres);
* ``bilinear_pil``, ``bicubic_pil``: at (i + 1/2) n / m with a kernel that is stretched by n / m where images get
  smaller, as Pillow's ``resize`` of floats; the cubic is that of Keys (1981) with a = -1/2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from geonoise_jax import checks

_Places = Float[np.ndarray, "m"]
_Weights = Float[np.ndarray, "m n"]


def resize(images: Float[Array, "b h w c"], size: int, rule: str) -> Float[Array, "b {size} {size} c"]:
    """Bring images to a square, whatever their own shape; images of that size stay as they are.

    Args:
        images: of any range.
        size: height and width of the result.
        rule: one of ``RULES``.

    Raises:
        UserError: if there is no such rule.
    """
    rows, columns = (jnp.asarray(weights(n, size, rule), images.dtype) for n in images.shape[1:3])
    # The larger of the two products comes last.
    halfway = jnp.einsum("bhwc,ih->biwc", images, rows, precision=lax.Precision.HIGHEST)
    return jnp.einsum("biwc,jw->bijc", halfway, columns, precision=lax.Precision.HIGHEST)


def weights(length: int, size: int, rule: str) -> Float[np.ndarray, "{size} {length}"]:
    """Return the share of each of ``length`` pixels in each of ``size``; rows sum to 1.

    Raises:
        UserError: if there is no such rule.
    """
    return _weights(length, size, checks.choice("rule", rule, RULES))


@functools.lru_cache(maxsize=32)
def _weights(length: int, size: int, rule: str) -> _Weights:
    return RULES[rule](length, size)


def _bilinear(length: int, size: int) -> _Weights:
    return _between((np.arange(size) + 0.5) * length / size - 0.5, length)


def _bilinear_tf1(length: int, size: int) -> _Weights:
    # TensorFlow rounds the ratio and the places to float32, which shows where images are large.
    places = np.arange(size, dtype=np.float32) * np.float32(length / size)
    return _between(places.astype(np.float64), length)


def _between(places: _Places, length: int) -> _Weights:
    """Weights of the two pixels around places that are counted in centres; beyond the ends, of the last one."""
    places = np.clip(places, 0.0, length - 1)
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(length)))


def _pil(kernel: Callable[[np.ndarray], np.ndarray], length: int, size: int) -> _Weights:
    """``precompute_coeffs`` of Pillow."""
    scale = length / size
    centres = (np.arange(size)[:, None] + 0.5) * scale
    shares = kernel((np.arange(length) + 0.5 - centres) / max(scale, 1.0))
    return shares / shares.sum(axis=1, keepdims=True)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


RULES: dict[str, Callable[[int, int], _Weights]] = {
    "bilinear": _bilinear,
    "bilinear_tf1": _bilinear_tf1,
    "bilinear_pil": functools.partial(_pil, _triangle),
    "bicubic_pil": functools.partial(_pil, _cubic),
}
