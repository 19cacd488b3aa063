"""How processes that belong together end: one that fails tells the others why, and one that is lost is missed.

* Whoever ends early stores its status and its last line; a thread of every other process waits for that, says the line
  and ends with the same status.
* Whoever disappears is missed by jax's coordination service after the heartbeat timeout, the process with the service
  itself at once; collectives on the CPU fail at once. The status is then ``LOST``. What jax's runtime does itself is to
  abort, which a handler of SIGABRT turns into that status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from geonoise_jax.processes.agreement import count, index, put, several, wait
from geonoise_jax.processes.rendezvous import MissingError

# EX_TEMPFAIL of sysexits.h: to be tried again. What a launcher restarts.
LOST = 75
_KEY = "geonoise/ended"
# So long the lead, which has the service, waits for the others to hear why it ends.
_FAREWELL = 3.0
# So long a process whose collective failed waits to hear why.
_HEARSAY = 2.0
_SIGNS = (
    *("Gloo", "Connection closed by peer", "Connection reset by peer", "coordination service", "CoordinationService"),
    *("DEADLINE_EXCEEDED", "UNAVAILABLE: "),
)
_member, _leaving = threading.Event(), threading.Event()
_ending = threading.Lock()
_kept: list[Any] = []


def begin(name: str, clean: Callable[[], None]) -> None:
    """Watch the other processes from now on.

    Args:
        name: of the program, with which lines begin.
        clean: called before the process ends where nothing is unwound.
    """
    _member.set()
    watching = threading.Thread(target=_watch, args=(name, clean), name="peers", daemon=True)
    watching.start()
    _kept.append(watching)
    _end_on_abort(f"{name}: {_who()}: {_reason('jax lost the connection to it or to the coordinator')}\n")


def lost(error: BaseException) -> str | None:
    """Return the line for an exception that means that another process is gone, or None for any other."""
    if isinstance(error, MissingError):
        return str(error)
    if not _member.is_set() and not several():
        return None
    seen: BaseException | None = error
    while seen is not None:
        if any(sign in str(seen) for sign in _SIGNS) and not isinstance(seen, MemoryError):
            return f"{_who()}: {_reason(str(seen).splitlines()[0][:200])}"
        seen = seen.__cause__
    return None


def tell(status: int, line: str) -> None:
    """Have the other processes end too, with this status and line; does nothing in one process.

    If another was first, this does not return: the process ends as that one told.
    """
    if not _member.is_set():
        return
    if status == LOST:
        time.sleep(_HEARSAY)
    if not _ending.acquire(blocking=False):
        time.sleep(_FAREWELL)
        return
    told = threading.Thread(target=_told, args=(status, line), daemon=True)
    told.start()
    told.join(_FAREWELL)


def crashed(name: str) -> None:
    """End a process that is one of several on an exception that nothing explains; returns in one process."""
    if not _member.is_set():
        return
    traceback.print_exc()
    tell(1, f"{name}: {_who()} failed; its output says how")
    os._exit(1)


def leave(status: int) -> int:
    """Return the status to end with, once all processes have come to their end; at once after an early end.

    What is then left of the process is to be ended by ``os._exit``: threads of jax may still be at work in it.
    """
    if not _member.is_set() or _ending.locked():
        return status
    import jax

    _leaving.set()
    try:
        jax.distributed.shutdown()
    except RuntimeError:
        return LOST if status == 0 else status
    _kept[0].join(_FAREWELL)
    return status


def joined() -> bool:
    """Return whether this process has ever been one of several."""
    return _member.is_set()


def _who() -> str:
    return f"process {index()} of {count()}"


def _reason(why: str) -> str:
    return f"another process is gone ({why}); start all of them again to go on"


def _told(status: int, line: str) -> None:
    # Refused where another was first.
    with contextlib.suppress(RuntimeError):
        put(_KEY, json.dumps([index(), status, line]))
    with contextlib.suppress(RuntimeError):
        put(f"{_KEY}/{index()}", "")
        if index() == 0:
            for number in range(1, count()):
                wait(f"{_KEY}/{number}", int(1000 * _FAREWELL))


def _watch(name: str, clean: Callable[[], None]) -> None:
    try:
        _, status, line = json.loads(wait(_KEY))
        if not _ending.acquire(blocking=False):
            return
        put(f"{_KEY}/{index()}", "")
    except RuntimeError:
        # jax aborts now, unless the connection was closed from here.
        if _leaving.wait(2 * _FAREWELL):
            return
        status, line = LOST, f"{name}: {_who()}: {_reason('its connection closed')}"
    _exit(status, f"{line}\n", clean)


def _exit(status: int, line: str, clean: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        clean()
    with contextlib.suppress(OSError):
        os.write(2, line.encode(errors="replace"))
    os._exit(status)


def _end_on_abort(line: str) -> None:
    """Let an abort of the runtime, which Python cannot catch, say a line and end with the status of a lost process."""
    import ctypes

    def ended(_: int) -> None:
        _exit(LOST, line, lambda: None)

    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    library, handler = ctypes.CDLL(None), kind(ended)
    library.signal.restype, library.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, kind]
    library.signal(int(signal.SIGABRT), handler)
    _kept.append(handler)
