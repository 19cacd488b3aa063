"""Signals that end a process: in good order where something is to be saved, at once and in one line elsewhere.

Only the standard library is imported: this is the first module of the command line, so that a Ctrl-C during the imports
that follow is no traceback either.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

# SIGHUP, which a closed terminal sends, is unknown on Windows.
SIGNALS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
# So long a process may take to end after the signal that should end it: long enough to remove drafts and release locks.
_GRACE_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """A signal that ends the work where it is, in whatever code the main thread runs."""

    def __init__(self, number: signal.Signals, text: str = "") -> None:
        """Keep the signal."""
        super().__init__(text or number.name)
        self.number = number


def status(number: int) -> int:
    """Return the exit status of a process that a signal ended, by the shell's convention."""
    return 128 + number


class StopRequest:
    """Context in which a signal of ``SIGNALS`` sets a flag instead of ending the process; a second one raises.

    Signals that the process was started to ignore, as SIGHUP is under ``nohup``, stay ignored.

    Attributes:
        received: the first signal that came, or None.
    """

    _current: StopRequest | None = None

    def __init__(self, doing: Callable[[], str] = lambda: "finishing") -> None:
        """Install nothing yet.

        Args:
            doing: what the first signal will wait for, as it is now; said when it comes.
        """
        self.received: signal.Signals | None = None
        self._doing = doing
        self._unsaid = threading.Lock()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Install the handlers; Python allows that in the main thread only, elsewhere signals keep their meaning."""
        if threading.current_thread() is threading.main_thread():
            self._previous = _install(self._handle)
            StopRequest._current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        if StopRequest._current is self:
            StopRequest._current = None
        _restore(self._previous)

    def announce(self, number: signal.Signals) -> None:
        """Say, once, what the signal waits for; from any thread."""
        if self._unsaid.acquire(blocking=False):
            _LOG.warning("%s: %s; once more to stop at once", number.name, self._doing())

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise Stopped(signal.Signals(number), f"second {signal.Signals(number).name}")
        self.received = signal.Signals(number)
        self.announce(self.received)


@contextlib.contextmanager
def stopping() -> Iterator[list[signal.Signals]]:
    """Let signals raise :class:`Stopped` in the main thread; yields a list of those that came, however they ended."""
    came: list[signal.Signals] = []

    def stop(number: int, _: FrameType | None) -> NoReturn:
        came.append(signal.Signals(number))
        raise Stopped(came[-1])

    previous = _install(stop) if threading.current_thread() is threading.main_thread() else {}
    try:
        yield came
    finally:
        _restore(previous)


def end_at_once(name: str, clean: Callable[[signal.Signals], None] = lambda _: None) -> None:
    """Let signals end the process from now on, with one line: before and after there is something to unwind."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        _exit(name, signal.Signals(number), clean)

    _install(end)


class Watchdog:
    """A thread that sees to it that signals end the process, whatever the main thread is doing.

    Python runs a handler when the main thread gets back to Python code, which a compilation delays by minutes; and what
    a handler raises can be swallowed by the code that it comes in.
    """

    def __init__(self, name: str, clean: Callable[[signal.Signals], None] = lambda _: None) -> None:
        """Start watching.

        Args:
            name: of the program, for its last line.
            clean: called with the signal before the process ends here, where nothing is unwound.
        """
        self._name, self._clean = name, clean
        # Signals that came, and how many of them something was waited for.
        self._count = self._waits = 0
        self._closed = False
        self._inner, self._outer = socket.socketpair()
        self._outer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._outer.fileno(), warn_on_full_buffer=False)
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed = True
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._before)
        self._outer.close()

    def _watch(self) -> None:
        with self._inner:
            while byte := self._inner.recv(1):
                if byte[0] in SIGNALS and callable(signal.getsignal(byte[0])):
                    self._saw(signal.Signals(byte[0]))

    def _saw(self, number: signal.Signals) -> None:
        self._count += 1
        request = StopRequest._current
        if request is not None and self._count == 1:
            self._waits = 1
            request.announce(number)
            return
        if self._count > self._waits + 1:
            self._end(number)
        timer = threading.Timer(_GRACE_SECONDS, self._end, [number])
        timer.daemon = True
        timer.start()

    def _end(self, number: signal.Signals) -> None:
        if not self._closed:
            _exit(self._name, number, self._clean)

    def _unraisable(self, what: sys.UnraisableHookArgs) -> None:
        """Be silent on a signal that came in a destructor or a callback: it ends the process a little later."""
        if not issubclass(what.exc_type, KeyboardInterrupt):
            self._hook(what)


def _install(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Install a handler, and return the ones that it replaces."""
    # None: set by another language, whose handler Python could not restore.
    replaced = {number: signal.getsignal(number) for number in SIGNALS}
    replaced = {number: before for number, before in replaced.items() if before not in (signal.SIG_IGN, None)}
    for number in replaced:
        signal.signal(number, handler)
    return replaced


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _exit(name: str, number: signal.Signals, clean: Callable[[signal.Signals], None]) -> NoReturn:
    with contextlib.suppress(Exception):
        clean(number)
    with contextlib.suppress(OSError):
        os.write(2, f"{name}: stopped by {number.name}\n".encode())
    os._exit(status(number))
