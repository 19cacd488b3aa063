"""Radial power spectra of waves and of noise, whose power is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geonoise_jax.evaluation import spectrum
from geonoise_jax.evaluation.spectrum import radial_spectrum, spectrum_excess


def noise(seed: int, num: int, height: int = 16, width: int = 16, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, height, width, channels))


@pytest.mark.parametrize("shape", [(16, 16, 1), (15, 15, 3), (8, 12, 2)])
def test_white_noise_has_its_variance_at_every_frequency(shape: tuple[int, int, int]) -> None:
    found = radial_spectrum(3.0 * noise(0, 3000, *shape))
    assert found.num == 3000
    assert len(found.frequencies) == min(shape[:2]) // 2 + 1
    assert (np.abs(found.power - 9.0) < 4.5 * found.spread).all()
    assert found.spread[-1] < found.spread[0], "more frequencies in the outer rings"


@pytest.mark.parametrize(("across", "down", "ring"), [(0, 0, 0), (3, 0, 3), (0, 5, 5), (3, 4, 5), (8, 0, 8), (1, 1, 1)])
def test_a_wave_has_its_power_in_its_ring(across: int, down: int, ring: int) -> None:
    position = np.arange(16)
    wave = np.cos(2.0 * np.pi * (across * position[None] + down * position[:, None]) / 16)
    found = radial_spectrum(np.stack([wave, -2.0 * wave])[..., None])
    others = np.arange(9) != ring
    np.testing.assert_allclose(found.power[others], 0.0, atol=1e-12)
    assert found.power[ring] > 0.1
    np.testing.assert_allclose(found.frequencies, np.arange(9) / 16)


def test_all_power_together_is_the_mean_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parseval's identity; also in chunks, and for frequencies beyond Nyquist."""
    images = noise(1, 7, 6, 6, 2)
    power = spectrum._power(images)
    np.testing.assert_allclose(power.mean(axis=(1, 2)), (images**2).mean(axis=(1, 2, 3)), rtol=1e-12)
    whole = radial_spectrum(images)
    monkeypatch.setattr(spectrum, "_CHUNK", 2)
    np.testing.assert_allclose(radial_spectrum(images).power, whole.power, rtol=1e-12)


def test_the_excess_is_the_logarithm_of_the_ratio() -> None:
    """White noise on top of a smooth image: little at low frequencies, all at high ones."""
    smooth = noise(2, 400)[:, :1, :1] * np.ones((1, 16, 16, 1)) * 3.0
    data = smooth + 0.1 * noise(3, 400)
    found = spectrum_excess(smooth + 0.2 * noise(4, 400), data)
    assert found.high.low < np.log(4.0) < found.high.high
    assert found.by_frequency[0].low < 0.0 < found.by_frequency[0].high
    assert found.by_frequency[6].value == pytest.approx(np.log(4.0), abs=0.1)
    other = spectrum_excess(data, smooth + 0.2 * noise(4, 400))
    assert other.high.value == pytest.approx(-found.high.value, rel=1e-12)


def test_intervals_contain_the_excess_of_the_laws() -> None:
    """Images whose brightness of contrast varies by image, so that pixels are no independent numbers."""
    hits, rings = 0, 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        contrast = np.exp(0.5 * generator.standard_normal((2, 60, 1, 1, 1)))
        samples, data = contrast * noise(seed + 1000, 120, 8, 8).reshape(2, 60, 8, 8, 1)
        found = spectrum_excess(1.2 * samples, data)
        want = 2.0 * np.log(1.2)
        hits += found.high.low <= want <= found.high.high
        rings += found.by_frequency[2].low <= want <= found.by_frequency[2].high
    assert min(hits, rings) >= 90


X = noise(5, 10)
NAN = np.where(np.arange(10)[:, None, None, None] < 2, np.nan, X)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: radial_spectrum(NAN), "images: 2 of 10 rows are not finite; must be none"),
    (lambda: spectrum_excess(X, NAN), "data: 2 of 10 rows are not finite; must be none"),
    (lambda: radial_spectrum(X[:1]), r"images.shape\[0\] = 1: must be at least 2 points"),
    (lambda: radial_spectrum(X[..., 0]), r"images.shape = \[10, 16, 16\]: must be \[n, H, W, C\]"),
    (lambda: radial_spectrum(X[:, :3]), r"images.shape = \[10, 3, 16, 1\]: must be images of at least 4 pixels a side"),
    (lambda: spectrum_excess(X, X[:, :8]), r"samples.shape\[1:\] = \(16, 16, 1\): must equal data.shape\[1:\] ="),
    (lambda: spectrum_excess(np.zeros_like(X), X), "power at 0 cycles per pixel: is 0; must be positive"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
