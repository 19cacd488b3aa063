"""Workdirs in a bucket, for real: the same run as on a disk, whatever happens to it in between."""

from __future__ import annotations

import concurrent.futures
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.evaluator.records import numbers_of
from geonoise_jax.evaluation.evaluator.records import read as records_of
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.files import leases
from tests import command_line, processes_runs
from tests.processes_runs import Processes
from tests.training_runs import TIMING

pytestmark = pytest.mark.slow
# So long a run of this size takes on a machine that does much else.
LIMIT = 600.0
NUM_STEPS, EVERY = 40, 8
DIGITS = [
    "--config=configs/digits.py:flow_matching,blind",
    f"--config.training.num_steps={NUM_STEPS}",
    "--config.training.batch_size=16",
    "--config.training.log_every=1",
    f"--config.checkpoint.every={EVERY}",
    "--config.sampling.every=20",
    "--config.sampling.num=9",
    "--config.sampling.num_steps=3",
]
CIRCLES = [
    command_line.CONFIG,
    *(f"--config.{key}={value}" for key, value in command_line.SMALL.items()),
    "--config.optimizer.decay=constant",
    "--config.checkpoint.keep=1",
]


def start(*words: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "geonoise_jax", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status of a process, and what it said."""
    said, _ = process.communicate(timeout=LIMIT)
    return process.returncode, said


def metrics_of(folder: str | Path) -> list[dict[str, Any]]:
    """Lines of metrics without wall-clock figures."""
    lines = files.JsonLines(f"{folder}/metrics.jsonl").read()
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def until(process: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    """Wait while a process lives until something holds."""
    began = time.monotonic()
    while not holds():
        assert process.poll() is None, ended(process)
        assert time.monotonic() - began < LIMIT
        time.sleep(0.05)


def assert_same_parameters(*folders: str | Path) -> None:
    for params in ("ema", "raw"):
        one, two = (restore(folder, params=params) for folder in folders)
        assert one.step == two.step
        pairs = zip(jax.tree.leaves(one.field.params), jax.tree.leaves(two.field.params), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def damage(folder: str) -> None:
    """Change one bit of the largest object of a checkpoint."""
    from geonoise_jax.files import bucket

    found = [bucket._path(blob.bucket.name, blob.name) for blob in bucket._listing(f"{folder}/train/")]
    largest = max(found, key=lambda path: len(bucket.read(path)))
    content = bytearray(bucket.read(largest))
    content[len(content) // 2] ^= 1
    bucket.write(largest, bytes(content))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the disk that nothing happened to."""
    folder = tmp_path_factory.mktemp("local") / "run"
    status, said = ended(start("train", *DIGITS, f"--workdir={folder}"))
    assert status == 0, said
    return folder


@pytest.fixture(scope="module")
def remote(bucket: str) -> str:
    """The same in the bucket, killed, then stopped, then resumed; with a second writer in between."""
    folder = f"{bucket}/digits/run"
    process = start("train", *DIGITS, f"--workdir={folder}")
    until(process, lambda: len(metrics_of(folder)) > EVERY + 2)
    said = f"workdir = '{folder}': is in use by process {process.pid} on"
    with pytest.raises(UserError, match=said):
        files.check_unlocked(folder, "workdir")
    second = command_line.run("train", f"--workdir={folder}")
    assert (second.status, said in second.err) == (2, True)
    process.kill()
    process.communicate()
    assert files.exists(f"{folder}/.writer.json")
    # The lock of a process of this machine that is gone is no obstacle, and the config is in the bucket.
    process = start("train", f"--workdir={folder}")
    until(process, lambda: (metrics_of(folder) or [{"step": 0}])[-1]["step"] > 2 * EVERY + 2)
    process.send_signal(signal.SIGTERM)
    status, said = ended(process)
    assert status == 143, said
    assert re.search(r"SIGTERM: saved step \d+; the same command resumes there", said)
    status, said = ended(start("train", f"--workdir={folder}"))
    assert status == 0, said
    assert f"trained to step {NUM_STEPS}: {folder}" in said
    assert not files.exists(f"{folder}/.writer.json")
    return folder


def test_the_run_is_bit_for_bit_that_on_a_disk(local: Path, remote: str) -> None:
    assert metrics_of(remote) == metrics_of(local)
    assert_same_parameters(local, remote)
    for name in ("config.json", "data.json", "parameters.txt", "samples/00000020.png", "samples/00000040.png"):
        with files.opened(f"{remote}/{name}") as file:
            assert file.read() == (local / name).read_bytes(), name
    again = command_line.run("train", f"--workdir={remote}")
    assert (again.status, again.out) == (0, f"already at step {NUM_STEPS}, nothing to do: {remote}\n"), again.err


def test_samples_and_evaluations_are_those_on_a_disk(local: Path, remote: str, tmp_path: Path) -> None:
    for folder in (local, remote):
        for command in (
            ["sample", f"--workdir={folder}", "--num=6", "--png", "--uint8"],
            ["evaluate", f"--workdir={folder}", "--num=48", "--metrics=sliced_wasserstein,energy_distance"],
        ):
            done = command_line.run(*command)
            assert done.status == 0, done.err
            assert all(files.exists(line) for line in done.out.splitlines() if line.startswith(str(folder)))
    arrays = []
    for folder in (local, remote):
        with files.opened(f"{folder}/samples/samples.npz") as file, np.load(file) as stored:
            arrays.append(stored["samples"])
    np.testing.assert_array_equal(*arrays)
    found = [
        [numbers_of(one) for one in records_of(f"{folder}/evaluation/results.jsonl")] for folder in (local, remote)
    ]
    assert found[0] == found[1]
    assert files.is_folder(f"{remote}/samples/samples")
    before = records_of(f"{remote}/evaluation/results.jsonl")
    command_line.run("evaluate", f"--workdir={remote}", "--num=48", "--metrics=energy_distance", f"--out={tmp_path}")
    assert records_of(f"{remote}/evaluation/results.jsonl") == before
    assert (tmp_path / "report.html").exists()


def test_damaged_and_unfinished_checkpoints_are_passed_over(local: Path, remote: str) -> None:
    damage(f"{remote}/checkpoints/{NUM_STEPS}")
    done = command_line.run("train", f"--workdir={remote}")
    assert done.status == 0, done.err
    assert f"checkpoint {NUM_STEPS} is damaged" in done.err
    assert files.exists(f"{remote}/damaged_checkpoints/{NUM_STEPS}/commit_success.txt")
    assert_same_parameters(local, remote)
    # What a kill in the middle of a save leaves.
    files.remove(f"{remote}/checkpoints/{NUM_STEPS}/commit_success.txt")
    assert restore(remote).step == NUM_STEPS - EVERY
    assert command_line.run("train", f"--workdir={remote}").status == 0
    assert_same_parameters(local, remote)
    assert metrics_of(remote) == metrics_of(local)


def test_a_run_that_starts_from_one_in_a_bucket(remote: str, bucket: str) -> None:
    step = NUM_STEPS - EVERY
    words = [*DIGITS, f"--init-from={remote}:{step}", "--config.training.num_steps=1", "--config.sampling.every=0"]
    done = command_line.run("train", *words, f"--workdir={bucket}/digits/next")
    assert done.status == 0, done.err
    assert re.search(rf"from {remote}: (\d+) of \1 arrays of step {step}", done.err)


@pytest.fixture(scope="module")
def circles(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short run that evaluates itself and keeps the best."""
    folder, data = f"{bucket}/circles", tmp_path_factory.mktemp("data")
    own = [
        "--config.training.num_steps=9",
        "--config.training.evaluate_every=3",
        "--config.checkpoint.keep_best=loss",
        "--config.evaluation.num=40",
    ]
    own += ["--config.evaluation.metrics=('energy_distance',)", "--config.data.kwargs.num_test=100"]
    done = command_line.run("train", *CIRCLES, *own, f"--config.data.data_dir={data}", f"--workdir={folder}")
    assert done.status == 0, done.err
    return folder


def test_the_best_checkpoint_and_a_study(circles: str, bucket: str) -> None:
    lines = [line for line in metrics_of(circles) if "held_out/loss" in line]
    assert [line["step"] for line in lines] == [3, 6, 9]
    earlier, best = (min(some, key=lambda line: line["held_out/loss"])["step"] for some in (lines[:2], lines))
    assert restore(circles, step="best").step == best
    # A checkpoint is saved, and others are removed, before it is evaluated.
    assert {path.name for path in files.listed(f"{circles}/checkpoints")} == {str(earlier), "9"}
    words = ["figure", "excess_risk", f"--workdir={circles}", f"--out={bucket}/figures/risk"]
    done = command_line.run(*words, "--option=num=64", "--option=checkpoints=2")
    assert done.status == 0, done.err
    assert {path.name for path in files.listed(f"{bucket}/figures")} >= {"risk.png", "risk.npz", "risk.json"}


def test_what_a_bucket_refuses_is_one_line() -> None:
    for word, said in (("train", "cannot be used"), ("sample", "cannot be seen")):
        done = command_line.run(word, *([] if word == "sample" else CIRCLES), "--workdir=gs://no-such-bucket/run")
        assert (done.status, done.err.count("\n")) == (2, 1), done.err
        assert f"{said} (no such file, or no bucket 'no-such-bucket')" in done.err


def test_two_processes_share_a_bucket(bucket: str, tmp_path: Path) -> None:
    """They train, are stopped by a signal to one, go on where a checkpoint is damaged, and end as one process does."""
    folders: list[Any] = [tmp_path / "one", files.location(f"{bucket}/two")]
    command = [processes_runs.words(tmp_path, folder, sampling__every=6) for folder in folders]
    assert command_line.run(*command[0]).status == 0
    with Processes(2, command[1]) as run:
        until(run._all[0], lambda: len(metrics_of(folders[1])) > 7)
        run.send(1, signal.SIGTERM)
        assert run.statuses() == [143, 143], run.outputs
    saved = max(int(path.name) for path in files.listed(folders[1] / "checkpoints"))
    damage(f"{folders[1]}/checkpoints/{saved}")
    with Processes(2, command[1]) as run:
        assert run.statuses() == [0, 0], run.outputs
    assert files.exists(folders[1] / "damaged_checkpoints" / str(saved))
    one, two = (metrics_of(folder) for folder in folders)
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([line[name] for line in two], [line[name] for line in one], rtol=1e-4)
    assert restore(folders[1]).step == 12


def test_of_many_that_want_a_lock_one_gets_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first, and again when its holder, of another machine, is silent."""
    monkeypatch.setattr(leases, "SILENCE", 3.0)
    monkeypatch.setattr(leases, "BEAT", 0.5)
    folder = files.location(f"{bucket}/lock")
    for silent in (False, True):
        if silent:
            files.write_json(
                folder / "lock", {"pid": 1, "host": "other", "since": "then", "machine": "m", "started": "1"}
            )
        held = [leases.Lease(folder, "lock", {"pid": number, "host": "here", "since": "now"}) for number in range(6)]
        for number, lease in enumerate(held):
            # As of machines that know nothing of each other's processes.
            lease._content = lease._content.replace(b'"machine": "', f'"machine": "{number}'.encode())
        with concurrent.futures.ThreadPoolExecutor(len(held)) as pool:
            refused = [future.exception() for future in [pool.submit(lease.take) for lease in held]]
        (winner,) = (lease for lease, error in zip(held, refused, strict=True) if error is None)
        assert sum(isinstance(error, leases.HeldError) for error in refused) == len(held) - 1
        assert not winner.lost
        winner.release()
        assert not files.exists(folder / "lock")
