"""Radial power spectra of images, and how much more power samples have at high frequencies than data.

The power of a frequency is |F|^2 / (H W) of the discrete Fourier transform F over height and width, averaged over
channels; white noise has its variance at every frequency. Frequencies are in cycles per pixel, 0.5 (Nyquist) being the
highest along an axis. Images are not periodic, which puts some power everywhere, in samples and data alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import Estimate, log_ratio
from geonoise_jax.evaluation.point_sets import rows, same_shape

NYQUIST = 0.5
_CHUNK = 1024
_SMALLEST = 4


class Spectrum(NamedTuple):
    """The mean power of images by frequency.

    Attributes:
        frequencies: centres of the rings, in cycles per pixel, from 0 to 0.5.
        power: mean over images, channels and the frequencies of a ring.
        spread: its standard error, of the scatter between images.
        num: number of images.
    """

    frequencies: Float[np.ndarray, "F"]
    power: Float[np.ndarray, "F"]
    spread: Float[np.ndarray, "F"]
    num: int


class SpectrumExcess(NamedTuple):
    """Logarithms of the ratio of samples' power to data's.

    Attributes:
        frequencies: centres of the rings, in cycles per pixel.
        by_frequency: of each ring, with its interval; each interval holds alone.
        high: of all frequencies above half of Nyquist together: zero if samples have as much power there as data.
    """

    frequencies: Float[np.ndarray, "F"]
    by_frequency: tuple[Estimate, ...]
    high: Estimate


def radial_spectrum(images: Float[np.ndarray, "n H W C"]) -> Spectrum:
    """Return the radial power spectrum of images, in rings of width 1 / min(H, W) up to Nyquist.

    Args:
        images: n images, at least 2.

    Raises:
        UserError: if they are no images of at least 4 pixels a side, too few, or not finite (they are counted).
    """
    frequencies, powers, _ = _powers("images", images)
    spread = powers.std(axis=0, ddof=1) / np.sqrt(len(powers))
    return Spectrum(frequencies, powers.mean(axis=0), spread, len(powers))


def spectrum_excess(samples: Float[np.ndarray, "n H W C"], data: Float[np.ndarray, "m H W C"]) -> SpectrumExcess:
    """Return the logarithms of the ratio of samples' to data's power, by frequency and above half of Nyquist.

    Intervals contain the number of the two laws with 95%; both sets of images count as drawn.

    Args:
        samples: n images, at least 2.
        data: m images of the same shape.

    Raises:
        UserError: as :func:`radial_spectrum`, if the shapes differ, or images have no power where it is compared.
    """
    same_shape("samples", np.shape(samples)[1:], "data", np.shape(data)[1:])
    frequencies, ours, ours_high = _powers("samples", samples)
    _, theirs, theirs_high = _powers("data", data)
    rings = tuple(
        log_ratio(ours[:, ring], theirs[:, ring], f"power at {frequency:.3g} cycles per pixel")
        for ring, frequency in enumerate(frequencies)
    )
    return SpectrumExcess(frequencies, rings, log_ratio(ours_high, theirs_high, "power above half of Nyquist"))


def _powers(
    name: str, images: Float[np.ndarray, "n H W C"]
) -> tuple[Float[np.ndarray, "F"], Float[np.ndarray, "n F"], Float[np.ndarray, "n"]]:
    """Return frequencies, the power of each image in each ring, and its mean power above half of Nyquist."""
    checks.shape(name, images, ("n", "H", "W", "C"))
    height, width = images.shape[1:3]
    if min(height, width) < _SMALLEST:
        raise UserError(f"{name}.shape = {list(images.shape)}: must be images of at least {_SMALLEST} pixels a side")
    flat = rows(name, images).reshape(images.shape)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    side = min(height, width)
    ring = np.rint(radius * side).astype(int)
    frequencies = np.arange(side // 2 + 1) / side
    members = (ring[..., None] == np.arange(len(frequencies))).astype(np.float64)
    members = np.concatenate([members, (radius > NYQUIST / 2)[..., None]], axis=-1)
    members /= members.sum(axis=(0, 1))
    chunks = (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))
    found = np.concatenate([np.tensordot(_power(chunk), members, 2) for chunk in chunks])
    return frequencies, found[:, :-1], found[:, -1]


def _power(images: Float[np.ndarray, "n H W C"]) -> Float[np.ndarray, "n H W"]:
    transformed = np.fft.fft2(images, axes=(1, 2))
    return (np.abs(transformed) ** 2).mean(axis=-1) / (images.shape[1] * images.shape[2])
