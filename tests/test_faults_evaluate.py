"""kill -9 of an evaluation: started again it has the same numbers, and no sample that was kept is drawn again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax import build
from geonoise_jax.evaluation import Options, evaluate
from geonoise_jax.evaluation.evaluator.records import numbers_of
from tests.training_runs import circles

NUM, BATCH = 640, 16
METRICS = ("sliced_wasserstein", "energy_distance", "manifold")
OPTIONS = Options(metrics=METRICS, num=NUM, batch_size=BATCH)
# Notes of every batch its first sample and how many are held; dies by itself before the batch that it is told.
PROGRAM = f"""
import os, signal, sys
from pathlib import Path
from geonoise_jax.evaluation import Options, evaluate
from geonoise_jax.evaluation.evaluator import cases, samples
from geonoise_jax.evaluation.evaluator.kept import Kept
folder, notes, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
def draw(case, start, num):
    if start == last:
        os.kill(os.getpid(), signal.SIGKILL)
    with notes.open("a") as file:
        file.write(f"{{start}} {{Kept(case.folder).held}}\\n")
    return cases.draw(case, start, num)
samples.draw = draw
print("started", flush=True)
evaluate(folder, Options(metrics={METRICS!r}, num={NUM}, batch_size={BATCH}))
"""


@pytest.fixture
def workdirs(tmp_path: Path) -> tuple[Path, Path]:
    """The same run twice."""
    small: dict[str, Any] = {"training__num_steps": 20, "sampling__num_steps": 4, "data__kwargs__num_test": 100}
    build.train(circles(tmp_path / "data", **small), tmp_path / "killed" / "run")
    return tmp_path / "killed" / "run", Path(shutil.copytree(tmp_path / "killed", tmp_path / "whole")) / "run"


def program(folder: Path, notes: Path, last: int = -1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(notes), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def noted(notes: Path) -> list[tuple[int, int]]:
    """First sample of every batch, and how many were held."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(int(start), int(held)) for start, held in (line.split() for line in lines)]


def same_numbers(killed: Path, whole: Path) -> None:
    found, expected = (evaluate(folder, OPTIONS).records for folder in (killed, whole))
    assert [numbers_of(one) for one in found] == [numbers_of(one) for one in expected]
    assert len((killed / "evaluation" / "results.jsonl").read_text().splitlines()) == len(METRICS)


@pytest.mark.slow
def test_killed_once_it_goes_on(workdirs: tuple[Path, Path], tmp_path: Path) -> None:
    with program(workdirs[0], tmp_path / "notes", last=5 * BATCH) as process:
        assert process.wait(300) == -signal.SIGKILL
    assert noted(tmp_path / "notes") == [(start, start) for start in range(0, 5 * BATCH, BATCH)]
    same_numbers(*workdirs)


@pytest.mark.slow
def test_killed_at_random_moments_it_is_the_same_evaluation(workdirs: tuple[Path, Path], tmp_path: Path) -> None:
    moments, kills, took = random.Random(0), 0, 0.0
    for number in range(15):
        with program(workdirs[0], tmp_path / "notes") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            began = time.perf_counter()
            if number == 0:
                # To know how long it takes until the first batch.
                while not noted(tmp_path / "notes"):
                    time.sleep(0.01)
                took = time.perf_counter() - began
            time.sleep(moments.uniform(0.8 * took if number else 0.0, 1.5 * took))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
    same_numbers(*workdirs)
    batches = noted(tmp_path / "notes")
    assert kills >= 5
    # A batch begins where what is kept ends: only one that was lost with its process is drawn again.
    assert all(start == held for start, held in batches)
    again = Counter(start for start, _ in batches)
    assert sum(again.values()) - len(again) <= kills
