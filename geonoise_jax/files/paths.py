"""Where files lie: local paths and ``gs://BUCKET/FOLDER``, what is there, and whether it can be written to.

A path of either kind is a ``PurePath``, which can be taken apart and put together but not opened: a ``Path`` is local,
and any other (``etils.epath``) is in a bucket.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath

from geonoise_jax import processes
from geonoise_jax.errors import UserError
from geonoise_jax.files import bucket

# As a Path spells it too, which makes s3:/bucket of s3://bucket. A drive of Windows has one letter.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
LOCK, HOLDER = ".writer.lock", ".writer.json"
_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched again: ``$XDG_CACHE_HOME/geonoise_jax``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geonoise_jax"


def local(path: str | PurePath, name: str = "path") -> Path:
    """Return the path of a local file or folder, ``~`` expanded.

    Args:
        path: as the user gave it.
        name: what gave it, for errors.

    Raises:
        UserError: if it is empty, a URL, no UTF-8, or begins with the ``~`` of an unknown user.
    """
    text = os.fspath(path)
    if _URL.match(text):
        raise UserError(f"{name} = {text!r}: only local paths are supported here; mount the storage, or copy the files")
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


def location(path: str | PurePath, name: str = "path") -> PurePath:
    """Return the path of a file or folder that is local or in a bucket.

    Args:
        path: as the user gave it; ``gs://BUCKET/FOLDER`` is in a bucket of Google Cloud Storage.
        name: what gave it, for errors.

    Raises:
        UserError: if it is another URL, no path of a bucket, the packages for buckets are not installed, or ``local``
            refuses it.
    """
    text = os.fspath(path)
    if text.startswith(f"{bucket.SCHEME}:/"):
        return bucket.located(text, name)
    if _URL.match(text):
        raise UserError(
            f"{name} = {text!r}: must be a local path or gs://BUCKET/FOLDER, which alone are supported; mount other "
            "storage, or copy the files"
        )
    return local(path, name)


def absolute(path: str | PurePath) -> PurePath:
    """Return a path from the root, symbolic links resolved: one for all ways to write it."""
    found = location(path)
    return found.resolve() if isinstance(found, Path) else found


def exists(path: str | PurePath) -> bool:
    """Return whether there is a file or a folder.

    Raises:
        UserError: if a bucket does not let it be seen.
    """
    found = location(path)
    return found.exists() if isinstance(found, Path) else bucket.kind(found) is not None


def is_folder(path: str | PurePath) -> bool:
    """Return whether there is a folder; in a bucket that is what something is below of.

    Raises:
        UserError: if a bucket does not let it be seen.
    """
    found = location(path)
    return found.is_dir() if isinstance(found, Path) else bucket.kind(found) == bucket.FOLDER


def listed(folder: str | PurePath) -> list[PurePath]:
    """Return what is directly in a folder, by name; nothing where there is none.

    Raises:
        UserError: if it cannot be listed.
    """
    found = location(folder)
    if not isinstance(found, Path):
        return [found / name for name in bucket.names(found)]
    with naming(found, "cannot be listed"):
        try:
            return sorted(found.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def usable_folder(path: str | PurePath, name: str = "path", *, room: int = 0) -> PurePath:
    """Return a folder that exists or can be made, can be written to and has room; changes nothing.

    Args:
        path: the folder.
        name: what gave it, for errors.
        room: bytes that will be written; a bucket has room for any.

    Raises:
        UserError: if it is not so.
    """
    folder = location(path, name)
    given = f"{name} = {str(folder)!r}"
    if not isinstance(folder, Path):
        bucket.require_usable(folder, given)
        return folder
    with naming(folder, "cannot be used"):
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


def move_folder(source: str | PurePath, target: str | PurePath) -> None:
    """Move a folder within one storage, making that which it is moved into.

    In a bucket every object is copied before the first is removed: what ends it midway leaves the whole at one place
    at least.

    Raises:
        UserError: if it cannot be moved.
    """
    if not processes.is_lead():
        return
    old, new = location(source), location(target)
    if isinstance(old, Path) and isinstance(new, Path):
        new.parent.mkdir(exist_ok=True)
        shutil.move(old, new)
    else:
        bucket.move(old, new)


def unreadable(folder: str | PurePath) -> str:
    """Return why a file below a folder cannot be read, or nothing if all can; one that is missing is damage."""

    def refuse(error: OSError) -> None:
        raise error

    found = location(folder)
    if not isinstance(found, Path):
        return bucket.unreadable(found)
    try:
        for root, _, names in os.walk(found, onerror=refuse):
            for name in names:
                with contextlib.suppress(FileNotFoundError), (Path(root) / name).open("rb") as file:
                    while file.read(_CHUNK):
                        pass
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return ""


@contextlib.contextmanager
def naming(path: Path, what: str, *also: Path) -> Iterator[None]:
    """Name the path in errors of the system that are about it, of which some name none, such as a full disk's."""
    try:
        yield
    except OSError as error:
        about = None if error.filename is None else Path(os.fsdecode(error.filename))
        if about not in (None, path, path.parent, *path.parents, *also, path / LOCK):
            raise
        reason = error.strerror or str(error)
        raise UserError(f"{path}: {what} ({reason[:1].lower()}{reason[1:]})") from error


def _size(num: int) -> str:
    return f"{num / 2**30:.1f} GiB" if num >= 2**30 else f"{num / 2**20:.1f} MiB"
