"""Plans by the real compilers: fake CPU devices always, TPUs and GPUs that are not there where their compiler is."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import jax
import pytest

from geonoise_jax import build, config
from geonoise_jax.config import ConfigDict
from geonoise_jax.hardware import chips
from geonoise_jax.planning import figures, memory, programs, report, run, stand_in
from geonoise_jax.planning.facts import Facts
from geonoise_jax.training import sharding, train, utilization
from tests.command_line import run as command
from tests.training_runs import circles

TINY = {
    "model.kwargs.base_channels": 8,
    "model.kwargs.blocks_per_level": 1,
    "training.batch_size": 16,
    "sampling.num_steps": 3,
    "sampling.num": 8,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def tiny(**changes: Any) -> ConfigDict:
    given = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return config.override(config.load("configs/digits.py"), [(key, str(value)) for key, value in given.items()])


def survey(choice: ConfigDict, devices: int = 8, **options: Any) -> tuple[Facts, list[str]]:
    said: list[str] = []
    request = programs.Request(config.dumps(choice), "tiny", f"cpu:{devices}", **options)
    return programs.survey(request, jax.devices()[:devices], said.append), said


def test_a_plan_for_eight_devices_is_that_of_their_program() -> None:
    choice = tiny()
    found, said = survey(choice, two_sizes=True)
    step, half = found.find("step")
    (sampler,) = found.find("sampler")
    assert (step.batch, half.batch, sampler.batch) == (16, 8, 8)
    assert (sampler.evaluations, step.evaluations) == (6, None)
    assert said == [
        "shapes",
        "tracing the training step",
        "compiling: step, batch 16",
        "tracing the training step",
        "compiling: step, batch 8",
        "tracing the sampler",
        "compiling: sampler, batch 8",
    ]
    compiled = step.compiled
    assert compiled is not None
    assert compiled.memory is not None
    assert compiled.flops is not None
    # Exact by formula: all that the program is given. It returns its state in place of that, and three means.
    assert compiled.memory.arguments == pytest.approx(step.memory.arguments, abs=1024)
    assert compiled.memory.aliased == pytest.approx(step.memory.aliased, abs=1024)
    assert 0.8 < step.total / 8 / compiled.flops < 1.0
    assert {(each.kind, each.dtype) for each in compiled.collectives} == {("all-reduce", "f32")}
    assert sum(each.bytes for each in compiled.collectives) == pytest.approx(4 * found.parameters, rel=0.01)
    assert half.total == pytest.approx(step.total / 2, rel=0.01)
    assert figures.growth(found, 8).by == "two sizes"
    text = report.text(found)
    assert "evaluations of the network      6 a sample" in text
    assert "not known: none: a processor has no peak that a table could know" in text


def test_what_was_compiled_is_looked_up_and_another_batch_is_compiled() -> None:
    first, _ = survey(tiny(), 2, sampler=False)
    again, said = survey(tiny(), 2, sampler=False)
    assert said[-1] == "known from before: step, batch 16"
    assert again.programs[0].compiled == first.programs[0].compiled
    _, said = survey(tiny(training__batch_size=32), 2, sampler=False)
    assert said[-1] == "compiling: step, batch 32"


def test_fsdp_splits_the_state_and_micro_batches_split_the_activations() -> None:
    whole, _ = survey(tiny(), quick=True)
    split, _ = survey(tiny(sharding__parameters="fsdp"), quick=True)
    parts, _ = survey(tiny(training__accumulate=2), quick=True)
    assert not whole.sharded
    assert split.sharded
    assert split.find("step")[0].memory.arguments < 0.5 * whole.find("step")[0].memory.arguments
    temporaries = [found.find("step")[0].memory.temporaries - found.find("step")[0].grads for found in (whole, parts)]
    assert temporaries[1] == pytest.approx(temporaries[0] / 2, rel=0.05)
    assert whole.find("step")[0].total == pytest.approx(parts.find("step")[0].total, rel=0.01)
    assert all(program.compiled is None for program in whole.programs)


def test_only_a_cpu_has_energy_networks_convolve_by_patches() -> None:
    choice = config.load("configs/digits.py:eqm_energy,blind")
    assert programs.as_on(choice, "cpu") is choice
    assert programs.as_on(choice, "v5e").model.kwargs.convolution == "xla"
    assert programs.as_on(tiny(), "v5e") == tiny()


@pytest.mark.parametrize("variant", ["ddpm,conditional", "eqm,blind", "edm,conditional,class_conditional"])
def test_samplers_of_all_kinds_are_planned(variant: str) -> None:
    choice = config.override(config.load(f"configs/digits.py:{variant}"), [("model.kwargs.base_channels", "8")])
    found, _ = survey(choice, quick=True)
    (sampler,) = found.find("sampler")
    wanted = {"ddpm,conditional": 100, "eqm,blind": None, "edm,conditional,class_conditional": 35}
    assert sampler.evaluations == wanted[variant]
    assert sampler.total > 0
    assert "samples at once" in report.text(found)


def test_the_step_that_is_planned_is_the_one_that_trains(tmp_path: Path) -> None:
    """The same text, from a stand-in on described devices and from the real data on the devices themselves."""
    choice = circles(tmp_path / "data")
    texts = []
    for data, put in ((stand_in.arrays(choice), sharding.described), (None, sharding.put)):
        setup = train.prepare(build.run(choice, data), tmp_path, jax.devices()[:2], put=put)
        texts.append(setup.step.lower(setup.abstract, setup.batch(0), setup.resident).as_text())
    assert texts[0] == texts[1]


def test_activations_grow_with_the_rows_of_a_device() -> None:
    small, large = (programs.described(tiny(training__batch_size=size), jax.devices()[:2]) for size in (16, 64))
    assert memory.activations(large) == pytest.approx(4 * memory.activations(small), rel=0.05)


@pytest.mark.parametrize("quick", [False, True])
def test_the_command_plans_in_a_process_of_its_own(quick: bool, tmp_path: Path) -> None:
    words = [f"--config.{key}={value}" for key, value in TINY.items()]
    out = tmp_path / "plan.json"
    kind = ["--quick"] if quick else ["--no-sampler"]
    ended = command("plan", "--config=configs/digits.py", "--topology=cpu:2", f"--out={out}", *kind, *words)
    assert ended.status == 0, ended.err
    assert "configs/digits.py on cpu:2: 2 x CPU" in ended.out
    assert "plan: tracing the training step" in ended.err
    stored = json.loads(out.read_text())
    assert stored["devices"] == 2
    assert (stored["facts"]["programs"][0]["compiled"] is None) == quick
    assert stored["bounds"]["step"]["mfu"] is None


def test_a_compiler_that_dies_is_a_fault_and_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the process that compiles ended with status"):
        run.survey(tiny(), "tiny", "cpu:2")


def test_the_log_has_the_utilization_of_devices_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPU it has none; as if they were TPUs, FLOPs x rate over the peak of all, from one trace."""
    choice = circles(tmp_path / "data", training__num_steps=6, training__log_every=2)
    build.train(choice, tmp_path / "cpu")
    monkeypatch.setattr(chips, "of_kind", lambda kind: chips.CHIPS["v5e"])
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
@pytest.mark.slow
def test_the_digits_step_compiles_for_a_tpu_slice() -> None:
    found = run.survey(config.load("configs/digits.py"), "digits", "v5e:2x2", sampler=False)
    compiled = found.find("step")[0].compiled
    assert compiled is not None
    assert compiled.memory is not None
    assert compiled.flops is not None
    assert 0.9 < found.find("step")[0].total / 4 / compiled.flops < 1.05
    assert {(each.kind, each.dtype) for each in compiled.collectives} == {("all-reduce", "f32")}


@requires("jax_plugins.xla_cuda13", "cuda")
@pytest.mark.slow
def test_the_digits_step_compiles_for_gpus() -> None:
    found = run.survey(config.load("configs/digits.py"), "digits", "h100:8", sampler=False)
    compiled = found.find("step")[0].compiled
    assert compiled is not None
    assert compiled.memory is not None
    assert {(each.kind, each.dtype) for each in compiled.collectives} == {("all-reduce", "f32")}


@requires("libtpu", "tpu")
def test_a_slice_that_the_compiler_does_not_know_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="topology = 'v5e:3x5': the compiler refuses it"):
        run.survey(config.load("configs/digits.py"), "digits", "v5e:3x5")
