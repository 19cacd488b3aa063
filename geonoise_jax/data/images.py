"""Decode image files that others made: one way of reading for every format, and refusals that say what to do.

What is read: 8-bit images of one frame. The orientation of a camera is applied, palettes and CMYK become RGB, bilevel
images grey, transparent pixels white. What has no one meaning as 8-bit pixels is refused: 16 bits and more per channel,
animations, damaged files, and images beyond Pillow's limit for what may be an attack on the memory. Colour profiles are
not applied.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from geonoise_jax.errors import UserError

# By content, whatever the name says; no format that starts another program or a large library.
# JPEG includes MPO, the same with further frames.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".gif")
# Images that would be missed if they were passed over as something else.
UNREAD_SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".dng", ".cr2", ".nef", ".arw")
FITS = ("crop", "stretch", "pad", "tiles")
# Orientations of EXIF that exchange width and height.
_TURNED = (5, 6, 7, 8)
_GREY, _COLOUR = ("1", "L", "LA", "La"), ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")

Pixels = UInt8[np.ndarray, "h w c"]


class Header(NamedTuple):
    """What the head of a file says.

    Attributes:
      size: height and width, the right way up.
      grey: whether it has no colour.
    """

    size: tuple[int, int]
    grey: bool


class UnreadableImageError(UserError):
    """A file that is no image that can be read; the message does not name it."""


def header(path: Path) -> Header:
    """Read the head of an image file.

    Raises:
      UnreadableImageError: it cannot be read, or is of a kind that is refused.
    """
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        width, height = image.size
        return Header((width, height) if turned else (height, width), image.mode in _GREY)


def read(path: Path, channels: int) -> Pixels:
    """Decode an image file.

    Args:
      path: the file.
      channels: 1 for grey, 3 for RGB.

    Raises:
      UnreadableImageError: it cannot be read, or is of a kind that is refused.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _TRANSPARENT or "transparency" in upright.info:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        # A palette has no way to grey but by colours.
        colours = upright.convert("RGB") if upright.mode not in ("L", "1") else upright
        pixels = np.asarray(colours.convert("L" if channels == 1 else "RGB"), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def fitted(pixels: Pixels, size: tuple[int, int], fit: str) -> UInt8[np.ndarray, "n height width c"]:
    """Bring an image to one size.

    Args:
      pixels: the image.
      size: height and width.
      fit: `crop` resizes until the image just covers the size and cuts out its middle; `stretch` resizes both sides;
        `pad` resizes until it just fits in, between black margins; `tiles` does not resize, and cuts as many images
        side by side as there are, from the middle.

    Returns:
      The images: one, or as many as there are tiles, possibly none.
    """
    if fit == "tiles":
        return _tiles(pixels, size)
    if pixels.shape[:2] == size:
        return pixels[None]
    return _RESIZES[fit](pixels, size)[None]


def num_tiles(found: tuple[int, int], size: tuple[int, int]) -> int:
    """Return how many tiles `fitted` cuts from an image of the size found."""
    return (found[0] // size[0]) * (found[1] // size[1])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Mute Pillow's warnings of odd metadata and of large images, whose size is checked here.

    For the thread that starts others to read: filters of warnings belong to the whole process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def mute() -> None:
    """Mute the same warnings from now on, where threads read images as they are needed."""
    warnings.filterwarnings("ignore", module="PIL")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong with it, here and while it is used, is one kind of error."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_kind(image)
            yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(f"is no image that is read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(_too_large()) from None
    except Exception as error:  # decoders of damaged files raise all kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UnreadableImageError(f"is damaged or cannot be read ({reason})") from error


def _check_kind(image: Image.Image) -> None:
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise UnreadableImageError(_too_large())
    # Cameras store previews as further frames of an MPO.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnreadableImageError("is animated; save the frames that count as single images")
    # Pillow cuts 16-bit colours of a PNG to 8 bits without a word.
    deep = image.format == "PNG" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if deep or image.mode not in _GREY + _COLOUR:
        raise UnreadableImageError(
            f"has more than 8 bits a channel (mode {image.mode}); save 8-bit images, or all as one .npy with data.range"
        )


def _too_large() -> str:
    return f"has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller"


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    # Pillow's filters cover all of the pixels that become one.
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS), np.uint8)
    return resized.reshape(*size, pixels.shape[-1])


def _crop(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    ratio = max(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    covering = _resized(pixels, _scaled(pixels, ratio, lambda side, wanted: max(side, wanted), size))
    top, left = ((have - want) // 2 for have, want in zip(covering.shape, size, strict=False))
    return covering[top : top + size[0], left : left + size[1]]


def _pad(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    ratio = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    inner = _resized(pixels, _scaled(pixels, ratio, lambda side, wanted: max(1, min(side, wanted)), size))
    canvas = np.zeros((*size, pixels.shape[-1]), np.uint8)
    top, left = ((want - have) // 2 for have, want in zip(inner.shape, size, strict=False))
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def _scaled(pixels: Pixels, ratio: float, bound: Callable[[int, int], int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image times a ratio, where rounding may not pass the bound."""
    return bound(round(pixels.shape[0] * ratio), size[0]), bound(round(pixels.shape[1] * ratio), size[1])


def _tiles(pixels: Pixels, size: tuple[int, int]) -> UInt8[np.ndarray, "n height width c"]:
    (height, width), channels = size, pixels.shape[-1]
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    top, left = (pixels.shape[0] - rows * height) // 2, (pixels.shape[1] - columns * width) // 2
    used = pixels[top : top + rows * height, left : left + columns * width]
    return used.reshape(rows, height, columns, width, channels).swapaxes(1, 2).reshape(-1, height, width, channels)


_RESIZES: dict[str, Callable[[Pixels, tuple[int, int]], Pixels]] = {"crop": _crop, "stretch": _resized, "pad": _pad}
