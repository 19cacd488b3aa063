"""From a config and the name of devices to a plan, made in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import IO, Any

from geonoise_jax import config as configs
from geonoise_jax.config import ConfigDict
from geonoise_jax.errors import UserError
from geonoise_jax.planning import facts, topology
from geonoise_jax.planning.facts import Facts
from geonoise_jax.planning.programs import Request
from geonoise_jax.progress import Output, duration

# Seconds between two lines of progress in a file, and on a terminal.
_FILE_INTERVAL, _TERMINAL_INTERVAL = 30.0, 1.0
_TAIL = 2000


def survey(
    config: ConfigDict, name: str, place: str, *, quick: bool = False, two_sizes: bool = False, sampler: bool = True
) -> Facts:
    """Compile a config's programs for devices that need not be there, or count and estimate if it is to be quick.

    A minute to half an hour, of which standard error says how it goes. What the compiler said is kept in the user's
    cache folder by the text of the program, the devices and the versions of jax and the compiler.

    Args:
        config: the config.
        name: what to call it.
        place: the devices, see ``topology.parse``.
        quick: do not compile.
        two_sizes: compile the step at half the batch too, from which the memory of other batches is known.
        sampler: the config's sampler too.

    Raises:
        ValueError: on an unknown topology, one whose compiler is not installed, a config that cannot be built or does
            not divide over the devices.
    """
    asked = topology.parse(place)
    request = Request(configs.dumps(config), name, str(asked), quick, two_sizes, sampler)
    if quick:
        environment = topology.environment(topology.Topology("cpu", (asked.count,)), os.environ)
    else:
        topology.require(asked)
        environment = topology.environment(asked, os.environ)
    return facts.facts_from(_answered(request, environment))


def _answered(request: Request, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "geonoise_jax.planning.worker"]
    # In a session of its own, so that an interrupt at the terminal ends this process alone, which then ends that one.
    worker = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if worker.stdin is None or worker.stdout is None or worker.stderr is None:
            raise RuntimeError("the process has no standard streams")
        lines: queue.Queue[str | None] = queue.Queue()
        errors: list[str] = []
        threading.Thread(target=_read, args=(worker.stdout, lines), daemon=True).start()
        threading.Thread(target=lambda stream: errors.extend(stream), args=(worker.stderr,), daemon=True).start()
        # A process that is gone already is found out below.
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(json.dumps(dataclasses.asdict(request)) + "\n")
            worker.stdin.close()
        found = _followed(lines)
        if found is not None:
            return found
        status = worker.wait()
        last = "".join(errors)[-_TAIL:].strip().splitlines()
        raise RuntimeError(
            f"the process that compiles ended with status {status}: {last[-1] if last else 'no message'}"
        )
    finally:
        worker.kill()
        worker.wait()


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _followed(lines: queue.Queue[str | None]) -> dict[str, Any] | None:
    """Return the facts that come at last, or None if none do; say meanwhile what is done and for how long."""
    ticker = _Ticker()
    while True:
        try:
            line = lines.get(timeout=ticker.interval)
        except queue.Empty:
            ticker.tick()
            continue
        answer = {} if line is None else json.loads(line)
        if "stage" in answer:
            ticker.begin(answer["stage"])
            continue
        ticker.close()
        if "error" in answer:
            raise UserError(answer["error"])
        return answer.get("facts")


class _Ticker:
    """What is being done and since when, on standard error."""

    def __init__(self) -> None:
        self._output = Output()
        self._began, self._stage = time.monotonic(), ""
        self.interval = _TERMINAL_INTERVAL if self._output.terminal else _FILE_INTERVAL

    def begin(self, stage: str) -> None:
        """Go on to a stage."""
        self._end_line()
        self._stage = stage
        self._write("plan: " + stage)

    def tick(self) -> None:
        """Say how long it has taken."""
        self._write(f"plan: {self._stage}  {duration(time.monotonic() - self._began)} since the start")

    def close(self) -> None:
        """End the line."""
        self._end_line()

    def _end_line(self) -> None:
        if self._stage and self._output.terminal:
            self._output.write("\n")

    def _write(self, line: str) -> None:
        self._output.write(f"\r\x1b[2K{line}" if self._output.terminal else line + "\n")
