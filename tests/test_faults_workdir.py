"""Faults of a workdir: each is found before training, said in one line, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
import pytest

from geonoise_jax import files
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.process.keys import root_key
from geonoise_jax.training import checkpoint, metrics
from geonoise_jax.training import train as training
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.checkpoint_errors import UnreadableCheckpointError, UnsavedError
from tests.command_line import run, snapshot
from tests.training_runs import circles


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    choice = circles(tmp_path_factory.mktemp("data"), training__num_steps=4, checkpoint__every=2, training__log_every=1)
    folder = tmp_path_factory.mktemp("run")
    train(choice, folder)
    return choice, folder


@pytest.fixture
def copied(finished: tuple[ConfigDict, Path], tmp_path: Path) -> tuple[ConfigDict, Path]:
    """A copy of a finished run, to be harmed."""
    shutil.copytree(finished[1], tmp_path / "run")
    return finished[0], tmp_path / "run"


def as_file(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).write_text("precious")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def only_metrics(folder: Path) -> None:
    without_config(folder)
    shutil.rmtree(folder / "checkpoints")


def damaged(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "checkpoints is a file": (
        lambda folder: as_file(folder, "checkpoints"),
        "/checkpoints': is a file, not a folder",
    ),
    "samples is a file": (lambda folder: as_file(folder, "samples"), "'{0}/samples': is a file, not a folder"),
    "no config": (
        without_config,
        "holds checkpoints and metrics.jsonl but no config.json",
    ),
    "no config, metrics": (only_metrics, "holds metrics.jsonl but no config.json that says of what; put it back"),
    "config torn": (damaged("config.json", b'{"data": '), "{0}/config.json: not valid JSON"),
    "config binary": (damaged("config.json", b"\xff\xfe\x00"), "{0}/config.json: is damaged: no text from byte 0 on"),
    "config deep": (damaged("config.json", b"[" * 99999), "{0}/config.json: nested too deep"),
    "config is a list": (damaged("config.json", b"[]"), "{0}/config.json: must hold a JSON object"),
    "data torn": (damaged("data.json", b'{"event_'), "{0}/data.json: is damaged: not valid JSON"),
    "data empty": (damaged("data.json", b"{}"), "{0}/data.json: is damaged: must hold event_shape and num_classes"),
    "data is a list": (damaged("data.json", b"[]"), "{0}/data.json: is damaged: must hold event_shape and num_classes"),
    "data of strings": (
        damaged("data.json", b'{"event_shape": ["a"], "num_classes": 2}'),
        "{0}/data.json: is damaged: event_shape and num_classes must be whole numbers",
    ),
    "metrics damaged": (
        damaged("metrics.jsonl", b'{"step": 1, "seconds": 1}\n???\n{"step": 2, "seconds": 1}\n'),
        "{0}/metrics.jsonl: line 2: is damaged: not valid JSON",
    ),
    "metrics of strings": (
        damaged("metrics.jsonl", b'{"step": "a"}\n{"step": 2, "seconds": 1}\n'),
        "{0}/metrics.jsonl: line 1: is damaged: must have a step, a number",
    ),
    "metrics binary": (damaged("metrics.jsonl", b"\xff\n"), "{0}/metrics.jsonl: is damaged: no text from byte 0 on"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_workdir_is_refused_in_one_line_and_left_alone(fault: str, copied: tuple[ConfigDict, Path]) -> None:
    choice, folder = copied
    harm, message = FAULTS[fault]
    harm(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".writer.lock"}
    with pytest.raises(UserError) as error:
        train(choice, folder)
    assert message.format(folder) in str(error.value)
    assert "\n" not in str(error.value)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".writer.lock"}
    assert after == before


@pytest.mark.parametrize("fault", [name for name in FAULTS if name.startswith(("config", "data"))])
def test_sampling_of_a_faulty_workdir_says_the_same(fault: str, copied: tuple[ConfigDict, Path]) -> None:
    _, folder = copied
    harm, message = FAULTS[fault]
    harm(folder)
    ended = run("sample", f"--workdir={folder}")
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"geonoise sample: {message.format(folder)}")


def test_a_last_line_of_metrics_that_a_crash_tore_is_no_fault(copied: tuple[ConfigDict, Path]) -> None:
    choice, folder = copied
    whole = (folder / "metrics.jsonl").read_bytes()
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"\0" * 40)
    assert train(choice, folder).step == 4
    assert (folder / "metrics.jsonl").read_bytes() == whole
    assert len(metrics.read(folder / "metrics.jsonl")) == 4


def test_no_room_is_found_before_training(
    finished: tuple[ConfigDict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    monkeypatch.setattr(training, "_Loop", None)
    with pytest.raises(UserError, match=r"run/checkpoints': has no room: 0.1 MiB are needed and 0.0 MiB are free"):
        train(finished[0], tmp_path / "run")


def test_a_workdir_that_cannot_be_written_is_refused_before_its_data_are_read(
    finished: tuple[ConfigDict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "prepare", None)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        UserError, match="run': cannot be written to: no permission, or read-only; choose another folder"
    ):
        train(finished[0], tmp_path / "run")


@pytest.mark.parametrize("words", [["train", "--config=configs/circles.py"], ["sample"], ["figure", "excess_risk"]])
def test_urls_are_refused_by_every_command(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*words, "--workdir=s3://bucket/run")
    assert (ended.status, list(tmp_path.iterdir())) == (2, [])
    assert "--workdir = 's3://bucket/run': must be a local path or gs://BUCKET/FOLDER" in ended.err
    with pytest.raises(UserError, match="workdir = 's3:/+bucket/run': must be a local path"):
        restore("s3://bucket/run")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"workdir = '{tmp_path}/none': no such folder" in run("sample", "--workdir=~/none").err


def test_a_second_run_is_told_who_holds_the_workdir(copied: tuple[ConfigDict, Path]) -> None:
    choice, folder = copied
    said = rf"workdir = '{folder}': is in use by process {os.getpid()} on \S+ since \d{{4}}-.*; wait for it"
    refusals: list[str] = []

    def other() -> None:
        try:
            train(choice, folder)
        except UserError as error:
            refusals.append(str(error))

    before = snapshot(folder / "checkpoints")
    with files.locked(folder):
        with pytest.raises(UserError, match=said):
            train(choice, folder)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert re.match(said, refusals[0])
        # Reading is free.
        assert restore(folder).step == 4
    assert snapshot(folder / "checkpoints") == before
    # A holder that was killed.
    (folder / ".writer.json").write_text(json.dumps({"pid": 1, "host": "gone", "since": "yesterday"}))
    shutil.rmtree(folder / "checkpoints" / "4")
    assert train(choice, folder).step == 4
    assert not (folder / ".writer.json").exists()


def failing(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Let every file of checkpoint 4 fail to be read, by Orbax and by us."""
    restore, path_open = ocp.CheckpointManager.restore, Path.open

    def refuse(self: Any, step: int, *words: Any, **more: Any) -> Any:
        if step == 4:
            raise ValueError(f"UNAVAILABLE: {error.strerror}")
        return restore(self, step, *words, **more)

    def refuse_open(self: Path, *words: Any, **more: Any) -> Any:
        if "checkpoints/4/" in str(self):
            raise OSError(error.errno, error.strerror, str(self))
        return path_open(self, *words, **more)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", refuse)
    monkeypatch.setattr(Path, "open", refuse_open)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_what_cannot_be_read_now_is_not_damaged(
    number: int, copied: tuple[ConfigDict, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, folder = copied
    said = rf"checkpoint 4 cannot be read now \({os.strerror(number)}: .*\); nothing was changed"
    with monkeypatch.context() as patch:
        failing(patch, OSError(number, os.strerror(number)))
        for call in (lambda: train(choice, folder), lambda: restore(folder)):
            with pytest.raises(UnreadableCheckpointError, match=said):
                call()
    assert not (folder / "damaged_checkpoints").exists()
    assert train(choice, folder).step == 4


def test_a_failure_that_passes_is_no_failure(copied: tuple[ConfigDict, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    load, calls = Checkpoints._load, []

    def once(self: Checkpoints, *words: Any) -> Any:
        calls.append(words)
        if len(calls) == 1:
            raise OSError(errno.ETIMEDOUT, "timed out")
        return load(self, *words)

    monkeypatch.setattr(Checkpoints, "_load", once)
    assert restore(copied[1]).step == 4
    assert len(calls) == 2


def test_too_little_memory_is_not_damage(copied: tuple[ConfigDict, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError("no"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")):
        monkeypatch.setattr(Checkpoints, "_load", lambda *_, error=error: (_ for _ in ()).throw(error))
        ended = run("sample", f"--workdir={copied[1]}")
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert ended.err.startswith("geonoise sample: out of memory (")


def test_what_the_checkpoint_has_more_of_is_a_mismatch(copied: tuple[ConfigDict, Path]) -> None:
    """As where the config in the workdir has one layer less: it is not moved away as damaged."""
    choice, folder = copied
    more = circles(Path(choice.data.data_dir), training__num_steps=4, model__kwargs__depth=2)
    shutil.rmtree(folder)
    train(more, folder)
    stored = json.loads((folder / "config.json").read_text())
    stored["model"]["kwargs"]["depth"] = 1
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(checkpoint.OtherTypesError, match=r"checkpoint 4 holds ema_params/\S+ as .* absent here"):
        restore(folder)


@pytest.mark.parametrize("fault", [False, OSError(errno.ENOSPC, "No space left on device"), ValueError("UNKNOWN: no")])
def test_a_checkpoint_that_is_not_saved_is_an_error(
    fault: Any, finished: tuple[ConfigDict, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: Any, **__: Any) -> bool:
        if isinstance(fault, Exception):
            raise fault
        return False

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    with pytest.raises(
        UnsavedError, match=r"checkpoint of step 2 was not saved \(.*\); earlier ones are kept"
    ) as error:
        train(finished[0], tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_seeds_that_would_be_taken_for_others_are_refused(seed: int, finished: tuple[ConfigDict, Path]) -> None:
    with pytest.raises(UserError, match=rf"^seed = {seed}: must be in 0..4294967295$"):
        root_key(seed)
    ended = run("sample", f"--workdir={finished[1]}", f"--seed={seed}")
    assert ended == (2, "", f"geonoise sample: seed = {seed}: must be in 0..4294967295\n")


def test_a_reserved_option_of_a_study_is_named() -> None:
    ended = run("figure", "eqm_stop", "--option=workdir=7")
    assert ended == (2, "", "geonoise figure: --option=workdir: give the workdir of eqm_stop as --workdir\n")
