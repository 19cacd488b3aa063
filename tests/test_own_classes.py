"""Code of one's own in a config: the page of the documentation as it stands, whose code runs, and what errors say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax import build, config, imports
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.sampling.samplers import SAMPLERS
from tests.command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "own_classes.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
COMMANDS = [
    shlex.split(line.replace("\\\n", " "))
    for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S)
    for line in re.split(r"(?<!\\)\n", block.strip())
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the file of the page, and a record of what this user trained."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mine.py").write_text(CODE[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.syspath_prepend(str(folder))
        yield folder
    sys.modules.pop("mine", None)


@pytest.fixture(scope="module")
def workdir(home: Path) -> Path:
    """Trained by the first command of the page, with fewer updates."""
    small = ["--config.training.num_steps=4", "--config.sampling.every=4", "--config.sampling.num=4"]
    small += [f"--config.data.kwargs.{key}=64" for key in ("num_train", "num_test")]
    small += ["--config.training.batch_size=16", f"--config.data.data_dir={home / 'data'}"]
    command, *words = COMMANDS[0]
    ended = run(*words, *small)
    assert (command, ended.status) == ("geonoise", 0), ended.err
    return home / "runs" / "mine"


def test_the_page_trains_samples_and_restores(workdir: Path, home: Path) -> None:
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["schedule"] == {"name": f"{home.resolve() / 'mine.py'}:Bent", "kwargs": {"power": 1.5, "t_min": 0.05}}
    assert (workdir / "samples" / "00000004.png").is_file()
    for _, *words in COMMANDS[1:]:
        assert run(*words).status == 0
    scope: dict[str, Any] = {}
    exec(CODE[1], scope)
    trained = scope["trained"]
    assert repr(trained).startswith("Trained(Plain at step 4 (ema), blind, Bent schedule, Mixed target")
    assert (scope["samples"].shape, np.isfinite(scope["samples"]).all()) == ((16, 8), True)
    assert trained.field.process.schedule.power == 1.5
    two = (trained.sample(8, share=share) for share in (0.5, 0.3))
    assert np.abs(np.subtract(*two)).max() > 1e-6


def test_the_page_trains_without_a_config(home: Path) -> None:
    scope: dict[str, Any] = {"restore": restore}
    exec(CODE[2].replace("num_steps=200", "num_steps=3, batch_size=16"), scope)
    assert (scope["samples"].shape, scope["cleaned"].shape) == ((100, 2), (4, 2))
    assert (home / "runs" / "notebook" / "run.json").is_file()


def test_the_run_goes_on_with_its_own_classes(workdir: Path, tmp_path: Path, home: Path) -> None:
    assert run("train", f"--workdir={workdir}") == (0, f"already at step 4, nothing to do: {workdir}\n", "")
    ended = run("train", f"--workdir={workdir}", "--config.schedule.kwargs.power=1.6")
    assert "belongs to another config (schedule.kwargs.power: 1.5 there, 1.6 now)" in ended.err


def test_a_workdir_that_somebody_sent_runs_no_code(workdir: Path, home: Path, tmp_path: Path) -> None:
    """By no command, and by no function; not even the code that was trained with, under other arguments."""
    sent, witness = tmp_path / "sent", tmp_path / "witness"
    shutil.copytree(workdir, sent)
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(witness)!r}, 'w').close()\nfrom mine import *\n")
    text = (sent / "config.json").read_text().replace(f"{home.resolve() / 'mine.py'}:Bent", f"{evil}:Bent")
    (sent / "config.json").write_text(text)
    commands = (
        ["train"],
        ["train", "--config.seed=1"],
        ["sample"],
        *(["figure", name] for name in ("excess_risk", "guidance")),
    )
    for words in commands:
        ended = run(*words, f"--workdir={sent}")
        assert ended.status == 2
        assert f"names code to be imported (model.name = '{home.resolve() / 'mine.py'}:Plain', " in ended.err
        assert f"schedule.name = '{evil}:Bent'" in ended.err
        assert "), and you did not train it here; look at the code, then give --allow-import (" in ended.err
    with pytest.raises(ValueError, match="allow_import=True"):
        restore(sent)
    assert not witness.exists()
    assert run("sample", f"--workdir={sent}", "--num=4", "--allow-import").status == 0
    assert witness.exists()
    assert restore(sent, allow_import=True).step == 4
    # Nothing of this is remembered, and the own workdir with other arguments is another one.
    assert run("sample", f"--workdir={sent}").status == 2
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved)
    before = (workdir / "config.json").read_text()
    try:
        (workdir / "config.json").write_text(before.replace('"power": 1.5', '"power": 1.4'))
        for folder in (workdir, moved):
            with pytest.raises(ValueError, match="you did not train it here"):
                restore(folder)
    finally:
        (workdir / "config.json").write_text(before)
    assert restore(workdir).step == 4


def test_a_record_that_cannot_be_written_or_read_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tree = {"schedule": {"name": "a.b:C", "kwargs": {}}}
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    imports.trust(tmp_path, tree)
    with pytest.raises(ValueError, match="'a.b:C'"):
        imports.require(tmp_path, tree)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    imports.trust(tmp_path, tree)
    imports.require(tmp_path, tree)
    for damaged in ("{", "[]"):
        imports.record_path().write_text(damaged)
        with pytest.raises(ValueError, match="'a.b:C'"):
            imports.require(tmp_path, tree)
    imports.require(tmp_path, {"schedule": {"name": "Linear", "kwargs": {}}})
    with imports.allow():
        imports.require(tmp_path, tree)


def test_names_that_are_imports() -> None:
    for name in ("a:B", "a.b:C", "/x y/z.py:C", "C:/x.py:C", "dir:x/f.py:C"):
        assert imports.is_import(name), name
    others = ("Linear", "cifar10", "imagenet_resized/64x64:0.1.0", "mnist:3.0.1", "a/b:C", "file.py", ":C", "a:", 3)
    assert not any(imports.is_import(other) for other in others)


OTHERS = """
import dataclasses
from geonoise_jax.data import Arrays
from geonoise_jax.process.schedules import Linear, Schedule
from geonoise_jax.process.targets import Target
import flax.linen as nn
import numpy as np

class NoSchedule:
    pass

class Unfinished(Schedule):
    pass

class Scalar(Target):
    def coeffs(self, schedule_coeffs, t):
        return 1.0, 0.0

class Failing(Schedule):
    def scales(self, t):
        return t.nothing

def factory():
    return 3

class Deaf(nn.Module):
    @nn.compact
    def __call__(self, u, t=None, labels=None, *, train=False):
        return u

def other(x, y):
    return x

def ready(split, size=5):
    return Arrays(events=np.ones((size, 3), np.float32), name="mine", split=split)

constant = 3
"""


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("others") / "others.py"
    path.write_text(OTHERS)
    path.with_name("broken.py").write_text("x = 1\nraise KeyError('why')\n")
    path.with_name("syntax.py").write_text("x = 1\ny = (\n")
    return path


BAD: list[tuple[str, str, str]] = [
    ("schedule", "{folder}/nowhere.py:A", "no such file; put it back where it was when the config was made"),
    ("schedule", "no_such_package.x:A", "cannot be imported (ModuleNotFoundError: No module named 'no_such_package')"),
    ("schedule", "{folder}/broken.py:A", "cannot be imported (line 2: KeyError: 'why')"),
    ("schedule", "{folder}/syntax.py:A", "cannot be imported (line 2: SyntaxError: "),
    ("schedule", "{folder}/others.py:NoSchedul", "has no NoSchedul; did you mean NoSchedule"),
    (
        "schedule",
        "{folder}/others.py:NoSchedule",
        "must be a geonoise_jax.process.schedules.Schedule, not the class ",
    ),
    ("schedule", "{folder}/others.py:constant", "must be a geonoise_jax.process.schedules.Schedule, not of type int"),
    (
        "schedule",
        "{folder}/others.py:factory",
        "must make a geonoise_jax.process.schedules.Schedule, not one",
    ),
    ("schedule", "{folder}/others.py:Unfinished", "cannot be made (TypeError: Can't instantiate abstract class"),
    ("schedule", "{folder}/others.py:Failing", "coeffs(t) fails (AttributeError: "),
    ("target", "{folder}/others.py:Scalar", "coeffs(schedule_coeffs, t) must return 2 arrays of the shape of t, (3,)"),
    ("time_law", "{folder}/others.py:NoSchedule", "must be a geonoise_jax.process.times.TimeLaw"),
    ("loss_weight", "{folder}/others.py:NoSchedule", "must be a geonoise_jax.process.weights.LossWeight"),
    ("ema", "{folder}/others.py:NoSchedule", "must be a geonoise_jax.training.ema.EMA"),
    ("loss", "{folder}/others.py:NoSchedule", "must be a geonoise_jax.training.losses.Objective"),
    ("optimizer", "{folder}/others.py:factory", "must make a optax"),
    ("model", "{folder}/others.py:NoSchedule", "must be a flax.linen.module.Module"),
    ("model", "{folder}/others.py:Deaf", "model.blind = True: Deaf must have a field conditional, by which it is told"),
    (
        "sampling.sampler",
        "{folder}/others.py:other",
        "must be a Sampler, or a function of (field, u[, times]",
    ),
    ("data", "{folder}/others.py:factory", "must make a geonoise_jax.data.arrays.Arrays"),
]


@pytest.mark.parametrize(("key", "name", "message"), BAD, ids=[f"{key}-{name.split('/')[-1]}" for key, name, _ in BAD])
def test_what_own_classes_are_refused_for(key: str, name: str, message: str, others: Path, tmp_path: Path) -> None:
    choice = config.load("configs/circles.py")
    changes = [(f"{key}.name", name.format(folder=others.parent)), ("data.data_dir", str(tmp_path))]
    small = [("data.kwargs.num_train", "32"), ("data.kwargs.num_test", "8")] if key != "data" else []
    config.override(choice, [*changes, *small])
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        build.run(choice)
    assert "\n" not in str(error.value)


def test_data_and_samplers_of_ones_own(others: Path) -> None:
    choice = config.load("configs/circles.py")
    config.override(choice, [("data.name", f"{others}:ready"), ("data.kwargs.size", "7")])
    assert (len(build.arrays(choice)), build.arrays(choice, "test").split, build.scaling(choice)) == (
        7,
        "test",
        (0.0, 1.0),
    )
    config.override(choice, [("sampling.sampler.name", "geonoise_jax.sampling.ode:euler")])
    chosen = build.sampling_options(choice)["sampler"]
    assert (str(chosen), chosen.gridded, chosen.timed) == ("euler", True, True)
    assert build.sampler("heun") == "heun"
    config.override(choice, [("sampling.sampler.name", "geonoise_jax.sampling.samplers:SAMPLERS")])
    with pytest.raises(ValueError, match="must be a Sampler, or a function of .*, not of type dict"):
        build.sampling_options(choice)
    assert SAMPLERS["euler"].run is chosen.run


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "value.py"
    for number in (1, 2):
        path.write_text(f"def value(): return {number}\n" + "#" * number)
        os.utime(path, ns=(number, number))
        assert imports.load("x", f"{path}:value")() == number
