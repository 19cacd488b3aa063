r"""Augmentation of images on the device, with labels by which a network is told what was done.

The pipeline of Karras et al. (2022, "Elucidating the Design Space of Diffusion-Based Generative Models", appendix F.2,
table 6). Each of the following is applied to an image with probability A_prob, independently, but the first, which
always is:

    mirror x        left-right, with probability 1/2
    mirror y        upside down, with probability 1/2
    scale           by s = 2^(0.2 w), w ~ N(0, 1)
    rotate          by an angle w ~ U(-pi, pi)
    anisotropy      by a = 2^(0.2 w) along and 1/a across an axis; that is at an angle r ~ U(-pi, pi), with
                    probability 1/2, or horizontal
    translate       by 0.125 of width and height times w ~ N(0, 1)^2

The last four are one affine map about the middle of the image: the pixel at p (x right, y down) comes from

    q = s^-1 R(w) R(-r) diag(1/a, a) R(r) (p - tau).

Labels are (mirror x, mirror y, w of the scale, cos w - 1, sin w of the angle, w cos r, w sin r of the anisotropy, both
w of the translation): all zero where nothing was done, which is what a network is told when it is sampled.

The map acts on the image at twice its resolution, between which and the image goes the orthogonal wavelet sym6: with U
of orthonormal columns, the image U x is read bilinearly, and U^T of what was read is the result. It moves a smooth
image as the function is moved, but for 2% of the amplitude. Beyond its edges the image goes on by reflection without
end (in the published code for one width, and is 0 from there).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from geonoise_jax import checks

# The low-pass filter sym6 (Daubechies 1992, "Ten Lectures on Wavelets", section 8.1.1), of norm 1 and sum sqrt 2.
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
# The place in the filter at which a pixel is.
_CENTRE = 5
SCALE_STD, ANISOTROPY_STD, TURNED, TRANSLATION_STD = 0.2, 0.2, 0.5, 0.125

Images = Float[Array, "B H W C"]


class Augmentation(Protocol):
    """What a pipeline does to images in model space, and tells the network of it."""

    @property
    def labels(self) -> int:
        """How many numbers the network is told; all are 0 for an image that is left as it is."""

    def __call__(self, x: Images, key: Key[Array, ""]) -> tuple[Images, Float[Array, "B {self.labels}"]]:
        """Return augmented images and their labels; pure JAX."""


class Changes(NamedTuple):
    """What is done to each of n images; see the module docstring for the letters."""

    mirror_x: Bool[Array, "n"]
    mirror_y: Bool[Array, "n"]
    scale: Float[Array, "n"]
    angle: Float[Array, "n"]
    anisotropy: Float[Array, "n"]
    axis: Float[Array, "n"]
    translation: Float[Array, "n 2"]


@dataclasses.dataclass(frozen=True)
class EDMAugmentation:
    """The pipeline of the module docstring.

    Attributes:
        probability: A_prob; 0.12 for CIFAR-10 and 0.15 for FFHQ and AFHQ in the paper. 0 leaves all images as they are.

    Raises:
        ValueError: if it is not in [0, 1].
    """

    probability: float = 0.12

    def __post_init__(self) -> None:
        """Validate."""
        checks.real("data.augment.kwargs.probability", self.probability, low=0.0, high=1.0)

    @property
    def labels(self) -> int:
        """Nine."""
        return 9

    def __call__(self, x: Images, key: Key[Array, ""]) -> tuple[Images, Float[Array, "B 9"]]:
        """Return augmented images and their labels.

        Args:
            x: images in model space, float32.
            key: what is done to image i is a function of this key and i alone.
        """
        if self.probability == 0.0:
            return x, jnp.zeros((x.shape[0], self.labels), x.dtype)
        changes = self.draw(key, x.shape[0])
        return apply(x, changes), labels_of(changes)

    def draw(self, key: Key[Array, ""], num: int) -> Changes:
        """Draw what is done to each of some images."""
        draws = jax.random.split(key, 6)
        turn = {"dtype": jnp.float32, "minval": -jnp.pi, "maxval": jnp.pi}
        chosen = jax.random.bernoulli(draws[0], self.probability, (num, 5))
        half = jax.random.bernoulli(draws[1], 0.5, (num, 2))
        normal = jax.random.normal(draws[2], (num, 4), jnp.float32)
        turned = jax.random.bernoulli(draws[3], TURNED, (num,))
        return Changes(
            mirror_x=half[:, 0],
            mirror_y=half[:, 1] & chosen[:, 0],
            scale=normal[:, 0] * chosen[:, 1],
            angle=jax.random.uniform(draws[4], (num,), **turn) * chosen[:, 2],
            anisotropy=normal[:, 1] * chosen[:, 3],
            axis=jax.random.uniform(draws[5], (num,), **turn) * turned,
            translation=normal[:, 2:] * chosen[:, 4:],
        )


def labels_of(changes: Changes) -> Float[Array, "n 9"]:
    """Return what a network is told of changes."""
    angle, along = changes.angle, changes.anisotropy
    columns = [
        *(changes.mirror_x.astype(jnp.float32), changes.mirror_y.astype(jnp.float32), changes.scale),
        *(jnp.cos(angle) - 1.0, jnp.sin(angle)),
        *(along * jnp.cos(changes.axis), along * jnp.sin(changes.axis)),
        *(changes.translation[:, 0], changes.translation[:, 1]),
    ]
    return jnp.stack(columns, axis=1)


def apply(x: Images, changes: Changes) -> Images:
    """Return changed images; those without a map are mirrored only, exactly."""
    x = jnp.where(changes.mirror_x[:, None, None, None], x[:, :, ::-1], x)
    x = jnp.where(changes.mirror_y[:, None, None, None], x[:, ::-1], x)
    size = jnp.asarray(x.shape[2:0:-1], jnp.float32)
    moved = changes.translation * TRANSLATION_STD * size[None]
    mapped = jnp.stack([changes.scale, changes.angle, changes.anisotropy, *changes.translation.T]).any(axis=0)
    warped = jax.vmap(warp)(x, linear_maps(changes), moved)
    return jnp.where(mapped[:, None, None, None], warped, x)


def linear_maps(changes: Changes) -> Float[Array, "n 2 2"]:
    """Return s^-1 R(w) R(-r) diag(1/a, a) R(r)."""
    a = jnp.exp2(ANISOTROPY_STD * changes.anisotropy)
    cos, sin = jnp.cos(changes.axis), jnp.sin(changes.axis)
    # The product of the last three, which is symmetric.
    stretch = _matrix(
        *(cos**2 / a + sin**2 * a, cos * sin * (a - 1 / a)), *(cos * sin * (a - 1 / a), sin**2 / a + cos**2 * a)
    )
    cos, sin = jnp.cos(changes.angle), jnp.sin(changes.angle)
    turned = jnp.einsum("nij,njk->nik", _matrix(cos, -sin, sin, cos), stretch, precision="highest")
    return turned * jnp.exp2(-SCALE_STD * changes.scale)[:, None, None]


def warp(image: Float[Array, "H W C"], linear: Float[Array, "2 2"], moved: Float[Array, "2"]) -> Float[Array, "H W C"]:
    """Return the image whose pixel at p, from the middle, is that of the given one at ``linear @ (p - moved)``.

    Args:
        image: the image.
        linear: of (x right, y down).
        moved: pixels to the right and down.
    """
    height, width, _ = image.shape
    product = functools.partial(jnp.einsum, "ai,bj,ijc->abc", precision="highest")
    fine = product(_finer(height), _finer(width), image)
    y, x = (
        jnp.arange(-_CENTRE, 2 * side + _CENTRE, dtype=jnp.float32) / 2 - (side - 1) / 2 for side in (height, width)
    )
    x, y = x[None, :] - moved[0], y[:, None] - moved[1]
    from_x = linear[0, 0] * x + linear[0, 1] * y
    from_y = linear[1, 0] * x + linear[1, 1] * y
    read = _bilinear(fine, 2 * from_y + (height - 1), 2 * from_x + (width - 1))
    return product(_coarser(height), _coarser(width), read)


def _matrix(*entries: Float[Array, "n"]) -> Float[Array, "n 2 2"]:
    return jnp.stack(entries, axis=-1).reshape(-1, 2, 2)


def _bilinear(fine: Float[Array, "p q C"], y: Float[Array, "h w"], x: Float[Array, "h w"]) -> Float[Array, "h w C"]:
    """Read a periodic image between its pixels."""
    rows, columns, channels = fine.shape
    flat = fine.reshape(-1, channels)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]

    def pixel(dy: int, dx: int) -> Float[Array, "h w C"]:
        row, column = (top.astype(jnp.int32) + dy) % rows, (left.astype(jnp.int32) + dx) % columns
        return flat[row * columns + column]

    upper = pixel(0, 0) * (1 - right) + pixel(0, 1) * right
    lower = pixel(1, 0) * (1 - right) + pixel(1, 1) * right
    return upper * (1 - down) + lower * down


@functools.cache
def _finer(side: int) -> np.ndarray:
    """Return one period, at twice the resolution, of each pixel of a row that goes on by reflection."""
    period = max(2 * (side - 1), 1)
    matrix = np.zeros((2 * period, side))
    for place in range(-len(SYM6), period + len(SYM6)):
        pixel = side - 1 - abs(side - 1 - place % period)
        for tap, weight in enumerate(SYM6):
            fine = 2 * place + tap - _CENTRE
            if 0 <= fine < 2 * period:
                matrix[fine, pixel] += weight
    return matrix.astype(np.float32)


@functools.cache
def _coarser(side: int) -> np.ndarray:
    """Return how a pixel comes from those at twice the resolution, of which the first is 5 before the image."""
    matrix = np.zeros((side, 2 * side + 2 * _CENTRE))
    for pixel in range(side):
        matrix[pixel, 2 * pixel : 2 * pixel + len(SYM6)] = SYM6
    return matrix.astype(np.float32)
