"""A picture of some items of a data set, with their classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_TILE = 64
_GAP = 4
_TEXT = 12


def captioned_grid(images: UInt8[np.ndarray, "n h w c"], captions: Sequence[str]) -> Image.Image:
    """Lay images out in rows, enlarged by a whole factor to at least 64 pixels, each over its caption.

    Args:
        images: 1, 3 or 4 channels; of any other number the first is shown.
        captions: a text for each, cut to the width of the image; or none at all.
    """
    images = images if images.shape[-1] in (1, 3, 4) else images[..., :1]
    factor = max(1, math.ceil(_TILE / max(images.shape[1:3])))
    height, width = factor * images.shape[1], factor * images.shape[2]
    columns = math.ceil(math.sqrt(len(images) * height / width))
    step_down, step_right = height + _GAP + (_TEXT if captions else 0), width + _GAP
    size = (columns * step_right + _GAP, math.ceil(len(images) / columns) * step_down + _GAP)
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT - 2)
    for number, image in enumerate(images):
        left, top = _GAP + number % columns * step_right, _GAP + number // columns * step_down
        tile = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        canvas.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top))
        if captions:
            draw.text((left, top + height), _fitting(captions[number], font, width), font=font, fill="black")
    return canvas


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut a text to a width."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
