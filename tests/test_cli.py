"""The command line in process: train, resume, and every refusal with one line and nothing changed on disk."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geonoise_jax import config, demo, runtime
from geonoise_jax.build import runs
from geonoise_jax.cli import parser
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.training import train as training
from tests.command_line import CONFIG, SMALL, run, snapshot


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def overrides(data_dir: Path) -> list[str]:
    return [f"--config.{key}={value}" for key, value in {**SMALL, "data.data_dir": data_dir}.items()]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "circles"
    ended = run("train", CONFIG, f"--workdir={folder}", *overrides)
    assert ended[:2] == (0, f"trained to step 6: {folder}\n"), ended.err
    assert "train: 6/6 steps (100%)" in ended.err
    return folder


def test_training_leaves_a_complete_workdir(workdir: Path) -> None:
    assert {"config.json", "data.json", "metrics.jsonl", "parameters.txt", "checkpoints", ".writer.lock"} == {
        path.name for path in workdir.iterdir() if path.name != "samples"
    }
    assert {path.name for path in (workdir / "checkpoints").iterdir()} >= {"3", "6"}
    stored = config.loads((workdir / "config.json").read_text())
    assert (stored.training.num_steps, stored.model.kwargs.width, stored.model.blind) == (6, 8, False)


def test_a_stopped_run_says_so_and_the_same_command_resumes(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", CONFIG, f"--workdir={tmp_path / 'run'}", *overrides]
    batch = Pipeline.batch

    def stopping(self: Pipeline, step: int) -> dict[str, np.ndarray]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "batch", stopping)
        ended = run(*command)
    assert (ended.status, ended.out) == (143, "")
    assert ended.err.splitlines()[-1] == "SIGTERM: saved step 4; the same command resumes there"
    ended = run(*command)
    assert (ended.status, ended.out) == (0, f"trained to step 6: {tmp_path / 'run'}\n")
    assert ended.err.splitlines()[0] == f"resuming {tmp_path / 'run'} at step 4"
    before = snapshot(tmp_path)
    assert run(*command) == (0, f"already at step 6, nothing to do: {tmp_path / 'run'}\n", "")
    assert run("train", command[2]) == run(*command)
    assert snapshot(tmp_path) == before


def test_a_workdir_alone_is_enough_to_go_on(workdir: Path, tmp_path: Path) -> None:
    """With overrides of the config that it holds; what was learnt so far may have been otherwise sharded and logged."""
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    changes = ("training.num_steps=8", "optimizer.decay=constant", "training.accumulate=2", "training.log_every=1")
    words = [f"--config.{change}" for change in (*changes, "sharding.parameters=fsdp", "training.batch_size=16")]
    ended = run("train", f"--workdir={folder}", words[0])
    assert (ended.status, ended.out) == (2, "")
    assert "optimizer.decay = 'cosine' laid the learning rate" in ended.err
    stored = config.loads((folder / "config.json").read_text())
    stored.optimizer.decay = "constant"
    (folder / "config.json").write_text(config.dumps(stored))
    assert run("train", f"--workdir={folder}", *words)[:2] == (0, f"trained to step 8: {folder}\n")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 7, 8]
    assert config.loads((folder / "config.json").read_text()).training.accumulate == 2
    ended = run("train", f"--workdir={folder}", "--config.training.batch_size=32")
    assert "belongs to another config (training.batch_size: 16 there, 32 now)" in ended.err


def test_to_begin_a_run_needs_a_config(tmp_path: Path) -> None:
    ended = run("train", f"--workdir={tmp_path / 'run'}")
    message = f"--config: must be given to begin a run; workdir = {str(tmp_path / 'run')!r} holds none yet"
    assert ended == (2, "", f"geonoise train: {message}\n")
    (tmp_path / "run.json").write_text("{}")
    ended = run("train", f"--workdir={tmp_path}")
    assert "is of a run of own objects (run.json): train, restore and sample it from the program" in ended.err


def test_the_config_is_compared_before_data_are_loaded(workdir: Path, tmp_path: Path) -> None:
    ended = run("train", f"--workdir={workdir}", "--config.seed=9", "--config.data.data_dir=/nowhere")
    assert "belongs to another config (seed: 0 there, 9 now)" in ended.err


def test_an_interrupt_has_its_own_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: training.Result(4, "SIGINT", 0.0))
    ended = run("train", CONFIG, "--workdir", tmp_path)
    assert ended == (130, "", "SIGINT: saved step 4; the same command resumes there\n")


BAD_TRAIN = [
    (
        ["--config.trainin.num_steps=1"],
        "--config.trainin.num_steps: unknown config key; did you mean training.num_steps",
    ),
    (["--config.model.blind=Yes"], "--config.model.blind = 'Yes': must be of type bool"),
    (["--config=configs/circle.py"], "config = 'configs/circle.py': no such file"),
    (["--config=configs/circles.py:blnd"], "unknown word 'blnd'; did you mean blind?"),
    (["--config.schedule.name=Liner"], "schedule.name = 'Liner': unknown; did you mean Linear"),
    (["--config.schedule.kwargs.tmax=0.9"], "schedule.kwargs.tmax: not an argument of Linear; did you mean t_max"),
    (["--config.schedule.kwargs.t_max=1", "--config.target.name=Noise"], "is singular: a d - b c vanishes at t = 1"),
    (["--config.time_law.kwargs.hi=1.0"], "time_law: [lo, hi] = [0.001, 1] must lie within the schedule's"),
    (["--config.training.batch_size=13"], "training.batch_size = 13: must be a positive multiple of"),
    (["--config.mesh.data=3"], "must use exactly the 2 devices there are"),
    (["--config.training.num_steps=0"], "training.num_steps = 0: must be an integer >= 1"),
    (["--config.optimizer.name=adamm"], "optimizer.name = 'adamm': unknown; did you mean adam"),
    (["--config.optimizer.kwargs.b1=abc"], "optimizer.kwargs.b1 = 'abc': must be a number"),
    (["--config.model.name=UNet"], "model.kwargs.depth: not an argument of UNet"),
    (["--config.model.noise_feature=snr"], "model.noise_feature = 'snr': unknown; did you mean log_snr?"),
    (["--config.data.name=circle"], "unknown data set 'circle': did you mean circles"),
    (["--config.data.kwargs.dim=1"], "dim = 1: must be an integer >= 2"),
]
# What needs the data to be said; a workdir is compared before they are loaded.
WITH_DATA = ("--config.model.name=UNet", "--config.data.name=circle", "--config.data.kwargs.dim=1")


@pytest.mark.parametrize(("words", "message"), BAD_TRAIN, ids=[" ".join(words) for words, _ in BAD_TRAIN])
def test_a_bad_training_command_is_refused(
    words: list[str], message: str, overrides: list[str], workdir: Path, data_dir: Path, tmp_path: Path
) -> None:
    """Both for a new workdir, which is not made, and for one that holds a run."""
    for folder in (tmp_path / "new", workdir):
        before = snapshot(tmp_path, workdir, data_dir)
        ended = run("train", CONFIG, f"--workdir={folder}", *overrides, *words)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("geonoise train: ")
        other = folder == workdir and words[0] in WITH_DATA
        assert ("belongs to another config (" if other else message) in ended.err
        assert ended.err.count("\n") == 1
        assert snapshot(tmp_path, workdir, data_dir) == before


def test_a_workdir_of_another_config_is_left_alone(workdir: Path, overrides: list[str]) -> None:
    before = snapshot(workdir)
    ended = run(
        "train", CONFIG, f"--workdir={workdir}", *overrides, "--config.model.kwargs.width=16", "--config.seed=1"
    )
    assert ended == (
        2,
        "",
        f"geonoise train: workdir = {str(workdir)!r}: belongs to another config (model.kwargs.width: 8 there, 16 now; "
        "seed: 0 there, 1 now); choose another workdir\n",
    )
    assert snapshot(workdir) == before


def test_a_workdir_that_cannot_be_made_is_named(tmp_path: Path, overrides: list[str]) -> None:
    (tmp_path / "file").write_text("precious")
    ended = run("train", CONFIG, f"--workdir={tmp_path / 'file'}", *overrides)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"geonoise train: workdir = '{tmp_path / 'file'}': is a file, not a folder\n"
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["sample", "--workdir=w", "--config.seed=1"],
            "--config.seed: only train, exact, data and plan take overrides",
        ),
        (
            ["demo", "--config.seed", "1"],
            "--config.seed: only train, exact, data and plan take overrides of the config",
        ),
        (["train", CONFIG, "--workdir=w", "--config.seed"], "--config.seed: needs a value"),
        (["train", CONFIG], "required: --workdir"),
        (["train", "--workdir=w"], "--config: must be given to begin a run"),
        (["sample"], "required: --workdir"),
        (["sample", "--workdir=w", "--num=many"], "--num: invalid int value: 'many'"),
        (["sample", "--workdir=w", "--steps=3"], "unrecognized arguments: --steps=3"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "the following arguments are required"),
    ],
)
def test_bad_usage(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*words)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_overrides_may_come_anywhere_and_with_a_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[config.ConfigDict] = []

    def record(choice: config.ConfigDict, *_: object, **__: object) -> training.Result:
        seen.append(choice)
        return training.Result(1, None, 0.0)

    monkeypatch.setattr(runs, "train", record)
    words = ["--config.seed", "7", "train", "--config.data.data_dir=a=b", CONFIG, "--workdir", "w", "--config.seed=8"]
    assert run(*words).status == 0
    assert (seen[0].seed, seen[0].data.data_dir, seen[0].model.blind) == (8, "a=b", False)


@pytest.mark.parametrize("command", [[], ["demo"], ["train"], ["sample"], ["evaluate"], ["exact"]])
def test_help(command: list[str]) -> None:
    ended = run(*command, "--help")
    assert (ended.status, ended.err) == (0, "")
    expected = {
        "demo": "--quick",
        "train": "--config.training.num_steps=2000",
        "sample": "--animate",
        "evaluate": "--metrics",
        "exact": "--selfcheck",
    }
    for name, option in expected.items():
        assert (option in ended.out) == (command == [name])
        assert name in ended.out or command


def test_help_of_the_module_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geonoise_jax", "sample", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: geonoise sample [-h] --workdir WORKDIR")
    assert parser().prog == "geonoise"


def test_demo_prints_its_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def record(out: Path, budget: demo.Budget) -> str:
        calls.append((out, budget))
        return "the table"

    monkeypatch.setattr(demo, "run", record)
    assert run("demo") == (0, "the table\n", "")
    assert run("demo", "--quick", "--out", tmp_path) == (0, "the table\n", "")
    assert calls == [(Path("demo"), demo.FULL), (tmp_path, demo.QUICK)]


def test_the_process_is_set_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")
    monkeypatch.setattr(runtime, "_jaxlib_version", lambda: "0.10.2")
    for _ in range(2):
        runtime.configure()
        words = os.environ["XLA_FLAGS"].split()
        assert words[0] == "--xla_dump_to=here"
        assert [word.split("=")[0] for word in words[1:]] == ["--xla_cpu_experimental_ynn_fusion_type"]
    assert len(logging.getLogger("geonoise_jax").handlers) == 1
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=chosen")
    runtime.configure()
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_experimental_ynn_fusion_type=chosen"
    # A jaxlib that does not know the flag would abort.
    monkeypatch.setenv("XLA_FLAGS", "")
    for version in ("0.10.3", "0.12.0", ""):
        monkeypatch.setattr(runtime, "_jaxlib_version", lambda version=version: version)
        runtime.configure()
        assert os.environ["XLA_FLAGS"] == ""


def test_compiled_programs_are_kept_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    runtime.configure()
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_MAX_SIZE")
    runtime.configure()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache" / "geonoise_jax")
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == 2**30
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"
    # A home that cannot be written is no reason to fail.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    runtime.configure()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


BAD_FIGURE = [
    (("excess_risk",), "--workdir: must be given for excess_risk"),
    (("blind_sampling", "--workdir=x"), "--workdir: is no argument of blind_sampling, which needs no run"),
    (("eqm_stop", "--workdir=no_such_folder"), "workdir = 'no_such_folder': no such folder"),
    (("blind_sampling", "--option=dim=3"), "--option dim: no option of blind_sampling; its options are dims, num"),
    (("blind_sampling", "--option=num=0"), "num = 0: must be"),
]


@pytest.mark.parametrize(("words", "message"), BAD_FIGURE)
def test_a_bad_study_is_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    ended = run("figure", *words, f"--out={tmp_path / 'a'}")
    assert ended[:2] == (2, "")
    assert ended.err.startswith(f"geonoise figure: {message}")
    assert not list(tmp_path.iterdir())


def test_excess_risk_of_a_run(workdir: Path, tmp_path: Path) -> None:
    words = ("--option=num=64", "--option=checkpoints=2", "--option=accuracy=1e-3", f"--out={tmp_path / 'risk'}")
    ended = run("figure", "excess_risk", f"--workdir={workdir}", *words)
    assert ended.status == 0, ended.err
    assert ended.out.endswith(f"{tmp_path / 'risk.png'}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"risk.png", "risk.svg", "risk.npz", "risk.json"}
