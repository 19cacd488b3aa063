"""Reading small files, and what is said of damaged ones."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import IO, Any

from geonoise_jax.errors import UserError
from geonoise_jax.files import bucket
from geonoise_jax.files.paths import location, naming


@contextlib.contextmanager
def opened(path: str | PurePath) -> Iterator[IO[bytes]]:
    """Open a file for reading; one of a bucket is read as a whole.

    Raises:
        UserError: if it cannot be opened.
    """
    with _open(location(path)) as file:
        yield file


def _open(path: PurePath) -> IO[bytes]:
    if not isinstance(path, Path):
        return io.BytesIO(bucket.read(path))
    with naming(path, "cannot be read"):
        return path.open("rb")


def read_text(path: str | PurePath) -> str:
    """Return the contents of a text file.

    Raises:
        UserError: if it cannot be read, or is no text.
    """
    found = location(path)
    if isinstance(found, Path):
        with naming(found, "cannot be read"):
            content = found.read_bytes()
    else:
        content = bucket.read(found)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{found}: is damaged: no text from byte {error.start} on") from error


def read_arrays(
    path: str | PurePath,
    wanted: Callable[[str], bool] = lambda _: True,
    *,
    remedy: str = "remove it, and it is made again",
) -> dict[str, Any]:
    """Return the arrays of a .npz by name.

    Args:
        path: the file.
        wanted: which names are read.
        remedy: what is to be done about a damaged file.

    Raises:
        UserError: if it cannot be read, or is damaged; only of the latter it says what is to be done.
    """
    import numpy as np

    with opened(path) as file:
        try:
            with np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files if wanted(name)}
        # A directory of the archive that points beyond its end is an OSError, as a disk that fails is.
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{location(path)}: is damaged or cannot be read ({error}); {remedy}") from error


def read_json(path: str | PurePath) -> Any:
    """Return the value in a JSON file.

    Raises:
        UserError: if it cannot be read, or is no JSON.
    """
    return _parsed(read_text(path), str(path))


def parsed_lines(lines: Sequence[str], where: str, *, torn: bool = False) -> list[dict[str, Any]]:
    """Return the objects of lines with one in each.

    Args:
        lines: the lines.
        where: their file, for errors.
        torn: leave out a last line that a crash has torn.

    Raises:
        UserError: if a line is no JSON object.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            value = _parsed(line, f"{where}: line {number}")
            if not isinstance(value, dict):
                raise UserError(f"{where}: line {number}: is damaged: must be a JSON object")
        except UserError:
            if torn and number == len(lines):
                break
            raise
        found.append(value)
    return found


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: is damaged: not valid JSON ({error})") from error
    except RecursionError as error:
        raise UserError(f"{where}: is damaged: JSON nested too deep") from error
