"""Arrays in .npy and .npz files as data sets; a split is read without the rest of a .npy file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from geonoise_jax.data import in_memory
from geonoise_jax.data.npy_rows import Block, NpyRows
from geonoise_jax.data.paths import found
from geonoise_jax.data.rows import NoReaderError
from geonoise_jax.data.splits import Part
from geonoise_jax.errors import UserError

SPLIT = "{split}"
# Names of the arrays in .npz files of several origins: (items, labels). The second is a file of `geonoise sample`.
KEYS = (
    ("x", "labels"),
    ("samples", "labels"),
    ("images", "labels"),
    ("events", "labels"),
    ("x_{split}", "y_{split}"),
    ("{split}_images", "{split}_labels"),
    ("arr_0", "arr_1"),
)


class Stored(NamedTuple):
    """One array in a file.

    Attributes:
      open: opens it at its head.
      shape, dtype: as stored.
      title: how errors call it.
    """

    open: Callable[[], AbstractContextManager[IO[bytes]]]
    shape: tuple[int, ...]
    dtype: np.dtype
    title: str


def stored(opener: Callable[[], AbstractContextManager[IO[bytes]]], title: str) -> Stored:
    """Look at the head of an array.

    Raises:
      ValueError: no readable array of real numbers; nothing that it may hold is executed.
    """
    with _reading(title), opener() as file:
        shape, _, dtype = _head(file)
    if dtype.kind not in "fiu":
        raise UserError(f"{title}: has dtype {dtype}; must be real numbers")
    return Stored(opener, shape, dtype, title)


def read_rows(array: Stored, start: int = 0, stop: int | None = None) -> Shaped[np.ndarray, "N *event"]:
    """Read some rows of an array, in the byte order of this machine.

    Raises:
      ValueError: the file is damaged.
    """
    with _reading(array.title), array.open() as file:
        shape, fortran, dtype = _head(file)
        stop = shape[0] if stop is None else stop
        if fortran:
            rows = _numbers(file, dtype, math.prod(shape)).reshape(shape[::-1]).T[start:stop]
        else:
            width = math.prod(shape[1:])
            file.seek(start * width * dtype.itemsize, 1)
            rows = _numbers(file, dtype, (stop - start) * width).reshape(-1, *shape[1:])
    return np.ascontiguousarray(rows, dtype.newbyteorder("="))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Arrays:
    """What .npy and .npz files have in common: arrays of items and of labels by split.

    Attributes:
      channels_first: whether images are [N, C, H, W]; None: refuse what looks like it.
      num_classes: number of classes; None: one more than the largest label of any split.
    """

    channels_first: bool | None = None
    num_classes: int | None = None

    def _found(self) -> dict[str, tuple[Stored, Stored | None]]:
        """Items and labels of each split."""
        raise NotImplementedError

    @functools.cached_property
    def _splits(self) -> dict[str, tuple[Stored, Stored | None]]:
        return self._found()

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of items of each split."""
        for items, _ in self._splits.values():
            if not items.shape:
                raise UserError(f"{items.title}: has no rows; must be [N, *event]")
        return {split: items.shape[0] for split, (items, _) in self._splits.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an item, channels last."""
        items, _ = next(iter(self._splits.values()))
        return in_memory.event_shape(items.shape, self.channels_first, items.title)

    @property
    def dtype(self) -> np.dtype:
        """Dtype as stored, in the byte order of this machine."""
        items, _ = next(iter(self._splits.values()))
        return items.dtype.newbyteorder("=")

    @functools.cached_property
    def _labels(self) -> dict[str, Int32[np.ndarray, "N"] | None]:
        return {
            split: None if labels is None else in_memory.class_numbers(read_rows(labels), items.shape[0], labels.title)
            for split, (items, labels) in self._splits.items()
        }

    @property
    def classes(self) -> int | None:
        """Number of classes, None without labels."""
        present = [labels for labels in self._labels.values() if labels is not None]
        if not present:
            return None
        return self.num_classes or max(int(labels.max(initial=-1)) for labels in present) + 1 or None

    @property
    def class_names(self) -> None:
        """Numbers have no names."""
        return

    def read(
        self, spec: str, parts: Sequence[Part]
    ) -> tuple[Shaped[np.ndarray, "N *event"], Int32[np.ndarray, "N"] | None]:
        """Read the items of some parts, see `own.Source`."""
        del spec
        self._check_alike(parts)
        arrays = [read_rows(self._splits[split][0], start, stop) for split, start, stop in parts]
        events = in_memory.channels_last(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), self.channels_first)
        return events, self._labels_of_parts(parts)

    def _check_alike(self, parts: Sequence[Part]) -> None:
        first, *others = (self._splits[split][0] for split, *_ in parts)
        for array in others:
            if array.shape[1:] != first.shape[1:]:
                raise UserError(f"{array.title}: has items {list(array.shape[1:])}, others {list(first.shape[1:])}")

    def _labels_of_parts(self, parts: Sequence[Part]) -> Int32[np.ndarray, "N"] | None:
        labels = [None if (rows := self._labels[split]) is None else rows[start:stop] for split, start, stop in parts]
        known = [rows for rows in labels if rows is not None]
        return np.concatenate(known) if len(known) == len(labels) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Npy(_Arrays):
    """A .npy file of items, or one for each split.

    Attributes:
      path: the file; with `{split}` in its name, as in `x_{split}.npy`, one file for each split.
      labels: the file of the labels, with `{split}` if path has it; None: no labels.
    """

    PATH: ClassVar[str] = "the .npy file, or with {split} in its name one for each split"

    path: str | Path
    labels: str | Path | None = None

    def _found(self) -> dict[str, tuple[Stored, Stored | None]]:
        paths = _by_split(self.path)
        return {
            split: (self._stored("path", path), self._labels_of(split, split_known=SPLIT in str(self.path)))
            for split, path in paths.items()
        }

    def _labels_of(self, split: str, *, split_known: bool) -> Stored | None:
        if self.labels is None:
            return None
        if split_known != (SPLIT in str(self.labels)):
            raise UserError(
                f"data.kwargs.labels = {str(self.labels)!r}: must have {SPLIT} in its name if data.kwargs.path does"
            )
        return self._stored("labels", str(self.labels).replace(SPLIT, split))

    def reader(self, spec: str, parts: Sequence[Part]) -> NpyRows:
        """Return what reads single items of some parts, see `own.Source`."""
        del spec
        self._check_alike(parts)
        first, _ = self._splits[parts[0][0]]
        blocks = [self._block(self._splits[split][0], start, stop) for split, start, stop in parts]
        arrange = functools.partial(in_memory.channels_last, channels_first=self.channels_first)
        return NpyRows(blocks, first.shape[1:], first.dtype, self._labels_of_parts(parts), arrange)

    @staticmethod
    def _block(array: Stored, start: int, stop: int) -> Block:
        with _reading(array.title), array.open() as file:
            shape, fortran, dtype = _head(file)
            width, head = math.prod(shape[1:]) * dtype.itemsize, file.tell()
            if os.fstat(file.fileno()).st_size < head + shape[0] * width:
                raise ValueError("it ends before the last number")
        if fortran:
            raise NoReaderError(
                f"{array.title}: is in Fortran order, whose items cannot be read one by one; save np.ascontiguousarray "
                "of it"
            )

        def opened() -> int:
            with array.open() as file:
                return os.dup(file.fileno())

        return Block(opened, head + start * width, stop - start, array.title, start)

    @staticmethod
    def _stored(key: str, value: str | Path) -> Stored:
        path = found(f"data.kwargs.{key}", value, folder=False)
        return stored(lambda: path.open("rb"), f"data.kwargs.{key} = {str(value)!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Npz(_Arrays):
    """A .npz file with items and perhaps labels, or with those of each split.

    Attributes:
      path: the file.
      x: name of the array of items, with `{split}` for one array for each split; None: the first of `KEYS` that is
        there.
      labels: name of the labels, likewise; None with `x` given: no labels.
    """

    PATH: ClassVar[str] = "the .npz file"

    path: str | Path
    x: str | None = None
    labels: str | None = None

    def _found(self) -> dict[str, tuple[Stored, Stored | None]]:
        path = found("data.kwargs.path", self.path, folder=False)
        title = f"data.kwargs.path = {str(self.path)!r}"
        names = npz_names(path, title)
        x, labels = (self.x, self.labels) if self.x is not None else _known_keys(names, title)
        labels = self.labels or labels
        items = _matching(x, names)
        if not items:
            raise UserError(f"data.kwargs.x = {x!r}: no such array in {str(self.path)!r}, which has {_listed(names)}")
        member = functools.partial(npz_member, path, title)
        return {split: (member(name), self._labels_of(labels, split, names, member)) for split, name in items.items()}

    def reader(self, spec: str, parts: Sequence[Part]) -> NpyRows:
        """Refuse to read single items, see `own.Source`: they may be compressed together.

        Raises:
          NoReaderError: always.
        """
        del spec, parts
        raise NoReaderError(
            f"data.kwargs.path = {str(self.path)!r}: items of .npz files cannot be read one by one; save the arrays as "
            ".npy files (data.name = npy)"
        )

    def _labels_of(
        self, pattern: str | None, split: str, names: Sequence[str], member: Callable[[str], Stored]
    ) -> Stored | None:
        name = None if pattern is None else pattern.replace(SPLIT, split)
        if name not in names and self.labels is not None:
            raise UserError(f"data.kwargs.labels = {self.labels!r}: no array {name!r} in {str(self.path)!r}")
        return member(name) if name is not None and name in names else None


def npz_names(path: Path, title: str) -> list[str]:
    """Return the names of the arrays of a .npz file."""
    with _reading(title, ".npz"), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def npz_member(path: Path, title: str, name: str) -> Stored:
    """Return one array of a .npz file."""

    @contextlib.contextmanager
    def opener() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            yield file

    return stored(opener, f"{title}, array {name!r}")


def _known_keys(names: Sequence[str], title: str) -> tuple[str, str | None]:
    for x, labels in KEYS:
        if _matching(x, names):
            return x, labels
    if len(names) == 1:
        return names[0], None
    raise UserError(f"{title}: has arrays {_listed(names)}; say which are the items by data.kwargs.x")


def _matching(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Return the names that a pattern has, by split; `train` where it has no place for one."""
    expression = re.compile(re.escape(pattern).replace(re.escape(SPLIT), r"([A-Za-z0-9_]+)"))
    matches = {name: expression.fullmatch(name) for name in names}
    return {match[1] if SPLIT in pattern else "train": name for name, match in matches.items() if match}


def _by_split(value: str | Path) -> dict[str, str | Path]:
    """Return the files that a path stands for, by split."""
    if SPLIT not in str(value):
        return {"train": value}
    folder, pattern = Path(value).expanduser().parent, Path(value).name
    if SPLIT not in pattern or SPLIT in str(folder):
        raise UserError(f"data.kwargs.path = {str(value)!r}: must have {SPLIT} in the name of the file only")
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    paths: dict[str, str | Path] = {split: str(folder / name) for split, name in _matching(pattern, names).items()}
    if not paths:
        raise UserError(f"data.kwargs.path = {str(value)!r}: no such files in {str(folder)!r}")
    return paths


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:10]) or "none"


def _head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format is not of plain numbers")


def _numbers(file: IO[bytes], dtype: np.dtype, count: int) -> np.ndarray:
    data: Any = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError("it ends before the last number")
    return np.frombuffer(data, dtype)


@contextlib.contextmanager
def _reading(title: str, kind: str = ".npy") -> Iterator[None]:
    """Make one error of what damaged files cause."""
    try:
        yield
    except (UserError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # damaged heads and archives raise all kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{title}: not a readable {kind} file of numbers ({reason})") from error
