"""The one seam between the package and its small files: paths, writes that are whole or not at all, a folder's lock.

Everything takes a ``str`` or a ``Path``, goes through :func:`local` first, and says in one line what is wrong with
which file. Arrays in checkpoints are Orbax's and data sets are TFDS's; all other files of the package are read and
written here. Of several processes only the lead writes and locks, see ``processes``: in the others that does nothing.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shutil
import socket
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from geonoise_jax import processes
from geonoise_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# As a Path spells it too, which makes s3:/bucket of s3://bucket. A drive of Windows has one letter.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_DRAFTS: set[Path] = set()
_NUMBERS = itertools.count()
_LOCKED: set[Path] = set()
_LOCKED_GUARD = threading.Lock()
_LOCK, _HOLDER = ".writer.lock", ".writer.json"


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched again: ``$XDG_CACHE_HOME/geonoise_jax``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geonoise_jax"


def local(path: str | Path, name: str = "path") -> Path:
    """Return the path of a local file or folder, ``~`` expanded.

    Args:
        path: as the user gave it.
        name: what gave it, for errors.

    Raises:
        UserError: if it is empty, a URL, no UTF-8, or begins with the ``~`` of an unknown user.
    """
    text = os.fspath(path)
    if _URL.match(text):
        raise UserError(f"{name} = {text!r}: only local paths are supported; mount the storage, or copy the files")
    if not text or "\0" in text:
        raise UserError(f"{name} = {text!r}: must be the path of a file or a folder")
    if not text.isascii() and _spelt(text) != os.fsencode(text):
        # Orbax's file layer takes names as UTF-8, and would read and write elsewhere.
        raise UserError(
            f"{name} = {text!r}: is not in UTF-8, or the locale is not; set PYTHONUTF8=1, or use plain letters"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name} = {text!r}: there is no such user's home folder") from error


def _spelt(text: str) -> bytes:
    return text.encode(errors="ignore")


def usable_folder(path: str | Path, name: str = "path", *, room: int = 0) -> Path:
    """Return a folder that exists or can be made, can be written to and has room; changes nothing.

    Args:
        path: the folder.
        name: what gave it, for errors.
        room: bytes that will be written.

    Raises:
        UserError: if it is not so.
    """
    folder = local(path, name)
    given = f"{name} = {str(folder)!r}"
    with _naming(folder, "cannot be used"):
        above = next(each for each in (folder, *folder.absolute().parents) if each.exists() or each.is_symlink())
        if not above.is_dir():
            what = "" if above == folder else f"{str(above)!r} "
            raise UserError(f"{given}: {what}{'is a file' if above.exists() else 'is a broken link'}, not a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise UserError(f"{given}: cannot be written to: no permission, or read-only; choose another folder")
        free = shutil.disk_usage(above).free
    if free < room:
        raise UserError(f"{given}: has no room: {_size(room)} are needed and {_size(free)} are free; make room")
    return folder


@contextlib.contextmanager
def replacing(path: str | Path, name: str = "out") -> Iterator[IO[bytes]]:
    """Open a draft that becomes ``path``, in a folder made if need be, when the context ends well, else vanishes.

    It is opened before the work is done, so that a folder that cannot be written to is found out first. Once in place,
    the file is on the disk.

    Raises:
        UserError: if ``path`` is a folder, or cannot be written.
    """
    path = local(path, name)
    if not processes.is_lead():
        yield io.BytesIO()
        return
    draft = path.with_name(f".draft-{os.getpid()}-{next(_NUMBERS)}.tmp")
    with _naming(path, "cannot be written", draft):
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


def remove(path: str | Path) -> None:
    """Remove a file; one that is gone already is as well."""
    path = local(path)
    if not processes.is_lead():
        return
    with _naming(path, "cannot be removed"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as one line of JSON, whole or not at all."""
    write_text(path, json.dumps(value) + "\n")


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
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


def read_arrays(path: str | Path) -> dict[str, Any]:
    """Return the arrays of a .npz by name.

    Raises:
        UserError: if it is damaged or cannot be read.
    """
    import numpy as np

    path = local(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: is damaged or cannot be read ({error}); remove it, and it is made again") from error


def write_picture(path: str | Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as file:
        picture.save(file, format="PNG")


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file, which is on the disk when this returns."""
    path = local(path)
    if not processes.is_lead():
        return
    with _naming(path, "cannot be written"), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_text(path: str | Path) -> str:
    """Return the contents of a text file.

    Raises:
        UserError: if it cannot be read, or is no text.
    """
    path = local(path)
    with _naming(path, "cannot be read"):
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is damaged: no text from byte {error.start} on") from error


def read_json(path: str | Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        UserError: if it cannot be read, or is no JSON.
    """
    return _parsed(read_text(path), str(path))


def read_json_lines(path: str | Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """Return the objects of a file with one in each line.

    Args:
        path: the file.
        torn: leave out a last line that a crash has torn.

    Raises:
        UserError: if it cannot be read, or a line is no JSON object.
    """
    lines = read_text(path).splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            value = _parsed(line, f"{path}: line {number}")
            if not isinstance(value, dict):
                raise UserError(f"{path}: line {number}: is damaged: must be a JSON object")
        except UserError:
            if torn and number == len(lines):
                break
            raise
        found.append(value)
    return found


@contextlib.contextmanager
def locked(folder: str | Path, name: str = "path") -> Iterator[None]:
    """Be the only writer of a folder, which is made if need be, among all threads and processes on all hosts.

    The system releases the lock when the process ends, however it ends. ``.writer.json`` beside it says who holds it.

    Raises:
        UserError: if another holds it, saying who.
    """
    path = local(folder, name)
    if not processes.is_lead():
        yield
        return
    from filelock import FileLock, Timeout

    with _naming(path, "cannot be locked"):
        path.mkdir(parents=True, exist_ok=True)
        key = path.resolve()
        # Where the system's lock is one of processes, as on NFS, it does not tell threads apart.
        with _LOCKED_GUARD:
            if key in _LOCKED:
                raise UserError(_in_use(path, name))
            _LOCKED.add(key)
        lock = FileLock(path / _LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            _LOCKED.discard(key)
            raise UserError(_in_use(path, name)) from error
        except BaseException:
            _LOCKED.discard(key)
            raise
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        write_json(path / _HOLDER, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        with contextlib.suppress(OSError):
            (path / _HOLDER).unlink(missing_ok=True)
        lock.release()
        _LOCKED.discard(key)


def check_unlocked(folder: str | Path, name: str = "path") -> None:
    """Refuse a folder that another writer holds, before work that leads to :func:`locked`.

    Raises:
        UserError: saying who holds it.
    """
    if (local(folder, name) / _HOLDER).exists():
        with locked(folder, name):
            pass


def _in_use(folder: Path, name: str) -> str:
    try:
        holder = read_json(folder / _HOLDER)
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (UserError, KeyError, TypeError):
        who = "another process"
    return f"{name} = {str(folder)!r}: is in use by {who}; wait for it, stop it, or choose another folder"


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: is damaged: not valid JSON ({error})") from error
    except RecursionError as error:
        raise UserError(f"{where}: is damaged: JSON nested too deep") from error


@contextlib.contextmanager
def _naming(path: Path, what: str, *also: Path) -> Iterator[None]:
    """Name the path in errors of the system that are about it, of which some name none, such as a full disk's."""
    try:
        yield
    except OSError as error:
        about = None if error.filename is None else Path(os.fsdecode(error.filename))
        if about not in (None, path, path.parent, *path.parents, *also, path / _LOCK):
            raise
        reason = error.strerror or str(error)
        raise UserError(f"{path}: {what} ({reason[:1].lower()}{reason[1:]})") from error


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file on the disk as well, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _size(num: int) -> str:
    return f"{num / 2**30:.1f} GiB" if num >= 2**30 else f"{num / 2**20:.1f} MiB"
