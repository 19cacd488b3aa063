"""Image files of every kind: what they become, and which are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax.data import images
from tests.own_files import pixels, save

GREY, COLOUR = pixels(0, 6, 8), pixels(1, 6, 8, 3)


def test_formats_without_loss_are_read_as_they_are(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a.ppm", "A.PNG"):
        np.testing.assert_array_equal(images.read(save(tmp_path / name, COLOUR), 3), COLOUR)
    np.testing.assert_array_equal(images.read(save(tmp_path / "a.webp", COLOUR, lossless=True), 3), COLOUR)
    np.testing.assert_array_equal(images.read(save(tmp_path / "g.png", GREY), 1)[..., 0], GREY)
    np.testing.assert_array_equal(images.read(tmp_path / "g.png", 3), np.repeat(GREY[..., None], 3, axis=2))


def test_a_jpeg_is_read_and_the_name_does_not_decide(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (1, 32, 3))
    path = save(tmp_path / "a.png", smooth, format="JPEG", quality=95)
    assert np.abs(images.read(path, 3).astype(int) - smooth).max() <= 4
    assert images.header(path) == ((32, 32), False)
    previews = Image.fromarray(smooth[:8, :8])
    Image.fromarray(smooth).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[previews], quality=95)
    np.testing.assert_array_equal(images.read(tmp_path / "a.jpg", 3), images.read(path, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_camera_is_applied(orientation: int, tmp_path: Path) -> None:
    """Rows and columns of the stored image, by the table of the EXIF standard."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", COLOUR, exif=exif)
    upright = COLOUR.swapaxes(0, 1) if orientation > 4 else COLOUR
    upright = upright[::-1] if orientation in (3, 4, 7, 8) else upright
    upright = upright[:, ::-1] if orientation in (2, 3, 6, 7) else upright
    np.testing.assert_array_equal(images.read(path, 3), upright)
    assert images.header(path).size == upright.shape[:2]


def test_palettes_cmyk_and_bilevel_images_are_converted(tmp_path: Path) -> None:
    palette = Image.frombytes("P", (8, 6), bytes(range(48)))
    palette.putpalette([value for i in range(128) for value in (i, 2 * i, 255 - i)])
    palette.save(tmp_path / "p.png")
    index = np.arange(48).reshape(6, 8)
    np.testing.assert_array_equal(
        images.read(tmp_path / "p.png", 3), np.stack([index, 2 * index, 255 - index], axis=-1).astype(np.uint8)
    )
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    red = images.read(tmp_path / "c.jpg", 3)
    assert red[..., 0].min() > 250
    assert red[..., 1:].max() < 5
    Image.fromarray(GREY > 127).save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.read(tmp_path / "b.png", 1)[..., 0], np.where(GREY > 127, 255, 0))
    assert images.header(tmp_path / "b.png").grey
    assert not images.header(tmp_path / "p.png").grey


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    alpha = np.zeros((6, 8, 1), np.uint8)
    alpha[:3] = 255
    path = save(tmp_path / "a.png", np.concatenate([COLOUR, alpha], axis=2))
    expected = np.where(alpha > 0, COLOUR, 255)
    np.testing.assert_array_equal(images.read(path, 3), expected)
    Image.fromarray(COLOUR).save(tmp_path / "key.png", transparency=tuple(COLOUR[0, 0].tolist()))
    assert (images.read(tmp_path / "key.png", 3)[0, 0] == 255).all()


def _png(*parts: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _bomb(path: Path) -> None:
    """A file of some bytes that claims a hundred million pixels."""
    head = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    path.write_bytes(_png((b"IHDR", head), (b"IDAT", zlib.compress(b"\0"))))


def _deep_colour(path: Path) -> None:
    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    path.write_bytes(_png((b"IHDR", head), (b"IDAT", zlib.compress(bytes(13))), (b"IEND", b"")))


def _animated(path: Path, kind: str) -> None:
    frames = [Image.fromarray(pixels(seed, 6, 8, 3)) for seed in range(3)]
    frames[0].save(path, format=kind, save_all=True, append_images=frames[1:])


def _cut(path: Path, name: str, keep: float) -> None:
    whole = save(path.with_name(name), pixels(2, 64, 64, 3)).read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])


REFUSED: dict[str, Any] = {
    "has more than 8 bits a channel": lambda path: Image.fromarray(GREY.astype(np.uint16)).save(path, format="PNG"),
    "has more than 8 bits a channel (mode RGB)": _deep_colour,
    "is animated": lambda path: _animated(path, "GIF"),
    "is animated;": lambda path: _animated(path, "PNG"),
    "is animated; ": lambda path: _animated(path, "WEBP"),
    "has more than 89478485 pixels": _bomb,
    "is no image that is read (": lambda path: save(path, COLOUR, format="EPS"),
    "is no image that is read (PNG": lambda path: save(path, COLOUR, format="TIFF"),
    "is no image": lambda path: path.write_bytes(b""),
    "is damaged or cannot be read (image file is truncated": lambda path: _cut(path, "whole.jpg", 0.5),
    "is damaged or cannot be read": lambda path: _cut(path, "whole.png", 0.5),
    "is damaged or cannot be read ([Errno": lambda path: path.symlink_to(path.with_name("nowhere")),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_one_meaning_is_refused(message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    REFUSED[message](path)
    with images.quiet(), pytest.raises(images.UnreadableImageError) as caught:
        images.read(path, 3)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_fits_give_the_size_that_is_asked() -> None:
    for shape in ((6, 8, 3), (8, 6, 1), (1, 9, 3), (40, 7, 3), (333, 1000, 1)):
        image = pixels(0, *shape)
        for size in ((4, 4), (5, 7), (64, 3)):
            for fit in ("crop", "stretch", "pad"):
                assert images.fitted(image, size, fit).shape == (1, *size, shape[2]), (shape, size, fit)


def test_crop_keeps_the_middle_and_pad_everything() -> None:
    halves = np.zeros((8, 32, 1), np.uint8)
    halves[:, 12:20] = 200
    assert (images.fitted(halves, (8, 8), "crop") == 200).all()
    padded = images.fitted(np.full((8, 32, 1), 200, np.uint8), (16, 16), "pad")[0, :, :, 0]
    np.testing.assert_array_equal(padded, np.repeat([0, 200, 0], [6, 4, 6])[:, None] * np.ones((1, 16)))
    assert (images.fitted(np.full((8, 32, 1), 200, np.uint8), (16, 16), "stretch") == 200).all()


def test_an_image_of_the_size_is_not_touched() -> None:
    for fit in images.FITS:
        np.testing.assert_array_equal(images.fitted(COLOUR, (6, 8), fit), COLOUR[None])


def test_tiles_lie_side_by_side_in_the_middle() -> None:
    image = pixels(0, 9, 11, 3)
    tiles = images.fitted(image, (4, 5), "tiles")
    assert len(tiles) == images.num_tiles((9, 11), (4, 5)) == 4
    np.testing.assert_array_equal(tiles[0], image[0:4, 0:5])
    np.testing.assert_array_equal(tiles[3], image[4:8, 5:10])
    assert images.fitted(image, (10, 5), "tiles").shape == (0, 10, 5, 3)
