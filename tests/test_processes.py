"""Training in two processes of four devices: one run like that of one process, on one set of files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from geonoise_jax import build, config, processes
from geonoise_jax.training.checkpoint import Checkpoints
from tests import command_line
from tests.processes_runs import CONFIG, SMALL, Processes, words

# The command line in a process that notes which items it makes of which step.
NOTING = """
import json, sys
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax import __main__
path, original = sys.argv.pop(), Pipeline.rows
def rows(self, step, at):
    with open(path, "a") as file:
        file.write(json.dumps([step, at.tolist(), self.index(step)[at].tolist()]) + "\\n")
    return original(self, step, at)
Pipeline.rows = rows
__main__.main()
"""

# The same, that notes which items it reads from files.
READING = """
import json, sys
from geonoise_jax.data.array_records import ArrayRecords
from geonoise_jax import __main__
path, original = sys.argv.pop(), ArrayRecords.read
def read(self, index):
    with open(path, "a") as file:
        file.write(json.dumps(index.tolist()) + "\\n")
    return original(self, index)
ArrayRecords.read = read
__main__.main()
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    build.dataset.arrays(choice(folder))
    return folder


@pytest.fixture(scope="module")
def of_two(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run of two processes, and of what each noted."""
    folder = tmp_path_factory.mktemp("two")
    more = {number: [str(folder / f"noted{number}")] for number in range(2)}
    with Processes(2, words(data_dir, folder / "run"), devices=4, program=("-c", NOTING), more=more) as run:
        assert run.statuses() == [0, 0], run.outputs
        assert sum("trained to step 12" in line for lines in run.outputs.values() for line in lines) == 1
        assert not any("train:" in line or "matmul" in line for line in run.outputs[1])
    return folder


@pytest.fixture(scope="module")
def of_one(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run in this process, on one device."""
    folder = tmp_path_factory.mktemp("one")
    build.train(choice(data_dir), folder / "run", devices=jax.devices()[:1])
    return folder


def choice(data_dir: Path, **overrides: Any) -> Any:
    given = {**SMALL, "data.data_dir": data_dir, **{key.replace("__", "."): value for key, value in overrides.items()}}
    start = config.load(CONFIG.removeprefix("--config="))
    return config.override(start, [(key, str(value)) for key, value in given.items()])


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def saved(folder: Path) -> list[int]:
    checkpoints = Checkpoints(folder / "run", read_only=True)
    try:
        assert all(checkpoints.is_sound(step) for step in checkpoints.steps)
        return checkpoints.steps
    finally:
        checkpoints.close()


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


def test_losses_are_those_of_one_process_and_written_once(of_one: Path, of_two: Path) -> None:
    one, two = lines(of_one), lines(of_two)
    assert [line["step"] for line in two] == list(range(1, 13))
    for name in ("loss", "grad_norm", "update_norm", "learning_rate"):
        np.testing.assert_allclose([line[name] for line in two], [line[name] for line in one], rtol=1e-5)


def test_the_order_of_the_data_is_bitwise_that_of_one_process(data_dir: Path, of_two: Path) -> None:
    noted = [[json.loads(line) for line in (of_two / f"noted{number}").read_text().splitlines()] for number in range(2)]
    stream = build.run(choice(data_dir)).pipeline()
    for step in range(12):
        batch = np.full(stream.batch_size, -1)
        for each in noted:
            own = [(rows, items) for at, rows, items in each if at == step]
            assert len(own) == 1, "once a step"
            assert len(own[0][0]) == stream.batch_size // 2, "a process makes its share"
            batch[own[0][0]] = own[0][1]
        np.testing.assert_array_equal(batch, stream.index(step))


@pytest.mark.slow
def test_each_reads_only_its_rows_of_a_set_beyond_memory(data_dir: Path, of_two: Path, tmp_path: Path) -> None:
    """The same run as in memory, bit for bit on the same devices."""
    more = {number: [str(tmp_path / f"read{number}")] for number in range(2)}
    streamed = words(data_dir, tmp_path / "run", data__placement="stream")
    with Processes(2, streamed, devices=4, program=("-c", READING), more=more) as run:
        assert run.statuses() == [0, 0], run.outputs
    timing = ("seconds", "steps_per_second", "images_per_second")
    one, two = ([{**line, **dict.fromkeys(timing, 0)} for line in lines(folder)] for folder in (of_two, tmp_path))
    assert one == two
    stream = build.run(choice(data_dir)).pipeline()
    read = [[json.loads(line) for line in (tmp_path / f"read{number}").read_text().splitlines()] for number in range(2)]
    # Besides, all 200 are looked at: first, for the checksum and for the pictures.
    shares = [[index for index in each if len(index) < 200] for each in read]
    assert all(len(each) <= 12 + 4 for each in shares), "four batches ahead"
    for step in range(12):
        halves = np.split(stream.index(step), 2)
        assert sum(half.tolist() in each for half in halves for each in shares) == 2


def test_samples_are_drawn_once_and_are_those_of_one_process(of_one: Path, of_two: Path) -> None:
    names = [sorted(path.name for path in (folder / "run" / "samples").iterdir()) for folder in (of_one, of_two)]
    assert names == [["00000006.png", "00000012.png"]] * 2
    for name in names[0]:
        one, two = (_picture(folder / "run" / "samples" / name) for folder in (of_one, of_two))
        # Samples differ by rounding, which may move a point of the picture by a part of a pixel.
        assert np.mean(np.abs(one - two) > 8) < 0.01


def test_the_workdir_is_that_of_one_process(of_one: Path, of_two: Path) -> None:
    names = [{path.name for path in (folder / "run").iterdir()} - {".writer.lock"} for folder in (of_one, of_two)]
    assert names[0] == names[1]
    assert saved(of_two) == [6, 12]
    for name in ("config.json", "data.json", "parameters.txt"):
        assert (of_two / "run" / name).read_text() == (of_one / "run" / name).read_text()


def test_one_process_goes_on_with_a_run_of_two(data_dir: Path, of_one: Path, of_two: Path, tmp_path: Path) -> None:
    longer = choice(data_dir, training__num_steps=16)
    for folder, name in ((of_one, "one"), (of_two, "two")):
        build.train(longer, copied(folder, tmp_path / name) / "run", devices=jax.devices()[:1])
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    np.testing.assert_allclose([line["loss"] for line in two], [line["loss"] for line in one], rtol=1e-4)
    assert [line["step"] for line in two] == list(range(1, 17))


@pytest.mark.slow
def test_damage_a_second_writer_a_signal_and_a_loss(data_dir: Path, of_two: Path, tmp_path: Path) -> None:
    """Two processes go on where the latest checkpoint is damaged; stop together; go on, until one is killed."""
    folder = copied(of_two, tmp_path)
    _damage(folder / "run" / "checkpoints" / "12")
    endless = words(data_dir, folder / "run", training__num_steps=10**6, sampling__every=0)
    with Processes(2, endless, devices=4) as run:
        run.until(folder / "run" / "metrics.jsonl", '"step": 14,')
        second = command_line.run(*endless)
        assert (second.status, "is in use by process" in second.err) == (2, True)
        run.send(1, signal.SIGTERM)
        assert run.statuses() == [128 + signal.SIGTERM] * 2, run.outputs
    assert any("checkpoint 12 is damaged" in line for line in run.outputs[0])
    assert [path.name for path in (folder / "run" / "damaged_checkpoints").iterdir()] == ["12"]
    steps = saved(folder)
    assert run.last(0) == f"SIGTERM: saved step {steps[-1]}; the same command resumes there"
    assert [line["step"] for line in lines(folder)] == list(range(1, steps[-1] + 1))
    _killed(1, endless, folder, steps[-1])


def test_a_process_that_waits_in_vain_says_for_whom(tmp_path: Path, data_dir: Path) -> None:
    command = [*words(data_dir, tmp_path / "run"), "--initialize-timeout=2"]
    with Processes(3, command, only=[0]) as run:
        assert run.statuses() == [75]
    assert "process 0 of 3: process 1, 2 missing at the coordinator 127.0.0.1:" in run.last(0)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_others_end_when_the_lead_is_killed(data_dir: Path, of_two: Path, tmp_path: Path) -> None:
    folder = copied(of_two, tmp_path)
    _killed(0, words(data_dir, folder / "run", training__num_steps=10**6, sampling__every=0), folder, 12)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to"), [(signal.SIGTERM, [0]), (signal.SIGINT, [0]), (signal.SIGTERM, [0, 1])])
def test_a_signal_to_the_lead_or_to_all_stops_all(
    data_dir: Path, of_two: Path, tmp_path: Path, number: int, to: list[int]
) -> None:
    folder = copied(of_two, tmp_path)
    with Processes(2, words(data_dir, folder / "run", training__num_steps=10**6, sampling__every=0)) as run:
        run.until(folder / "run" / "metrics.jsonl", '"step": 14,')
        for each in to:
            run.send(each, number)
        assert run.statuses() == [128 + number] * 2, run.outputs
    assert saved(folder)[-1] == lines(folder)[-1]["step"]


@pytest.mark.slow
def test_a_process_that_falls_silent_is_given_up(data_dir: Path, of_two: Path, tmp_path: Path) -> None:
    """As one whose host hangs: its connections stay."""
    folder = copied(of_two, tmp_path)
    endless = words(data_dir, folder / "run", training__num_steps=10**6, sampling__every=0)
    with Processes(2, endless, devices=4, heartbeat=10) as run:
        run.until(folder / "run" / "metrics.jsonl", '"step": 14,')
        run.send(1, signal.SIGSTOP)
        began = time.monotonic()
        assert run.status(0) == processes.LOST, run.outputs
        assert time.monotonic() - began < 60
    assert "process 0 of 2: another process is gone" in "\n".join(run.outputs[0])


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["auto", "stream"])
def test_three_processes_go_on_with_a_run_of_two(
    data_dir: Path, of_one: Path, of_two: Path, tmp_path: Path, placement: str
) -> None:
    longer = {"training__num_steps": 16}
    folder = copied(of_two, tmp_path / "three")
    with Processes(3, words(data_dir, folder / "run", **longer, data__placement=placement)) as run:
        assert run.statuses() == [0, 0, 0], run.outputs
    build.train(choice(data_dir, **longer), copied(of_one, tmp_path / "one") / "run", devices=jax.devices()[:1])
    three, one = lines(folder), lines(tmp_path / "one")
    np.testing.assert_allclose([line["loss"] for line in three], [line["loss"] for line in one], rtol=1e-4)


@pytest.mark.slow
def test_two_processes_begin_with_the_averages_of_another_run(data_dir: Path, of_two: Path, tmp_path: Path) -> None:
    begun = {"init_from__workdir": of_two / "run", "init_from__step": 6, "optimizer__learning_rate": 2e-3}
    with Processes(2, words(data_dir, tmp_path / "two" / "run", **begun), devices=4) as run:
        assert run.statuses() == [0, 0], run.outputs
        assert sum("parameters (ema) from" in line for each in run.outputs.values() for line in each) == 1, run.outputs
    build.train(choice(data_dir, **begun), tmp_path / "one" / "run", devices=jax.devices()[:1])
    two, one = lines(tmp_path / "two"), lines(tmp_path / "one")
    np.testing.assert_allclose([line["loss"] for line in two], [line["loss"] for line in one], rtol=1e-4)
    fresh = lines(of_two)[0]["loss"]
    assert abs(two[0]["loss"] / fresh - 1.0) > 1e-3, "it begins with what was learnt"


@pytest.mark.slow
def test_parameters_split_over_processes_train_alike(data_dir: Path, of_one: Path, tmp_path: Path) -> None:
    wide = {"model__kwargs__width": 64, "posthoc_ema__every": 6, "data__placement": "host"}
    with Processes(2, words(data_dir, tmp_path / "two" / "run", **wide, sharding__parameters="fsdp")) as run:
        assert run.statuses() == [0, 0], run.outputs
    build.train(choice(data_dir, **wide), tmp_path / "one" / "run", devices=jax.devices()[:1])
    two, one = lines(tmp_path / "two"), lines(tmp_path / "one")
    np.testing.assert_allclose([line["loss"] for line in two], [line["loss"] for line in one], rtol=1e-4)
    assert saved(tmp_path / "two") == [6, 12]
    assert len(list((tmp_path / "two" / "run" / "posthoc_ema").iterdir())) == 2


@pytest.mark.slow
def test_samples_of_two_processes_are_those_of_one(of_two: Path, tmp_path: Path) -> None:
    command = ["sample", f"--workdir={of_two / 'run'}", "--num=13", "--batch-size=4"]
    for num, name in ((1, "one"), (2, "two")):
        with Processes(num, [*command, f"--out={tmp_path / name}"]) as run:
            assert run.statuses() == [0] * num, run.outputs
            assert sum("two.png" in line or "one.png" in line for each in run.outputs.values() for line in each) == 1
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert sorted(one.files) == sorted(two.files)
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(of_two: Path, tmp_path: Path) -> None:
    found = []
    for num, name in ((1, "one"), (2, "two")):
        folder = copied(of_two, tmp_path / name) / "run"
        with Processes(num, ["evaluate", f"--workdir={folder}", "--num=64"]) as run:
            assert run.statuses() == [0] * num, run.outputs
        records = [json.loads(line) for line in (folder / "evaluation" / "results.jsonl").read_text().splitlines()]
        found.append({record["metric"]: record["value"] for record in records})
        assert len(found[-1]) == len(records) > 0
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.slow
def test_what_one_refuses_ends_all_in_its_words(data_dir: Path, tmp_path: Path) -> None:
    more = {1: ["--config.optimizer.learning_rate=0.5"]}
    with Processes(2, words(data_dir, tmp_path / "run"), more=more) as run:
        assert run.statuses() == [2, 2], run.outputs
    assert all("config: must be the same in all processes; that of process 1" in run.last(each) for each in range(2))
    with Processes(2, words(data_dir, tmp_path / "run"), more={1: ["--config.data.data_dir=/dev/null/none"]}) as run:
        assert run.statuses() == [2, 2], run.outputs


def _killed(number: int, endless: list[str], folder: Path, step: int) -> None:
    """The other process ends with a status of its own, at once: collectives on CPUs fail, the lead is seen to end."""
    with Processes(2, endless, devices=4) as run:
        run.until(folder / "run" / "metrics.jsonl", f'"step": {step + 2},')
        run.send(number, signal.SIGKILL)
        began = time.monotonic()
        assert sorted(run.statuses()) == [-signal.SIGKILL, processes.LOST], run.outputs
        assert time.monotonic() - began < 60
    assert f"process {1 - number} of 2: another process is gone" in run.last(1 - number)
    assert saved(folder)[0] <= step


def _damage(checkpoint: Path) -> None:
    for path in checkpoint.rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), np.int32)
