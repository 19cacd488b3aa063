"""Metrics of images without a network of features."""

from __future__ import annotations

import numpy as np

from geonoise_jax.evaluation.metrics.base import ZERO, Inputs, Value
from geonoise_jax.evaluation.spectrum import spectrum_excess


def spectrum(inputs: Inputs) -> dict[str, Value]:
    """Return the logarithm of the ratio of the power of samples to that of data above half of Nyquist."""

    def high(images: np.ndarray) -> float:
        return spectrum_excess(images, inputs.held_out).high.value

    found = spectrum_excess(inputs.samples, inputs.held_out).high
    protocol = "log of the ratio of mean power above 0.25 cycles per pixel"
    floor = inputs.floor("spectrum", high)
    return {"spectrum": Value(found, "95%, Student's t over images of both sets", ZERO, protocol, floor)}
