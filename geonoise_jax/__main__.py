"""The program ``geonoise``: the command line as the one task of its process."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from geonoise_jax import signals

_NAME = "geonoise"


def main() -> NoReturn:
    """Run the command line, and end the process with its status whatever the standard streams and signals do."""
    # Nothing is to be unwound before the command begins and after it ended.
    signals.end_at_once(_NAME)
    from geonoise_jax import cli, files, processes, runtime

    def clean(number: signal.Signals) -> None:
        files.discard_drafts()
        processes.tell(signals.status(number), f"{_NAME}: stopped by {number.name}")

    runtime.open_streams()
    watchdog = signals.Watchdog(_NAME, clean)
    try:
        status = cli.main()
    finally:
        watchdog.close()
        signals.end_at_once(_NAME)
        for stream in (sys.stdout, sys.stderr):
            runtime.flushed(stream)
    if status > signals.status(0) or processes.joined():
        # Threads of other libraries may go on for long, and what a signal ends is to end now; those of jax's
        # coordination service do not survive the end of the interpreter, which would wait for processes that are gone.
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
