"""Plans by the real compilers: fake CPU devices always, TPUs and GPUs that are not there where their compiler is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from geonoise_jax import build, config
from geonoise_jax.config import ConfigDict
from geonoise_jax.hardware import chips
from geonoise_jax.planning import figures, memory, programs, report, run, stand_in, topology
from geonoise_jax.planning.facts import Facts
from geonoise_jax.training import sharding, train, utilization
from tests.command_line import run as command
from tests.training_runs import circles

SMALL = {"model__kwargs__width": 64, "model__kwargs__dropout": 0.0, "sampling__num_steps": 3, "sampling__num": 8}
# The same of a command line, with data sets of the size that `circles` makes.
DEVICES = 8  # see conftest
WORDS = ("data.kwargs.dim=3", "data.kwargs.num_train=200", "model.kwargs.width=8", "training.batch_size=32")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def small(data_dir: Path) -> Callable[..., ConfigDict]:
    """Makes the config of a small perceptron on circles, as a change of it."""
    return lambda variant="flow_matching,conditional", **changes: circles(data_dir, variant, **{**SMALL, **changes})


def survey(choice: ConfigDict, devices: int = 8, **options: Any) -> tuple[Facts, list[str]]:
    said: list[str] = []
    request = programs.Request(config.dumps(choice), "small", f"cpu:{devices}", **options)
    return programs.survey(request, jax.devices()[:devices], said.append), said


def test_a_plan_for_eight_devices_is_that_of_their_program(small: Callable[..., ConfigDict]) -> None:
    found, said = survey(small(training__batch_size=128), two_sizes=True)
    step, half = found.find("step")
    (sampler,) = found.find("sampler")
    assert (step.batch, half.batch, sampler.batch) == (128, 64, 8)
    assert (sampler.evaluations, step.evaluations) == (6, None)
    assert said == [
        "shapes",
        "tracing the training step",
        "compiling: step, batch 128",
        "tracing the training step",
        "compiling: step, batch 64",
        "tracing the sampler",
        "compiling: sampler, batch 8",
    ]
    compiled = step.compiled
    assert compiled is not None
    assert compiled.memory is not None
    assert compiled.flops is not None
    # By formula it is exact what the program is given; it returns the new state in place of that, and three means.
    assert compiled.memory.arguments == pytest.approx(step.memory.arguments, abs=1024)
    assert compiled.memory.aliased == pytest.approx(step.memory.aliased, abs=1024)
    assert 0.6 < step.total / 8 / compiled.flops < 1.0
    assert {(each.kind, each.dtype) for each in compiled.collectives} == {("all-reduce", "f32")}
    assert sum(each.bytes for each in compiled.collectives) == pytest.approx(4 * found.parameters, rel=0.01)
    assert half.total == pytest.approx(step.total / 2, rel=0.01)
    assert figures.growth(found, 8).by == "two sizes"
    text = report.text(found)
    assert "evaluations of the network      6 a sample" in text
    assert "not known: none: a processor has no peak that a table could know" in text


def test_what_was_compiled_is_looked_up_and_another_batch_is_compiled(small: Callable[..., ConfigDict]) -> None:
    first, _ = survey(small(), 2, sampler=False)
    again, said = survey(small(), 2, sampler=False)
    assert said[-1] == "known from before: step, batch 32"
    assert again.programs[0].compiled == first.programs[0].compiled
    _, said = survey(small(training__batch_size=64), 2, sampler=False)
    assert said[-1] == "compiling: step, batch 64"


def test_fsdp_splits_the_state_and_micro_batches_split_the_activations(small: Callable[..., ConfigDict]) -> None:
    whole, _ = survey(small(), quick=True, sampler=False)
    split, _ = survey(small(sharding__parameters="fsdp"), quick=True, sampler=False)
    parts, _ = survey(small(training__accumulate=2), quick=True, sampler=False)
    assert (whole.sharded, split.sharded) == (False, True)
    assert split.programs[0].memory.arguments < 0.5 * whole.programs[0].memory.arguments
    grown = [found.programs[0].memory.temporaries - found.programs[0].grads for found in (whole, parts)]
    assert grown[1] == pytest.approx(grown[0] / 2, rel=0.2)
    assert whole.programs[0].total == pytest.approx(parts.programs[0].total, rel=0.01)
    assert whole.programs[0].compiled is None


def test_only_a_cpu_has_energy_networks_convolve_by_patches() -> None:
    choice = config.load("configs/digits.py:eqm_energy,blind")
    assert programs.as_on(choice, "cpu") is choice
    assert programs.as_on(choice, "v5e").model.kwargs.convolution == "xla"
    other = config.load("configs/digits.py:eqm,blind")
    assert programs.as_on(other, "v5e") is other


KINDS = [("ddpm,conditional", 100), ("eqm,blind", None), ("edm,blind", 35)]


@pytest.mark.parametrize(("variant", "evaluations"), KINDS)
def test_samplers_of_all_kinds_are_planned(variant: str, evaluations: int | None, data_dir: Path) -> None:
    found, _ = survey(circles(data_dir, variant, sampling__num=8), quick=True)
    (sampler,) = found.find("sampler")
    assert sampler.evaluations == evaluations
    assert sampler.total > 0
    assert "samples at once" in report.text(found)


def test_the_step_that_is_planned_is_the_one_that_trains(small: Callable[..., ConfigDict], tmp_path: Path) -> None:
    """The same text, from a stand-in on described devices and from the real data on the devices themselves."""
    choice = small()
    texts = []
    for data, put in ((stand_in.arrays(choice), sharding.described), (None, sharding.put)):
        setup = train.prepare(build.run(choice, data), tmp_path, jax.devices()[:2], put=put)
        texts.append(setup.step.lower(setup.abstract, setup.batch(0), setup.resident).as_text())
    assert texts[0] == texts[1]


def test_activations_grow_with_the_rows_of_a_device(small: Callable[..., ConfigDict]) -> None:
    few, many = (programs.described(small(training__batch_size=size), jax.devices()[:2]) for size in (16, 64))
    assert memory.activations(many) == pytest.approx(4 * memory.activations(few), rel=0.2)


@pytest.mark.parametrize("quick", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_plans_in_a_process_of_its_own(quick: bool, data_dir: Path, tmp_path: Path) -> None:
    words = [f"--config.{word}" for word in (*WORDS, f"data.data_dir={data_dir}")]
    out = tmp_path / "plan.json"
    kind = ["--quick"] if quick else ["--no-sampler"]
    ended = command("plan", "--config=configs/circles.py", "--topology=cpu:2", f"--out={out}", *kind, *words)
    assert ended.status == 0, ended.err
    assert "configs/circles.py on cpu:2: 2 x CPU" in ended.out
    assert "plan: tracing the training step" in ended.err
    stored = json.loads(out.read_text())
    assert stored["devices"] == 2
    assert (stored["facts"]["programs"][0]["compiled"] is None) == quick
    assert stored["bounds"]["step"]["mfu"] is None


def test_a_compiler_that_dies_is_a_fault_and_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the process that compiles ended with status"):
        run.survey(config.load("configs/digits.py"), "digits", "cpu:2")


def test_the_log_has_the_utilization_of_devices_in_the_table(
    small: Callable[..., ConfigDict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPU it has none; as if they were TPUs, FLOPs x rate over the peak of all, from one trace."""
    choice = small(training__num_steps=6, training__log_every=2)
    build.train(choice, tmp_path / "cpu")
    monkeypatch.setattr(chips, "of_kind", lambda _: chips.CHIPS["v5e"])
    build.train(choice, tmp_path / "tpu")
    for name in ("cpu", "tpu"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [("mfu" in line) for line in lines] == [name == "tpu"] * 3
    setup = train.prepare(build.run(choice), tmp_path)
    flops = utilization.of_setup(setup).flops
    for line in lines:
        assert line["mfu"] == pytest.approx(flops * line["steps_per_second"] / (8 * 197e12))


def requires(module: str, extra: str) -> pytest.MarkDecorator:
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    return pytest.mark.skipif(not found, reason=f"needs {module}, of the extra {extra!r}: pip install '.[{extra}]'")


@requires("libtpu", "tpu")
def test_the_digits_step_compiles_for_a_tpu_slice() -> None:
    found = run.survey(config.load("configs/digits.py"), "digits", "v5e:2x2", sampler=False)
    compiled = found.find("step")[0].compiled
    assert compiled is not None
    assert compiled.memory is not None
    assert compiled.flops is not None
    assert 0.9 < found.find("step")[0].total / 4 / compiled.flops < 1.05
    assert {(each.kind, each.dtype) for each in compiled.collectives} == {("all-reduce", "f32")}


@requires("jax_plugins.xla_cuda13", "cuda")
def test_the_digits_step_compiles_for_gpus() -> None:
    found = run.survey(config.load("configs/digits.py"), "digits", "h100:8", sampler=False)
    compiled = found.find("step")[0].compiled
    assert compiled is not None
    assert compiled.memory is not None
    assert {(each.kind, each.dtype) for each in compiled.collectives} == {("all-reduce", "f32")}


@requires("libtpu", "tpu")
@pytest.mark.parametrize("name", ["v4:2x2x2", "v5e:1x1", "v5e:4x4", "v5p:2x2x1", "v6e:2x4"])
def test_slices_have_a_device_for_each_chip(name: str) -> None:
    """As jax calls them, by which the table knows them."""
    program = (
        "from geonoise_jax.planning import topology as t; d = t.devices(t.parse(sys.argv[1]));"
        "print(len(d), d[0].device_kind)"
    )
    place = topology.parse(name)
    environment = topology.environment(place, os.environ)
    command = [sys.executable, "-c", f"import sys; {program}", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    count, _, kind = done.stdout.strip().partition(" ")
    assert int(count) == place.count
    assert chips.of_kind(kind) is place.chip


@requires("libtpu", "tpu")
def test_a_slice_that_the_compiler_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="topology = 'v5e:3x5': the compiler refuses it"):
        run.survey(config.load("configs/digits.py"), "digits", "v5e:3x5")
