"""What long work says meanwhile: a stream that never fails, and progress with rate and time left."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TextIO

from geonoise_jax import processes

_TERMINAL_INTERVAL = 0.5
_FILE_INTERVAL = 15.0


class Output:
    """A text stream that never fails: it is mute once it cannot be written to, as when its reader or terminal is gone.

    What is said on it is worth less than the work that says it.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to a stream; standard error by default, where there is one."""
        # Python has none where the process was started without.
        self._stream: TextIO | None = sys.stderr if stream is None else stream

    @property
    def terminal(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def write(self, text: str) -> None:
        """Write and flush, or not."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BlockingIOError:
            pass
        except RuntimeError:
            # A signal's handler speaks while the thread that it came in is writing.
            with contextlib.suppress(OSError, ValueError):
                os.write(self._stream.fileno(), text.encode(errors="replace"))
        except (OSError, ValueError):
            self._stream = None


class LogHandler(logging.Handler):
    """Log records on an :class:`Output`."""

    def __init__(self, output: Output) -> None:
        """Write to it."""
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._output.write(self.format(record) + "\n")


class Progress:
    """One line of progress, rewritten in place on a terminal and repeated now and then in a log file.

    The rate leaves out the first update, which includes compilation. Of several processes only the lead writes.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str,
        *,
        start: int = 0,
        also: tuple[int, str] | None = None,
        stream: TextIO | None = None,
    ) -> None:
        """Start the clock.

        Args:
            label: what is being done.
            total: amount of work, in ``unit``.
            unit: what is counted, e.g. ``steps``.
            start: amount already done, e.g. before a resume.
            also: what else to give the rate in: how many of it a unit is, and what is counted.
            stream: where to write; standard error by default.
        """
        self._label, self._total, self._unit, self._also = label, total, unit, also
        self._output = Output(stream)
        self._terminal = self._output.terminal
        self._first: tuple[float, int] | None = None
        self._done = start
        self._shown = -float("inf")
        self._open = False

    @property
    def rate(self) -> float:
        """Units per second since the first update; 0 before the second."""
        if self._first is None:
            return 0.0
        elapsed = time.perf_counter() - self._first[0]
        return (self._done - self._first[1]) / elapsed if elapsed > 0 else 0.0

    def update(self, done: int, detail: str = "") -> None:
        """Report that ``done`` units are finished; writes at most a few times a second."""
        now = time.perf_counter()
        self._done = done
        if self._first is None:
            self._first = (now, done)
        interval = _TERMINAL_INTERVAL if self._terminal else _FILE_INTERVAL
        if (now - self._shown >= interval or done >= self._total) and processes.is_lead():
            self._shown = now
            self._write(detail)

    def close(self) -> None:
        """End a line that is still open on the terminal."""
        if self._open:
            self._output.write("\n")
            self._open = False

    def _write(self, detail: str) -> None:
        share = 100.0 * self._done / max(self._total, 1)
        line = f"{self._label}: {self._done}/{self._total} {self._unit} ({share:.0f}%)"
        if self.rate > 0:
            left = (self._total - self._done) / self.rate
            rate, more = self.rate, ""
            if self._also is not None:
                more = f", {rate * self._also[0]:.3g} {self._also[1]}/s"
            line += f"  {rate:.3g} {self._unit}/s{more}  ETA {duration(left)}"
        line = f"{line}  {detail}".rstrip()
        self._output.write(f"\r\x1b[2K{line}" if self._terminal else f"{line}\n")
        self._open = self._terminal


def duration(seconds: float) -> str:
    """Return a time span as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
