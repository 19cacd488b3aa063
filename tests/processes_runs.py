"""The command line in several processes of this machine, each with fake CPU devices of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import training_runs

CONFIG = "--config=configs/circles.py:flow_matching,conditional"
# A run of a few seconds with every use of randomness, samples and checkpoints in it.
SMALL: dict[str, Any] = {
    **training_runs.SMALL,
    "optimizer.warmup_steps": 10,
    "optimizer.decay": "constant",
    "training.num_steps": 12,
    "training.batch_size": 24,
    "training.log_every": 1,
    "checkpoint.every": 6,
    "sampling.every": 6,
    "sampling.num": 13,
    "sampling.num_steps": 4,
}
# Long beside a start on a loaded machine.
LIMIT = 240.0


def words(data_dir: Path, workdir: Path, **overrides: Any) -> list[str]:
    """The words of ``geonoise train`` for a small run."""
    given = {**SMALL, "data.data_dir": data_dir, **{key.replace("__", "."): value for key, value in overrides.items()}}
    return ["train", CONFIG, f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in given.items())]


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Processes:
    """A command in several processes; those that are left are killed at the end."""

    def __init__(
        self,
        num: int,
        command: Sequence[str],
        *,
        devices: int = 2,
        heartbeat: int = 60,
        only: Sequence[int] | None = None,
        program: Sequence[str] = ("-m", "geonoise_jax"),
        more: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
        environ = {**os.environ, "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"}
        port = free_port()
        shared = [f"--coordinator=127.0.0.1:{port}", f"--num-processes={num}", f"--heartbeat-timeout={heartbeat}"]
        self.outputs: dict[int, list[str]] = {}
        self._all: dict[int, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        for number in range(num) if only is None else only:
            own = [*command, *(shared if num > 1 else []), *([f"--process-id={number}"] if num > 1 else [])]
            process = subprocess.Popen(
                [sys.executable, *program, *own, *(more or {}).get(number, [])],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environ,
            )
            self._all[number] = process
            self.outputs[number] = []
            reader = threading.Thread(target=self._read, args=(number,), daemon=True)
            reader.start()
            self._readers.append(reader)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all.values():
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()

    def _read(self, number: int) -> None:
        stream = self._all[number].stdout
        assert stream is not None
        for line in stream:
            self.outputs[number].append(line.rstrip("\n"))

    def send(self, number: int, signal: int) -> None:
        """Send a signal to one of the processes."""
        self._all[number].send_signal(signal)

    def until(self, path: Path, text: str) -> None:
        """Wait until a file holds a text, while all processes live."""
        began = time.monotonic()
        while not (path.exists() and text in path.read_text()):
            assert all(process.poll() is None for process in self._all.values()), self.outputs
            assert time.monotonic() - began < LIMIT, self.outputs
            time.sleep(0.05)

    def status(self, number: int) -> int:
        """Wait for one of the processes and return its status."""
        return self.statuses([number])[0]

    def statuses(self, of: Sequence[int] | None = None, *, limit: float = LIMIT) -> list[int]:
        """Wait for all processes, or some, at most so many seconds, and return their statuses."""
        until = time.monotonic() + limit
        chosen = [self._all[number] for number in (self._all if of is None else of)]
        for process in chosen:
            try:
                process.wait(max(until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"a process hangs: {self.outputs}") from None
        for reader in self._readers if of is None else ():
            reader.join(5.0)
        return [process.returncode for process in chosen]

    def last(self, number: int) -> str:
        """The last line that a process said, other than the news of libraries."""
        lines = [line for line in self.outputs[number] if line and not line.startswith("[Gloo]")]
        return lines[-1] if lines else ""
