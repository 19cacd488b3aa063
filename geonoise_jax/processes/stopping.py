"""A signal to any process stops all of them after the same step."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from types import TracebackType

from geonoise_jax.processes.agreement import count, gathered, index, put, several, wait
from geonoise_jax.signals import StopRequest

_runs = itertools.count()
_NOTHING = "0"
_PATIENCE = 5.0


class SharedStop:
    """Context in which a signal that one process was sent stops all of them after the same step.

    A thread waits for the news that a process was sent a signal. It then holds the loop of its process at the step that
    it has come to, tells the others, and lets it go on up to the step after the last that any has come to. A step costs
    one uncontended lock, and nothing is sent before a signal comes. The signal of another process is none of this one,
    whose own, which launchers send to all of them, would else count as a second.
    """

    def __init__(self, request: StopRequest) -> None:
        """Share a request; in one process this is the request alone."""
        self._request = request
        self._step = 0
        self._at: int | None = None
        self._held = threading.Lock()
        self._told = False
        self._key = f"geonoise/stop/{next(_runs)}"
        self._shared = False
        self._waiting: threading.Thread | None = None

    def __enter__(self) -> SharedStop:
        """Begin to wait for signals to the others."""
        self._shared = several()
        if self._shared:
            self._waiting = threading.Thread(target=self._wait, name="stop", daemon=True)
            self._waiting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the waiting threads of all processes end."""
        if self._shared and self._waiting is not None:
            self._tell(_NOTHING)
            self._waiting.join(_PATIENCE)

    def reached(self, step: int) -> bool:
        """Return whether to stop after ``step`` steps: called by all processes at every step."""
        if not self._shared:
            return self._request.received is not None
        if self._request.received is not None and not self._told:
            self._told = True
            self._tell(str(int(self._request.received)))
        with self._held:
            self._step = step
            return self._at is not None and step >= self._at

    def signal(self) -> signal.Signals | None:
        """Return the signal that any process was sent, at the end of the loop; all processes call it."""
        sent = max(gathered(int(self._request.received or 0)))
        return signal.Signals(sent) if sent else None

    def _tell(self, number: str) -> None:
        # Refused where another process was first.
        with contextlib.suppress(RuntimeError):
            put(self._key, number)

    def _wait(self) -> None:
        with contextlib.suppress(RuntimeError):
            if wait(self._key) == _NOTHING:
                return
            with self._held:
                put(f"{self._key}/{index()}", str(self._step))
                self._at = 1 + max(int(wait(f"{self._key}/{each}")) for each in range(count()))
