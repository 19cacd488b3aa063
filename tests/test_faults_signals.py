"""Signals at every phase of every command: one line, the right status, and nothing saved is lost."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax import signals
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.training import train as training
from tests.command_line import CONFIG, SMALL, run

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    given = {**SMALL, "data.data_dir": tmp_path_factory.mktemp("data")}
    return [f"--config.{key}={value}" for key, value in given.items()]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert run("train", CONFIG, f"--workdir={folder}", *overrides).status == 0
    return folder


# Command, and the function in which the signal comes: data preparation, building, restoring, compiling, writing.
PHASES = [
    ("train", "geonoise_jax.config.load"),
    ("train", "geonoise_jax.build.runs.arrays"),
    ("train", "geonoise_jax.training.train.make_step"),
    ("train", "geonoise_jax.training.workdir.claim"),
    ("train", "geonoise_jax.training.train.initial_state"),
    ("sample", "geonoise_jax.evaluation.draw.restore"),
    ("sample", "geonoise_jax.evaluation.restore.generate"),
    ("sample", "geonoise_jax.files.writing.save_arrays"),
    ("figure", "geonoise_jax.studies.excess_risk.measure"),
    ("demo", "geonoise_jax.build.arrays"),
    ("exact", "geonoise_jax.build.marginal"),
]


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize(("command", "place"), PHASES)
def test_a_signal_ends_every_phase_in_one_line(
    command: str,
    place: str,
    swallowed: bool,
    workdir: Path,
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, _, name = place.rpartition(".")
    number = NUMBERS[len(place) % 3]

    def interrupted(*_: Any, **__: Any) -> Any:
        with contextlib.suppress(KeyboardInterrupt) if swallowed else contextlib.nullcontext():
            os.kill(os.getpid(), number)
        raise RuntimeError("what another library makes of it")

    monkeypatch.setattr(importlib.import_module(module), name, interrupted)
    words = {
        "train": ["train", CONFIG, f"--workdir={tmp_path / 'new'}", *overrides],
        "sample": ["sample", f"--workdir={workdir}", f"--out={tmp_path / 'a'}", "--num=2"],
        "figure": ["figure", "excess_risk", f"--workdir={workdir}", f"--out={tmp_path / 'a'}"],
        "demo": ["demo", f"--out={tmp_path / 'a'}"],
        "exact": ["exact", CONFIG, "--num=2", f"--out={tmp_path / 'a'}", *overrides],
    }[command]
    ended = run(*words)
    assert (ended.status, ended.out) == (128 + number, "")
    assert ended.err.splitlines()[-1] == f"geonoise {command}: stopped by {number.name}"
    assert "Traceback" not in ended.err
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob(".writer.json"))


@contextlib.contextmanager
def at_batch(monkeypatch: pytest.MonkeyPatch, *steps: int, number: signal.Signals) -> Iterator[None]:
    """Send a signal as often as a step is named while its batch is made."""
    original = Pipeline.batch

    def batch(self: Pipeline, step: int) -> Any:
        for _ in range(steps.count(step)):
            os.kill(os.getpid(), number)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "batch", batch)
        yield


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.slow) for each in NUMBERS[1:])]
)
def test_the_first_signal_says_what_it_waits_for_and_the_second_ends(
    number: signal.Signals, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", CONFIG, f"--workdir={tmp_path / 'run'}", *overrides]
    with at_batch(monkeypatch, 1, number=number):
        ended = run(*command)
    assert ended.status == 128 + number
    assert f"\n{number.name}: finishing step 2, then saving; once more to stop at once\n" in ended.err
    assert ended.err.splitlines()[-1] == f"{number.name}: saved step 2; the same command resumes there"
    with at_batch(monkeypatch, 4, 4, number=number):
        ended = run(*command)
    assert (ended.status, ended.err.splitlines()[-1]) == (128 + number, f"geonoise train: stopped by {number.name}")
    # The checkpoint of step 3 is sound.
    ended = run(*command)
    assert (ended.status, ended.err.splitlines()[0]) == (0, f"resuming {tmp_path / 'run'} at step 3")


def test_ignored_signals_stay_ignored() -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stopping() as came, signals.StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert (came, stop.received) == ([], None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


PROGRAM = """
import builtins, os, signal, sys, time
phase = sys.argv.pop(1)
from geonoise_jax import signals
signals._GRACE_SECONDS = 0.3

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Importing:
    def find_spec(self, name, *_):
        if name == phase:
            interrupt()

sys.meta_path.insert(0, Importing())
from geonoise_jax import __main__
if phase in ("swallowing", "library"):
    from geonoise_jax import cli, files
    def run(*_):
        with files.replacing(os.environ["DRAFT"]):
            try:
                if phase == "swallowing":
                    interrupt()
                else:
                    # Code that does not come back to Python, as a compilation: no handler runs.
                    import ctypes, threading
                    threading.Timer(0.2, interrupt).start()
                    ctypes.CDLL(None).sleep(60)
                    ctypes.CDLL(None).sleep(60)
            except BaseException:
                pass
            time.sleep(60)
    cli._sample = run
__main__.main()
"""


@pytest.mark.parametrize("phase", ["geonoise_jax.cli", "jax", "optax", "swallowing", "library"])
def test_a_signal_ends_the_process_whatever_it_is_doing(phase: str, workdir: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, phase, "sample", f"--workdir={workdir}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "DRAFT": str(tmp_path / "file")},
    )
    assert (ended.returncode, ended.stdout) == (130, ""), ended.stderr
    assert ended.stderr in ("geonoise: stopped by SIGINT\n", "geonoise sample: stopped by SIGINT\n")
    assert not list(tmp_path.iterdir())
    assert time.monotonic() - began < 40


@pytest.mark.slow
def test_a_training_process_saves_on_a_hangup_and_a_third_signal_ends_it_at_once(
    overrides: list[str], tmp_path: Path
) -> None:
    """From outside, in one process after the other, as a terminal does it."""
    command = ["train", CONFIG, f"--workdir={tmp_path}", *overrides]
    command += ["--config.training.num_steps=1000000", "--config.optimizer.decay=constant"]
    for number, times in ((signal.SIGHUP, 1), (signal.SIGINT, 3)):
        with subprocess.Popen(
            [sys.executable, "-m", "geonoise_jax", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            while "train: " not in process.stderr.readline():
                assert process.poll() is None
            for _ in range(times):
                process.send_signal(number)
                time.sleep(0.05)
            try:
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert (process.returncode, out) == (128 + number, "")
        assert "Traceback" not in err
        first, *_, last = err.splitlines()
        assert first.startswith(f"{number.name}: finishing step ")
        assert "saved step" in last or "stopped by" in last
    assert training.Checkpoints(tmp_path).steps
