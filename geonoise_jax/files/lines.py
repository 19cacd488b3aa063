"""Files to which one line of JSON after another is added, each of which is there to stay once it is.

A local file is appended to. An object of a bucket cannot be, so there the file is a folder of parts::

    metrics.jsonl/000002/00000000-00000512.jsonl    lines 0 to 511
    metrics.jsonl/000002/00000512-00000544.jsonl    lines 512 to 543
    metrics.jsonl/000002/00000544-00000545.jsonl    line 544

A line is an object of its own first; of every ``FAN`` equal parts at the end one is made, and then they are removed. So
n lines are n (1 + 1 / (FAN - 1)) writes and at most 1 + log_FAN(n) times their bytes, and lie in at most ``FAN`` parts
of each size. Of parts with one beginning the longest counts: what a crash leaves is never read twice.

The whole is replaced by a part 0-n of the next number, before the earlier ones are removed: the highest number that has
a beginning counts. Names sort as the lines do. A folder of this form is read and continued on a local disk too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from geonoise_jax import processes
from geonoise_jax.errors import UserError
from geonoise_jax.files import bucket
from geonoise_jax.files.paths import exists, is_folder, listed, location
from geonoise_jax.files.reading import parsed_lines, read_text
from geonoise_jax.files.writing import append_line, remove, write_text

FAN = 32
_NAME = re.compile(r"(\d{8})-(\d{8})\.jsonl")
# Parts may be put together between a listing and its reading.
_ATTEMPTS = 5


class JsonLines:
    """A file with a JSON object in each line, of which this is the only writer.

    Attributes:
        path: the file; in a bucket the folder of its parts.
    """

    def __init__(self, path: str | PurePath) -> None:
        """Open nothing yet."""
        self.path = location(path)
        self._parts: _Parts | None = None

    def exists(self) -> bool:
        """Return whether the file is there."""
        return exists(self.path)

    def read(self, *, torn: bool = False) -> list[dict[str, Any]]:
        """Return all objects; none where there is no file.

        Args:
            torn: leave out a last line that a crash has torn.

        Raises:
            UserError: if it cannot be read, or a line is no JSON object.
        """
        return parsed_lines(self._lines(), str(self.path), torn=torn)

    def is_whole(self) -> bool:
        """Return whether the last line, if there is one, is an object too.

        Raises:
            UserError: if it cannot be read, or a line but the last is no JSON object.
        """
        lines = self._lines()
        return len(parsed_lines(lines, str(self.path), torn=True)) == len(lines)

    def is_ended(self) -> bool:
        """Return whether what is added begins a line of its own."""
        return self._is_parted() or not self.exists() or read_text(self.path).endswith("\n")

    def replace(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Write these objects in place of all, in one move."""
        lines = [json.dumps(value) for value in values]
        if self._is_parted():
            if processes.is_lead():
                self._opened().replace(lines)
        else:
            write_text(self.path, "".join(f"{line}\n" for line in lines))

    def append(self, value: Mapping[str, Any], *, allow_nan: bool = True) -> None:
        """Add an object, which is on the disk, or in the bucket, when this returns."""
        line = json.dumps(value, allow_nan=allow_nan)
        if not processes.is_lead():
            return
        if self._is_parted():
            self._opened().append(line)
        elif isinstance(self.path, Path):
            append_line(self.path, line)

    def _lines(self) -> list[str]:
        if self._is_parted():
            return _Parts(self.path).lines
        return read_text(self.path).splitlines() if self.exists() else []

    def _is_parted(self) -> bool:
        """Return whether the file is in parts: always in a bucket, but for one that was copied there."""
        return not isinstance(self.path, Path) or is_folder(self.path)

    def _opened(self) -> _Parts:
        if self._parts is None:
            self._parts = _Parts(self.path)
        return self._parts


class _Parts:
    """The parts of one file, as they are when this is made, and their one writer afterwards."""

    def __init__(self, folder: PurePath) -> None:
        self._folder = folder
        for attempt in range(_ATTEMPTS):
            self._number, self._ends = _found(folder)
            try:
                texts = _read([self._path(*each) for each in self._ends])
                break
            except UserError:
                if attempt == _ATTEMPTS - 1:
                    raise
        self.lines = [line for text in texts for line in text.splitlines()]
        if not self._number and bucket.holds(folder) and bucket.kind(folder) == bucket.FILE:
            # A file of a local workdir that was copied into the bucket.
            self.lines = read_text(folder).splitlines()
        if self._ends and len(self.lines) != self._ends[-1][1]:
            raise UserError(f"{folder}: is damaged: has {len(self.lines)} lines; must have {self._ends[-1][1]}")

    def append(self, line: str) -> None:
        if self._number == 0 and self.lines:
            self.replace(self.lines)
        self._number = max(self._number, 1)
        self.lines.append(line)
        self._write(len(self.lines) - 1, len(self.lines))
        self._join()

    def replace(self, lines: list[str]) -> None:
        self._number, self._ends, self.lines = self._number + 1, [], list(lines)
        self._write(0, len(lines))
        for name in listed(self._folder):
            if name.name.isdigit() and int(name.name) < self._number:
                _remove(listed(name))
        if bucket.holds(self._folder):
            remove(self._folder)

    def _join(self) -> None:
        """Make one part of equal ones at the end, while there are enough."""
        size = 1
        while len(self._ends) >= FAN and all(stop - start == size for start, stop in self._ends[-FAN:]):
            old = self._ends[-FAN:]
            del self._ends[-FAN:]
            self._write(old[0][0], old[-1][1])
            _remove([self._path(*each) for each in old])
            size *= FAN

    def _write(self, start: int, stop: int) -> None:
        write_text(self._path(start, stop), "".join(f"{line}\n" for line in self.lines[start:stop]))
        self._ends.append((start, stop))

    def _path(self, start: int, stop: int) -> PurePath:
        return self._folder / f"{self._number:06d}" / f"{start:08d}-{stop:08d}.jsonl"


def _found(folder: PurePath) -> tuple[int, list[tuple[int, int]]]:
    """Return the number that counts, and the parts that continue each other from line 0 on; 0 where there are none."""
    numbers = sorted((int(each.name) for each in listed(folder) if each.name.isdigit()), reverse=True)
    for number in numbers:
        longest: dict[int, int] = {}
        for path in listed(folder / f"{number:06d}"):
            if match := _NAME.fullmatch(path.name):
                longest[int(match[1])] = max(longest.get(int(match[1]), 0), int(match[2]))
        found, at = [], 0
        while at in longest:
            found.append((at, longest.pop(at)))
            at = found[-1][1]
        if found:
            return number, found
    return 0, []


def _read(paths: list[PurePath]) -> list[str]:
    if paths and bucket.holds(paths[0]):
        return [content.decode() for content in bucket.read_all(paths)]
    return [read_text(path) for path in paths]


def _remove(paths: list[PurePath]) -> None:
    if paths and bucket.holds(paths[0]):
        bucket.remove(*paths)
    else:
        for path in paths:
            remove(path)
