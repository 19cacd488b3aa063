"""Animated pictures, and the way of samples from noise to data as one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from jaxtyping import Float
from PIL import Image

from geonoise_jax import files
from geonoise_jax.drawing import pictures

_FRAMES, _SAMPLES = 48, 64
_MILLISECONDS, _LAST = 80, 2000


def frames(
    states: Float[np.ndarray, "times n *event"],
    times: Float[np.ndarray, "times"],
    scale: Float[np.ndarray, "times"],
    *,
    title: str,
) -> list[Image.Image]:
    """Return pictures of at most 48 of the states, the first and the last among them, of at most 64 samples.

    Args:
        states: observations along the way.
        times: their times.
        scale: sizes of the observations, by which they are divided: about 1 near the data.
        title: stands above every picture, before its time.
    """
    chosen = np.unique(np.linspace(0, len(states) - 1, min(len(states), _FRAMES)).round().astype(int))
    kept = states[:, :_SAMPLES]
    # What is plotted keeps the axes of the data.
    reference = None if states.ndim == 5 else kept[-1]
    return [
        pictures.sample_picture(kept[i] / scale[i], reference, title=f"{title} · t = {times[i]:.3g}").convert("RGB")
        for i in chosen
    ]


def encoded(shown: Sequence[Image.Image], kind: str = "GIF") -> bytes:
    """Return pictures of one size as an animation that repeats, the last of them shown for two seconds.

    Args:
        shown: the pictures, at least one.
        kind: ``GIF`` or ``WEBP``.
    """
    durations = [_MILLISECONDS] * (len(shown) - 1) + [_LAST]
    buffer = io.BytesIO()
    shown[0].save(buffer, format=kind, save_all=True, append_images=shown[1:], duration=durations, loop=0)
    return buffer.getvalue()


def save(path: PurePath, shown: list[Image.Image]) -> None:
    """Write pictures as a GIF of :func:`encoded`, whole or not at all."""
    with files.replacing(path) as file:
        file.write(encoded(shown))
