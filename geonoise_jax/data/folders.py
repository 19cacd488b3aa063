"""A folder of image files as a data set."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from geonoise_jax.data import images
from geonoise_jax.data.decoding import for_each
from geonoise_jax.data.folder_tree import Tree, scan
from geonoise_jax.data.paths import found
from geonoise_jax.data.splits import Part
from geonoise_jax.errors import UserError

_LOG = logging.getLogger(__name__)


class Image(NamedTuple):
    """One file of a split.

    Attributes:
      path: the file.
      label: its class, or -1.
      header: what its head says.
      items: how many items it gives.
    """

    path: Path
    label: int
    header: images.Header
    items: int


@dataclasses.dataclass(frozen=True)
class Folder:
    """Images below a folder, see `folder_tree.scan` for splits and classes and `images` for what is read.

    Attributes:
      path: the folder.
      size: side of the images, or (height, width); None where all have one size already.
      fit: how they are brought to it, see `images.fitted`.
      channels: 1 for grey, 3 for RGB; None: 1 if no image has colours.

    Raises:
      ValueError: an argument out of its range. Files are looked at when they are asked for.
    """

    PATH: ClassVar[str] = "the folder with the images"

    path: str | Path
    size: int | Sequence[int] | None = None
    fit: str = "crop"
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.fit not in images.FITS:
            raise UserError(f"data.kwargs.fit = {self.fit!r}: must be one of {', '.join(images.FITS)}")
        if self.channels not in (None, 1, 3) or isinstance(self.channels, bool):
            raise UserError(f"data.kwargs.channels = {self.channels!r}: must be 1 (grey) or 3 (RGB)")
        if self.size is None and self.fit != "crop":
            raise UserError(f"data.kwargs.fit = {self.fit!r}: has no effect without data.kwargs.size; give one")
        if self.size is not None:
            object.__setattr__(self, "size", _height_width(self.size))
        found("data.kwargs.path", self.path, folder=True)

    @property
    def dtype(self) -> np.dtype:
        """Pixels are bytes."""
        return np.dtype(np.uint8)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of items of each split."""
        return {split: sum(image.items for image in group) for split, group in self._images.items()}

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of the items.

        Raises:
          ValueError: without `size`, if the images are of several sizes.
        """
        every = [image for group in self._images.values() for image in group]
        channels = self.channels or (1 if all(image.header.grey for image in every) else 3)
        if self._size is not None:
            return (*self._size, channels)
        first = every[0]
        for image in every:
            if image.header.size != first.header.size:
                one, other = (f"{self._name(i.path)} is {_by(i.header.size)}" for i in (first, image))
                raise UserError(f"{self._title}: {one}, but {other} (height x width); give data.kwargs.size")
        return (*first.header.size, channels)

    @property
    def classes(self) -> int | None:
        """Number of sub-folders that are classes, or None."""
        return len(self._tree.class_names) or None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of these sub-folders, in characters that can be printed."""
        return tuple(name.encode(errors="backslashreplace").decode() for name in self._tree.class_names) or None

    def read(
        self, spec: str, parts: Sequence[Part]
    ) -> tuple[UInt8[np.ndarray, "N H W C"], Int32[np.ndarray, "N"] | None]:
        """Read the items of some parts, see `own.Source`.

        Raises:
          ValueError: files that cannot be read; the message names them.
        """
        del spec
        total = sum(stop - start for _, start, stop in parts)
        events, labels = np.empty((total, *self.shape), np.uint8), np.empty(total, np.int32)
        self._warn_of_small()

        def fill(task: tuple[Image, int, int, int]) -> None:
            image, at, first, last = task
            rows = self.decoded(image)[first:last]
            if rows.shape != (last - first, *self.shape):
                raise images.UnreadableImageError("changed while it was read")
            events[at : at + len(rows)] = rows
            labels[at : at + len(rows)] = image.label

        for_each("read", list(self._tasks(parts)), fill, lambda task: self._name(task[0].path), self._title)
        return events, labels if self.classes else None

    def decoded(self, image: Image) -> UInt8[np.ndarray, "n H W C"]:
        """Return all items of a file.

        Raises:
          UnreadableImageError: it cannot be read.
        """
        return images.fitted(images.read(image.path, self.shape[-1]), self._height_width, self.fit)

    def reader(self, spec: str, parts: Sequence[Part]) -> FolderRows:
        """Return what reads single items of some parts, see `own.Source`."""
        del spec
        self._warn_of_small()
        tasks = [(image, first, last) for image, _, first, last in self._tasks(parts)]
        return FolderRows(self, tasks)

    def _tasks(self, parts: Sequence[Part]) -> Iterable[tuple[Image, int, int, int]]:
        """Yield (image, place of its first item, the items of it that are wanted: first, last)."""
        at = 0
        for split, start, stop in parts:
            before = 0
            for image in self._images[split]:
                first, last = max(start - before, 0), min(stop - before, image.items)
                if first < last:
                    yield image, at, first, last
                    at += last - first
                before += image.items

    @property
    def _title(self) -> str:
        return f"data.kwargs.path = {str(self.path)!r}"

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def _size(self) -> tuple[int, int] | None:
        return self.size  # type: ignore[return-value]

    @property
    def _height_width(self) -> tuple[int, int]:
        return self.shape[0], self.shape[1]

    @functools.cached_property
    def _tree(self) -> Tree:
        return scan(self._root, self._title)

    @functools.cached_property
    def _images(self) -> dict[str, list[Image]]:
        """The files with their heads, those without an item left out."""
        tree = self._tree
        files = [path for group in tree.files.values() for path, _ in group]
        heads = iter(for_each("look through", files, images.header, self._name, self._title))
        groups: dict[str, list[Image]] = {}
        for split, group in tree.files.items():
            every = [self._image(path, label, next(heads)) for path, label in group]
            groups[split] = [image for image in every if image.items]
        if not groups["train"]:
            raise UserError(f"data.kwargs.size = {self.size}: no image of {str(self.path)!r} is as large as a tile")
        return groups

    def _image(self, path: Path, label: int, header: images.Header) -> Image:
        tiles = self._size is not None and self.fit == "tiles"
        return Image(path, label, header, images.num_tiles(header.size, self._size) if tiles and self._size else 1)

    def _warn_of_small(self) -> None:
        """Say that images are enlarged: by `pad` where both sides are shorter, otherwise where one is."""
        judge = np.all if self.fit == "pad" else np.any
        every = [image for group in self._images.values() for image in group]
        small = [image for image in every if judge(np.less(image.header.size, self._height_width))]
        if small:
            name = self._name(small[0].path)
            _LOG.warning("%s: %d images are enlarged to data.kwargs.size, such as %s", self._title, len(small), name)

    def _name(self, path: Path) -> str:
        return repr(str(path.relative_to(self._root)))


class FolderRows:
    """The items of some files, one after the other; see `rows.Reader`. Of tiles, a whole image is read for each."""

    def __init__(self, folder: Folder, tasks: Sequence[tuple[Image, int, int]]) -> None:
        """Number the items.

        Args:
          folder: the folder.
          tasks: images with the items of each that are wanted: first, last.
        """
        nums = [last - first for _, first, last in tasks]
        self._folder, self._tasks, self._starts = folder, tasks, np.cumsum([0, *nums])
        self.num, self.shape, self.dtype = int(self._starts[-1]), folder.shape, folder.dtype
        self.labelled = bool(folder.classes)
        labels = np.repeat(np.asarray([image.label for image, *_ in tasks], np.int32), nums)
        self.labels = labels if self.labelled else None
        images.mute()

    def read(self, index: Int[np.ndarray, "n"]) -> tuple[UInt8[np.ndarray, "n H W C"], None]:
        """Decode the images of some items.

        Raises:
          ValueError: one cannot be read, or has changed.
        """
        out = np.empty((len(index), *self.shape), np.uint8)
        tasks = self._task(index)
        for task in np.unique(tasks).tolist():
            image, first, last = self._tasks[task]
            places = np.flatnonzero(tasks == task)
            rows = self._folder.decoded(image)[first:last]
            if len(rows) != last - first:
                raise images.UnreadableImageError("changed while it was read")
            out[places] = rows[index[places] - self._starts[task]]
        return out, None

    def where(self, row: int) -> str:
        """Return the file."""
        return str(self._tasks[int(self._task(np.asarray([row]))[0])][0].path)

    def _task(self, index: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        return np.searchsorted(self._starts, index, side="right") - 1


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(sides, (tuple, list))
        or len(sides) != 2
        or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in sides)
    ):
        raise UserError(f"data.kwargs.size = {size!r}: must be a side or (height, width), positive integers")
    return sides[0], sides[1]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
