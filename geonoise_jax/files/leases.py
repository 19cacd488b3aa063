"""The lock of a folder in a bucket: an object that only one process can make, and that a living one keeps renewing.

A bucket has no locks that end with their process. The holder writes the object anew every ``BEAT`` seconds, each time
in place of its own last generation and no other. Whoever finds one there

1. takes it over at once if its process is known to be gone: it was of this machine, and is not there any more;
2. is refused as soon as it is renewed, which takes ``BEAT`` seconds, or at once if its process is one of this machine;
3. takes it over once it was not renewed for ``SILENCE`` seconds.

No clocks of two machines are compared. A holder that was taken over, as after hours of suspension, finds out at its
next renewal and writes no more (:func:`require`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from geonoise_jax.errors import UserError
from geonoise_jax.files import bucket

BEAT, SILENCE, LOOK = 10.0, 60.0, 1.0
_LOG = logging.getLogger(__name__)
_HELD: set[Lease] = set()


class HeldError(UserError):
    """Another process holds the lease.

    Attributes:
        record: what it says of itself.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(f"is held by another process ({record})")
        self.record = record


class Lease:
    """One lock that this process holds, from :meth:`take` to :meth:`release`.

    Attributes:
        folder: the folder that it is for.
        lost: whether another took it over.
    """

    def __init__(self, folder: PurePath, name: str, record: dict[str, Any]) -> None:
        """Prepare the record that says who holds it."""
        self.folder, self.lost = folder, False
        self._path = folder / name
        own = {"token": uuid.uuid4().hex, "machine": _machine(), "started": _started(os.getpid())}
        self._record = {**record, **own}
        self._content = (json.dumps(self._record) + "\n").encode()
        self._generation = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {folder}", daemon=True)

    def take(self) -> None:
        """Hold it, and go on renewing it in a thread of its own.

        Raises:
            HeldError: if another process does.
            UserError: if the bucket cannot be used.
        """
        self._generation = self._taken()
        self._thread.start()
        _HELD.add(self)

    def release(self) -> None:
        """Let go of it; where that fails it is silent from now on."""
        _HELD.discard(self)
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(UserError):
            bucket.remove_generation(self._path, self._generation)

    def _taken(self) -> int:
        """Return the generation of the object once it is this process's."""
        first, since = None, 0.0
        while True:
            if (made := bucket.create(self._path, self._content)) is not None:
                return made
            if (found := bucket.version(self._path)) is None:
                continue
            if found.content == self._content:
                # It was written, and the answer was lost.
                return found.generation
            held = _read(found.content)
            if first is None:
                first, since = found.generation, time.monotonic()
                if not _gone(held):
                    self._say(held)
            if found.generation != first or _lives(held):
                raise HeldError(held)
            if _gone(held) or time.monotonic() - since >= SILENCE:
                if (taken := bucket.replace(self._path, self._content, found.generation)) is not None:
                    return taken
                continue
            time.sleep(LOOK)

    def _say(self, held: dict[str, Any]) -> None:
        if not _lives(held):
            _LOG.info(
                "%s was last held by process %s on %s: waiting %.0f s at most to see whether it lives",
                *(self.folder, held.get("pid"), held.get("host"), SILENCE),
            )

    def _renew(self) -> None:
        while not self._ended.wait(BEAT):
            # A bucket that is away for a while takes nothing from the holder unless somebody else comes.
            with contextlib.suppress(UserError):
                if (made := bucket.replace(self._path, self._content, self._generation)) is not None:
                    self._generation = made
                elif (found := bucket.version(self._path)) is not None and found.content == self._content:
                    self._generation = found.generation
                else:
                    self.lost = True
                    return


def require(path: PurePath) -> None:
    """Refuse to write where this process held a lease that another process took over.

    Raises:
        UserError: if it is so.
    """
    for lease in tuple(_HELD):
        if lease.lost and (path == lease.folder or lease.folder in path.parents):
            raise UserError(
                f"{lease.folder}: is in use by another process, which took it over after this one was not heard of "
                f"for {SILENCE:.0f} s; nothing more is written"
            )


@contextlib.contextmanager
def leased(folder: PurePath, name: str, record: dict[str, Any]) -> Iterator[None]:
    """Hold a lease within this context.

    Args:
        folder: the folder that it is for.
        name: name of the object in it.
        record: who holds it, ``pid``, ``host`` and ``since``.

    Raises:
        HeldError: if another process holds it.
    """
    lease = Lease(folder, name, record)
    lease.take()
    try:
        yield
    finally:
        lease.release()


def _read(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return {}


def _gone(held: dict[str, Any]) -> bool:
    """Return whether a holder is known to be gone."""
    return _is_of_this_machine(held) and not _lives(held)


def _lives(held: dict[str, Any]) -> bool:
    """Return whether a holder is known to live."""
    return _is_of_this_machine(held) and _started(held.get("pid")) == held.get("started")


def _is_of_this_machine(held: dict[str, Any]) -> bool:
    return bool(_machine()) and held.get("machine") == _machine() and bool(held.get("started"))


def _machine() -> str:
    """Return what tells this machine, since it was started, and this container's processes from others; or nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: Any) -> str:
    """Return when a process of this machine was started, which tells it from a later one of its number; or nothing."""
    try:
        # Its second field, a name in brackets, may have anything in it.
        fields = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, TypeError, ValueError, IndexError):
        return ""
