"""Standard streams that are gone, full or closed: what is said on them is worth less than the work."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import geonoise_jax
from geonoise_jax import runtime
from geonoise_jax.cli import parser
from geonoise_jax.progress import LogHandler, Output, Progress
from geonoise_jax.training import metrics
from tests.command_line import CONFIG, SMALL, run


class Broken(io.StringIO):
    """A stream that takes some writes and then fails."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__()
        self.error, self.after, self.calls = error, after, 0

    def write(self, text: str) -> int:
        self.calls += 1
        if self.calls > self.after:
            raise self.error
        return super().write(text)


LOST = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.EIO, "the terminal is gone"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_output_is_mute_once_it_is_lost(error: Exception) -> None:
    stream = Broken(error, after=1)
    output = Output(stream)
    for text in ("a", "b", "c"):
        output.write(text)
    assert (stream.getvalue(), stream.calls) == ("a", 2)
    bar = Progress("train", 3, "steps", stream=Broken(error))
    for done in (1, 2, 3):
        bar.update(done)
    bar.close()
    assert bar.rate > 0


def test_output_that_would_block_loses_a_line_only() -> None:
    stream = Broken(BlockingIOError(errno.EAGAIN, "busy"))
    output = Output(stream)
    output.write("a")
    stream.after = 9
    output.write("b")
    assert stream.getvalue() == "b"


def test_a_handler_of_signals_speaks_in_the_middle_of_a_write(tmp_path: Path) -> None:
    class Reentrant(io.TextIOWrapper):
        def write(self, _: str) -> int:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    with (tmp_path / "file").open("wb") as file:
        output = Output(Reentrant(file))
        output.write("first\n")
        output.write("second\n")
    assert (tmp_path / "file").read_text() == "first\nsecond\n"


def test_no_stream_and_a_closed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    closed = io.StringIO()
    closed.close()
    for output in (Output(), Output(closed)):
        output.write("a")
        assert not output.terminal
    logger = logging.Logger("a")
    logger.addHandler(LogHandler(Output()))
    logger.warning("said to nobody")


def test_a_result_that_cannot_be_printed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    for stream, expected in ((Full(), (2, "geonoise: [Errno 28] No space left on device\n")), (Gone(), (0, ""))):
        monkeypatch.setattr(sys, "stdout", stream)
        status = runtime.status_of(lambda: 0, "geonoise")
        assert (status, capsys.readouterr().err) == expected


def start(folder: Path, command: str, *words: str) -> int:
    """Status of a shell command in which $GEONOISE is the program and "$@" its words, run in a folder."""
    source = str(Path(geonoise_jax.__file__).parents[1])
    environment = {**os.environ, "GEONOISE": f"{sys.executable} -m geonoise_jax", "PYTHONPATH": source}
    shell = ["bash", "-c", command, "bash", *words]
    return subprocess.run(shell, env=environment, cwd=folder, timeout=100, check=False).returncode


TRAINING = {
    "closed": '$GEONOISE "$@" <&- >&- 2>&-',
    "full": '$GEONOISE "$@" >/dev/full 2>/dev/full',
    "dead pipe": '{ $GEONOISE "$@" 2>&1; echo $? >status; } | true; exit $(cat status)',
}


@pytest.mark.parametrize(
    "streams", ["dead pipe", *(pytest.param(each, marks=pytest.mark.slow) for each in ("closed", "full"))]
)
def test_training_ends_well_without_streams(streams: str, tmp_path: Path) -> None:
    given = [f"--config.{key}={value}" for key, value in {**SMALL, "data.data_dir": tmp_path / "data"}.items()]
    assert start(tmp_path, TRAINING[streams], "train", CONFIG, f"--workdir={tmp_path / 'run'}", *given) == 0
    # Nothing that was meant for a stream went into a file that took its number.
    assert [line["step"] for line in metrics.read(tmp_path / "run" / "metrics.jsonl")] == [2, 4, 6]
    assert {"3", "6"} <= {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}


def test_help_into_a_pipe_that_closes(tmp_path: Path) -> None:
    command = "{ $GEONOISE sample --help 2>errors; echo $? >status; } | true; cat errors; exit $(cat status)"
    assert start(tmp_path, command) == 0
    assert (tmp_path / "errors").read_text() == ""


def test_words_of_the_program() -> None:
    assert run("--version").out.startswith("geonoise 0.")
    plain, debugged = run("sample", "--workdir=/none"), run("sample", "--workdir=/none", "--debug")
    assert (plain.status, plain.err) == (2, "geonoise sample: workdir = '/none': no such folder\n")
    assert debugged.err.startswith("Traceback")
    assert debugged.err.endswith(plain.err)


def test_the_launcher_knows_the_words_of_the_program() -> None:
    script = (Path(__file__).parents[1] / "launch" / "local.sh").read_text()
    words = re.search(r"\n +(.*)\) exec geonoise", script)
    commands = [each.choices for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    assert words is not None
    assert words[1].split(" | ") == ["--version", "--debug", *commands[0]]


def test_the_program_starts_without_a_warning() -> None:
    modules = "geonoise_jax.__main__, geonoise_jax.training.train, geonoise_jax.evaluation.draw, geonoise_jax.demo"
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"import {modules}"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


EXPLAINED = [
    (MemoryError(), "out of memory (MemoryError); make "),
    (
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore"),
        "out of memory (RESOURCE_EXHAUSTED: ",
    ),
    (OverflowError("Python int too large to convert to C long"), "a number is too large (Python int"),
]


@pytest.mark.parametrize(("error", "line"), EXPLAINED)
def test_limits_of_the_machine_are_said_in_one_line(error: Exception, line: str) -> None:
    said = runtime.explained(error)
    assert said is not None
    assert said.startswith(line)
    assert "\n" not in said


def test_faults_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ValueError("mine"), RuntimeError("mine"), AssertionError("mine")):
        assert runtime.explained(error) is None
    monkeypatch.setattr(runtime, "_no_backend", lambda: True)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    said = "JAX_PLATFORMS = 'cuda': jax cannot use that here; unset it, or set it to cpu"
    assert runtime.explained(AssertionError()) == runtime.explained(RuntimeError("Unable to initialize")) == said
