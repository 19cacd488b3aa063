"""The one writer of a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from geonoise_jax import processes
from geonoise_jax.errors import UserError
from geonoise_jax.files import leases
from geonoise_jax.files.paths import HOLDER, LOCK, absolute, exists, location, naming
from geonoise_jax.files.reading import read_json
from geonoise_jax.files.writing import discard_left_drafts, write_json

_LOCKED: set[PurePath] = set()
_LOCKED_GUARD = threading.Lock()


@contextlib.contextmanager
def locked(folder: str | PurePath, name: str = "path") -> Iterator[None]:
    """Be the only writer of a folder, which is made if need be, among all threads and processes on all hosts.

    The system releases the lock of a local folder when the process ends, however it ends; that of one in a bucket ends
    as ``leases`` says. ``.writer.json`` says who holds it.

    Raises:
        UserError: if another holds it, saying who.
    """
    path = location(folder, name)
    if not processes.is_lead():
        yield
    elif isinstance(path, Path):
        with _locked(path, name):
            yield
    else:
        with _only_here(path, path, name), contextlib.ExitStack() as stack:
            try:
                stack.enter_context(leases.leased(path, HOLDER, _own()))
            except leases.HeldError as error:
                raise UserError(_in_use(path, name, error.record)) from error
            yield


def check_unlocked(folder: str | PurePath, name: str = "path") -> None:
    """Refuse a folder that another writer holds, before work that leads to :func:`locked`.

    Raises:
        UserError: saying who holds it.
    """
    if exists(location(folder, name) / HOLDER):
        with locked(folder, name):
            pass


def still_locked(folder: str | PurePath) -> None:
    """Refuse to go on writing in a folder of a bucket that was :func:`locked` here and that another took over.

    Raises:
        UserError: if it is so.
    """
    path = location(folder)
    if processes.is_lead() and not isinstance(path, Path):
        leases.require(path)


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    with naming(path, "cannot be locked"):
        path.mkdir(parents=True, exist_ok=True)
    with _only_here(absolute(path), path, name):
        lock = FileLock(path / LOCK, timeout=0, thread_local=False)
        with naming(path, "cannot be locked"):
            try:
                lock.acquire()
            except Timeout as error:
                raise UserError(_in_use(path, name, _holder(path))) from error
        try:
            write_json(path / HOLDER, _own())
            discard_left_drafts(path)
            yield
        finally:
            with contextlib.suppress(OSError):
                (path / HOLDER).unlink(missing_ok=True)
            lock.release()


@contextlib.contextmanager
def _only_here(key: PurePath, path: PurePath, name: str) -> Iterator[None]:
    """Be the only thread of this process; the system's lock may be one of processes, as on NFS."""
    with _LOCKED_GUARD:
        if key in _LOCKED:
            raise UserError(_in_use(path, name, _holder(path)))
        _LOCKED.add(key)
    try:
        yield
    finally:
        _LOCKED.discard(key)


def _own() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def _holder(folder: PurePath) -> Any:
    with contextlib.suppress(UserError):
        return read_json(folder / HOLDER)
    return None


def _in_use(folder: PurePath, name: str, holder: Any) -> str:
    try:
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError):
        who = "another process"
    return f"{name} = {str(folder)!r}: is in use by {who}; wait for it, stop it, or choose another folder"
