"""Writes that are whole or not at all.

A local file is written as a draft beside it, brought onto the disk and moved into place. An object of a bucket comes
into being, or takes another's place, when all of it has been received.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

from geonoise_jax import processes
from geonoise_jax.errors import UserError
from geonoise_jax.files import bucket, leases
from geonoise_jax.files.paths import local, location, naming

if TYPE_CHECKING:
    from PIL import Image

_DRAFTS: set[Path] = set()
_NUMBERS = itertools.count()
# So old a draft is whose process is gone, before it is removed: in containers that share a folder and the name of a
# host, the number of a process says nothing.
_LEFT_SECONDS = 3600.0


@contextlib.contextmanager
def replacing(path: str | PurePath, name: str = "out") -> Iterator[IO[bytes]]:
    """Open a draft that becomes ``path``, in a folder made if need be, when the context ends well, else vanishes.

    It is opened before the work is done, so that a folder that cannot be written to is found out first. Once in place,
    the file is on the disk, or in the bucket.

    Raises:
        UserError: if ``path`` is a folder, or cannot be written.
    """
    found = location(path, name)
    if not processes.is_lead():
        yield io.BytesIO()
    elif isinstance(found, Path):
        with _replacing(found, name) as file:
            yield file
    else:
        draft = io.BytesIO()
        yield draft
        leases.require(found)
        bucket.write(found, draft.getvalue())


@contextlib.contextmanager
def _replacing(path: Path, name: str) -> Iterator[IO[bytes]]:
    draft = path.with_name(f".draft-{socket.gethostname()}-{os.getpid()}-{next(_NUMBERS)}.tmp")
    with naming(path, "cannot be written", draft):
        if path.is_dir():
            raise UserError(f"{name} = {str(path)!r}: is a folder; must be the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        _DRAFTS.add(draft)
        try:
            with draft.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
            _DRAFTS.discard(draft)


def discard_drafts() -> None:
    """Remove the drafts of this process: for one that ends without unwinding."""
    for draft in tuple(_DRAFTS):
        draft.unlink(missing_ok=True)


def discard_left_drafts(folder: Path) -> None:
    """Remove drafts below a folder that processes of this host left, which were killed while they wrote."""
    for draft in folder.rglob(f".draft-{socket.gethostname()}-*.tmp"):
        number = draft.name.rsplit("-", 2)[1]
        with contextlib.suppress(OSError):
            if number.isdigit() and not _is_alive(int(number)) and time.time() - draft.stat().st_mtime > _LEFT_SECONDS:
                draft.unlink()


def _is_alive(process: int) -> bool:
    """Return whether a process of this host goes on; True where that cannot be asked without a signal."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def remove(path: str | PurePath) -> None:
    """Remove a file; one that is gone already is as well."""
    found = location(path)
    if not processes.is_lead():
        return
    if not isinstance(found, Path):
        bucket.remove(found)
        return
    with naming(found, "cannot be removed"):
        found.unlink(missing_ok=True)


def write_text(path: str | PurePath, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | PurePath, value: Any) -> None:
    """Write a value as one line of JSON, whole or not at all."""
    write_text(path, json.dumps(value) + "\n")


def write_arrays(path: str | PurePath, arrays: Mapping[str, Any]) -> None:
    """Write a .npz of arrays by name, whole or not at all."""
    with replacing(path) as file:
        save_arrays(file, arrays)


def save_arrays(file: IO[bytes], arrays: Mapping[str, Any]) -> None:
    """Write arrays by name into an open file as .npz."""
    import numpy as np

    # numpy's savez has arguments of its own, whose names arrays could have.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(value), allow_pickle=False)


def write_picture(path: str | PurePath, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as file:
        picture.save(file, format="PNG")


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a local text file, which is on the disk when this returns; see ``JsonLines`` for any."""
    found = local(path)
    if not processes.is_lead():
        return
    with naming(found, "cannot be written"), found.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file on the disk as well, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
