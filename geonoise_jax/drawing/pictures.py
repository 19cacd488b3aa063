"""Pictures of samples: grids of images, scatter plots of vectors."""

from __future__ import annotations

import io
import math
import re
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from geonoise_jax import files
from geonoise_jax.drawing import style
from geonoise_jax.errors import UserError

_MIN_TILE = 64
_BORDER = 2
_FONT_SIZE, _MARGIN = 15, 8
_SEPARATOR = " · "
_BACKGROUND = 255


def image_grid(images: UInt8[np.ndarray, "n h w c"], *, columns: int | None = None) -> Image.Image:
    """Lay images out in rows, enlarged by a whole factor to at least 64 pixels, with thin white gaps.

    Args:
        images: 1, 3 or 4 channels; of any other number the first is shown.
        columns: images in a row; as square as possible by default.

    Raises:
        ValueError: if there are no images.
    """
    if len(images) == 0:
        raise UserError("images: there must be at least one")
    images = images if images.shape[-1] in (1, 3, 4) else images[..., :1]
    columns = columns or math.ceil(math.sqrt(len(images)))
    factor = max(1, math.ceil(_MIN_TILE / max(images.shape[1:3])))
    tiles = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = tiles.shape[1] + _BORDER, tiles.shape[2] + _BORDER
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * height + _BORDER, columns * width + _BORDER, tiles.shape[3]), _BACKGROUND, np.uint8)
    for position, tile in enumerate(tiles):
        top, left = (position // columns) * height + _BORDER, (position % columns) * width + _BORDER
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return Image.fromarray(canvas[..., 0] if canvas.shape[-1] == 1 else canvas)


def caption(run: str, step: int, sampler: str, evaluations: Float[np.ndarray, "n"] | None = None) -> str:
    """Return the line that says where samples come from: run, step, sampler and evaluations of the network."""
    parts = [run, f"step {step:,}", sampler]
    if evaluations is not None and len(evaluations):
        mean = float(np.mean(evaluations))
        same = bool((np.asarray(evaluations) == mean).all())
        parts.append(f"{mean:,.0f} evaluations" if same else f"{mean:,.0f} evaluations on average")
    return _SEPARATOR.join(parts)


def captioned(picture: Image.Image, title: str) -> Image.Image:
    """Put a title above a picture on white, broken between its parts into lines that fit; a picture stays as it is."""
    if not title:
        return picture
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _FONT_SIZE)
    lines, line_height = _broken(title, font, picture.width - 2 * _MARGIN), round(1.35 * _FONT_SIZE)
    width = max(picture.width, *(math.ceil(font.getlength(line)) + 2 * _MARGIN for line in lines))
    top = line_height * len(lines) + _MARGIN
    colours = picture.mode if picture.mode in ("L", "RGB") else "RGB"
    canvas = Image.new(colours, (width, top + picture.height), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN // 2 + number * line_height), line, fill="black", font=font)
    canvas.paste(picture.convert(colours), (0, top))
    return canvas


def _broken(title: str, font: Any, width: int) -> list[str]:
    """Return the parts of a title in as few lines of a width as there must be."""
    lines: list[str] = []
    for part in title.split(_SEPARATOR):
        longer = f"{lines[-1]}{_SEPARATOR}{part}" if lines else part
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def to_pixels(x: Float[np.ndarray, "*b h w c"]) -> UInt8[np.ndarray, "*b h w c"]:
    """Map model space [-1, 1] to displayable 0..255, clipped; not-a-number becomes black."""
    finite = np.nan_to_num(np.asarray(x, np.float32), nan=-1.0).clip(-1.0, 1.0)
    return np.rint((finite + 1.0) * 127.5).astype(np.uint8)


@style.paper()
def scatter(
    samples: Float[np.ndarray, "n *event"], reference: Float[np.ndarray, "m *event"] | None, *, title: str = ""
) -> Image.Image:
    """Plot vectors in the plane of the two leading principal components of the reference, which is shown in grey.

    The axes span twice the reference; the number of samples outside, those that are not finite among them, is given in
    the title. Without a reference the samples are their own.
    """
    finite = _finite_rows(samples)
    plane, points = _principal_plane(finite if reference is None else _finite_rows(reference), finite)
    limit = 2.0 * np.abs(plane).max(initial=0.0) or 1.0
    outside = len(samples) - int((np.abs(points) <= limit).all(axis=1).sum())
    figure = Figure(figsize=(5, 5), layout="constrained")
    panel = figure.subplots()
    if reference is not None:
        panel.plot(plane[:, 0], plane[:, 1], ".", markersize=3, color="0.7", label="data")
    panel.plot(points[:, 0], points[:, 1], ".", markersize=3, color=style.COLORS[0], alpha=0.7, label="samples")
    panel.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        aspect="equal",
        xlabel="first principal component",
        ylabel="second principal component",
    )
    panel.set_title(title + (f"  ({outside} outside)" if outside else ""), fontsize=8.0)
    panel.legend(loc="upper right", markerscale=2.5)
    return to_image(figure)


def sample_picture(
    samples: Float[np.ndarray, "n *event"], reference: Float[np.ndarray, "m *event"] | None = None, *, title: str = ""
) -> Image.Image:
    """Return the picture that suits the samples: a grid of images, or a scatter plot of vectors over the reference.

    The title is above either, for instance a :func:`caption`.
    """
    if samples.ndim == 4:
        return captioned(image_grid(to_pixels(samples)), title)
    return scatter(samples, reference, title=title)


def save(picture: Image.Image, path: PurePath) -> None:
    """Write a PNG, making its folder; the file appears whole or not at all."""
    files.write_picture(path, picture)


def write_each(out: PurePath, pixels: UInt8[np.ndarray, "n h w c"], *, png: bool, npy: bool) -> list[PurePath]:
    """Write images one by one as ``OUT/000000.png``, ... and together as ``OUT.npy``.

    Pictures that an earlier call left in the folder, numbered in the same way, are replaced or removed.

    Args:
        out: the common name without ending.
        pixels: the images; of 1, 3 or 4 channels for PNG.
        png: whether to write them one by one.
        npy: whether to write them together.

    Returns:
        The folder, the file.
    """
    written = []
    if png:
        for number, image in enumerate(pixels):
            save(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), out / f"{number:06d}.png")
        for old in files.listed(out):
            if old.suffix == ".png" and re.fullmatch(r"\d{6,}", old.stem) and int(old.stem) >= len(pixels):
                files.remove(old)
        written.append(out)
    if npy:
        path = out.with_name(out.name + ".npy")
        with files.replacing(path) as file:
            np.save(file, pixels)
        written.append(path)
    return written


def _finite_rows(points: np.ndarray) -> Float[np.ndarray, "n d"]:
    flat = points.reshape(len(points), -1).astype(np.float64)
    return flat[np.isfinite(flat).all(axis=1)]


def _principal_plane(
    base: Float[np.ndarray, "m d"], points: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "n 2"]]:
    """Return both sets in the plane of the two leading principal components of the first, which may have fewer."""
    center = base.mean(axis=0) if len(base) else np.zeros(base.shape[1])
    directions = np.linalg.svd(base - center, full_matrices=False)[2][:2]
    axes = np.zeros((2, base.shape[1]))
    axes[: len(directions)] = directions
    return (base - center) @ axes.T, (points - center) @ axes.T


def to_image(figure: Figure, dpi: float = 150) -> Image.Image:
    """Render a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer)
