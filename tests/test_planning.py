"""Plans without a compiler: names of topologies, collectives in a text, bounds and advice from facts, refusals."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax import config
from geonoise_jax.hardware.chips import chip
from geonoise_jax.planning import facts, figures, report, stand_in, topology
from geonoise_jax.planning.collectives import collectives
from geonoise_jax.planning.facts import Collective, Compiled, Facts, Memory, Program
from tests.command_line import run

GIB = 2**30


def made(**changes: Any) -> Facts:
    """A step of 64 samples on 4 v5e that takes 10 GiB there, of which 6 grow with the batch."""
    memory = Memory(arguments=3 * GIB, outputs=2 * GIB, aliased=2 * GIB, temporaries=7 * GIB)
    compiled = Compiled(memory, 2.1e12, 8.19e9, (Collective("all-reduce", "f32", 2, GIB),), 80.0, 120.0)
    step = Program("step", 64, (("float32", "highest", 8e12),), 0, memory, GIB, None, 4.0, compiled)
    step = dataclasses.replace(step, **changes)
    return Facts("v5e:2x2", "a.py", 1000, 7200, 1, False, 0, (step,))


def test_topologies_by_name() -> None:
    assert topology.parse("v5e:4x4").count == 16
    assert topology.parse("V5P:2x2x1") == topology.Topology("v5p", (2, 2, 1))
    assert topology.parse("h100:8").chip is chip("h100")
    assert str(topology.parse("a100-80gb:4")) == "a100-80gb:4"
    assert topology.parse("cpu:3").count == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e", "topology = 'v5e': must be CHIP:SHAPE, such as v5e:4x4"),
        ("v5e:4x0", "must be CHIP:SHAPE"),
        ("v5e:16", "topology = 'v5e:16': must be v5e:4x4 or the like, of 2 axes"),
        ("v5p:4x4", "must be v5p:2x2x1 or the like, of 3 axes"),
        ("h100:2x4", "must be h100:8 or the like, of 1 axes"),
        ("h10:8", "topology = 'h10:8': chip = 'h10': unknown; did you mean h100"),
        ("gaudi:8", "chip = 'gaudi': unknown; must be one of a100"),
    ],
)
def test_other_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        topology.parse(text)


def test_the_environment_of_the_compiler_leaves_that_of_the_user_alone() -> None:
    old = {"XLA_FLAGS": "--a=b --xla_force_host_platform_device_count=8", "HOME": "h"}
    kept = dict(old)
    found = topology.environment(topology.parse("v5p:2x2x2"), old)
    assert found["TPU_ACCELERATOR_TYPE"] == "v5p-16"
    assert (found["HOME"], found["JAX_PLATFORMS"]) == ("h", "cpu")
    assert topology.environment(topology.parse("v5e:4x4"), old)["TPU_ACCELERATOR_TYPE"] == "v5litepod-16"
    found = topology.environment(topology.parse("cpu:3"), old)
    assert found["XLA_FLAGS"] == "--a=b --xla_force_host_platform_device_count=3"
    assert old == kept


def test_a_compiler_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for text, extra in (("v5e:2x2", "tpu"), ("h100:8", "cuda")):
        with pytest.raises(ValueError, match=rf"is not installed; install the extra `{extra}`.*--quick"):
            topology.require(topology.parse(text))
    with pytest.raises(ValueError, match="only h100 and h200 can be described"):
        topology.require(topology.parse("l4:8"))
    topology.require(topology.parse("cpu:2"))


def test_an_h200_is_described_as_an_h100_with_its_own_memory() -> None:
    text = topology.target_config(topology.parse("h200:8"))
    assert "device_memory_size: 141000000000" in text
    assert "memory_bandwidth: 4800000000000" in text
    assert 'device_description_str: "NVIDIA H200"' in text
    assert "major: 9" in text


TEXT = """
%all-reduce.80 = (f32[24]{0:T(128)S(1)}, f32[3,3,24,24]{3,2,1,0:T(8,128)}, /*index=5*/bf16[6,4]{1,0}) all-reduce(%a, %b)
%all-reduce-start = f32[100]{0} all-reduce-start(%c), channel_id=39, to_apply=%region
%all-reduce-done = f32[100]{0} all-reduce-done(%all-reduce-start)
ROOT %ag = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(f32[2,8]{1,0} %d), dimensions={0}
%rs = bf16[4,8]{1,0} reduce-scatter(bf16[32,8]{1,0} %e), metadata={op_name="all-reduce"}
%fusion = f32[4]{0} fusion(%all-reduce.80), kind=kLoop, calls=%all-gather-like
%p = pred[8]{0} all-to-all(%q)
"""


def test_collectives_are_read_off_a_text() -> None:
    assert set(collectives(TEXT)) == {
        Collective("all-reduce", "f32", 2, 4 * (24 + 9 * 24 * 24 + 100)),
        Collective("all-reduce", "bf16", 1, 2 * 24),
        Collective("all-gather", "f32", 1, 4 * 16 * 8),
        Collective("reduce-scatter", "bf16", 1, 2 * 4 * 8),
        Collective("all-to-all", "pred", 1, 8),
    }
    assert collectives("") == ()


def test_bounds_of_a_step() -> None:
    found = figures.bounds(made().programs[0], chip("v5e"), 4)
    assert found.arithmetic == pytest.approx(2e12 * 6 / 197e12)
    assert found.memory == pytest.approx(8.19e9 / 819e9)
    assert found.step == found.arithmetic
    assert found.mfu == pytest.approx(1 / 6)
    assert found.communication == pytest.approx(2 * 3 / 4 * GIB / 200e9)
    cheap = made(flops=(("bfloat16", "default", 8e10),)).programs[0]
    found = figures.bounds(cheap, chip("v5e"), 4)
    assert found.step == found.memory
    assert found.mfu == pytest.approx(8e10 / (0.01 * 4 * 197e12))


def test_bytes_that_the_compiler_does_not_count_are_bounded_from_below() -> None:
    step = made().programs[0]
    assert step.compiled is not None
    step = dataclasses.replace(step, compiled=dataclasses.replace(step.compiled, bytes=None))
    assert figures.traffic(step) == (3 * GIB + 2 * GIB + 2 * 7 * GIB, "floor")
    assert figures.traffic(dataclasses.replace(step, compiled=None))[1] == "formula"
    nothing = figures.bounds(step, chip("cpu"), 4)
    assert (nothing.arithmetic, nothing.memory, nothing.step, nothing.mfu) == (None, None, None, None)


def test_bytes_sent_around_a_ring() -> None:
    for kind, rounds in (("all-reduce", 2), ("all-gather", 1), ("reduce-scatter", 8)):
        assert figures.sent(Collective(kind, "f32", 1, 800), 8) == rounds * 7 / 8 * 800


def test_the_largest_batch_is_where_the_line_meets_the_limit() -> None:
    found = made()
    line = figures.growth(found, 4)
    assert (line.fixed, line.per_row, line.by) == (4 * GIB, 6 * GIB / 16, "one size")
    # (15.75 - 4) / 0.375 = 31.3 rows on each of 4.
    assert figures.largest_batch(found, chip("v5e"), 4) == 31 * 4
    half = dataclasses.replace(found.programs[0], batch=32)
    memory = Memory(3 * GIB, 2 * GIB, 2 * GIB, 5 * GIB)
    assert half.compiled is not None
    half = dataclasses.replace(half, compiled=dataclasses.replace(half.compiled, memory=memory))
    line = figures.growth(dataclasses.replace(found, programs=(*found.programs, half)), 4)
    assert (line.fixed, line.per_row, line.by) == (6 * GIB, 2 * GIB / 8, "two sizes")
    quick = figures.growth(made(compiled=None), 4)
    assert quick == figures.Growth(4 * GIB, 6 * GIB / 16, "formula")


def test_a_plan_that_fits_says_so_and_what_it_would_gain() -> None:
    text = report.text(made())
    for words in (
        "a.py on v5e:2x2: 4 x TPU v5e",
        "10 GiB of 15.8 GiB (63%)",
        "largest batch that fits         124",
        "2 of f32, together 1 GiB",
        "at most 17%",
        "all 7,200 steps                 at least 7:19",
        "Compiled: step of 64 in 1:20 (2:00 of one core)",
        "matmul_precision=default: products of float32 up to 6 times as fast",
    ):
        assert words in text, words
    assert "training.accumulate" not in text
    # What memory bounds, faster products do not help.
    assert report.advised(made(flops=(("float32", "highest", 8e9),))) == []


def test_a_plan_that_does_not_fit_says_what_to_change() -> None:
    found = made()
    assert found.programs[0].compiled is not None
    compiled = dataclasses.replace(found.programs[0].compiled, memory=None, refused="Used 30G of 15.75G hbm")
    memory = Memory(3 * GIB, 2 * GIB, 2 * GIB, 25 * GIB)
    found = made(compiled=compiled, memory=memory)
    text = report.text(found)
    for words in (
        "does not fit, says the compiler: Used 30G of 15.75G hbm",
        "28 GiB of 15.8 GiB (178%)",
        "training.accumulate=4: the same batch in 4 parts",
        "sharding.parameters=fsdp: the state split over the devices, 1.5 GiB less on each",
        "model.kwargs.dtype=bfloat16: half of the activations",
        "training.batch_size=28: the largest that fits",
    ):
        assert words in text, words
    tiny = report.advised(made(memory=dataclasses.replace(memory, arguments=20 * GIB), compiled=None))
    assert not any("accumulate" in each or "batch_size" in each for each in tiny)


def test_an_estimate_near_the_limit_asks_for_the_compiler() -> None:
    close = Memory(3 * GIB, 2 * GIB, 2 * GIB, 11 * GIB)
    asked = "compile, without --quick: a formula does not know on which side of the limit this is"
    assert asked in report.advised(made(compiled=None, memory=close))
    assert asked not in report.advised(made(memory=close))
    assert asked not in report.advised(made(compiled=None, memory=dataclasses.replace(close, temporaries=GIB)))
    assert asked not in report.advised(made(compiled=None, memory=dataclasses.replace(close, temporaries=40 * GIB)))


def test_facts_come_back_from_json() -> None:
    found = made()
    assert facts.facts_from(json.loads(json.dumps(facts.to_json(found)))) == found
    assert json.loads(json.dumps(report.data(found)))["largest_batch"] == 124


@pytest.mark.parametrize(
    ("name", "num", "shape", "classes"),
    [
        ("cifar10", 50_000, (32, 32, 3), 10),
        ("imagenet64", 1_281_167, (64, 64, 3), 1000),
        ("digits", 1437, (8, 8, 1), 10),
    ],
)
def test_data_stand_in_by_shape_alone(
    name: str, num: int, shape: tuple[int, ...], classes: int, tmp_path: Path
) -> None:
    choice = config.override(config.load(f"configs/{name}.py"), [("data.data_dir", str(tmp_path))])
    found = stand_in.arrays(choice)
    assert (len(found), found.event_shape, found.num_classes) == (num, shape, classes)
    np.testing.assert_allclose(found.to_model(np.array([[0, round(2 * found.center)]], np.uint8)), [[-1.0, 1.0]])
    np.testing.assert_allclose(found.value_range, (0.0, 2 * found.center))
    half = config.override(choice, [("data.split", "train[:50%]")])
    assert len(stand_in.arrays(half)) == pytest.approx(num / 2, abs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology=v5e:44"], "topology = 'v5e:44': must be v5e:4x4 or the like"),
        (["--topology=cpu:2", "--quick", "--two-sizes"], "--two-sizes: has no effect with --quick"),
        (["--topology=v5e:2x3", "--quick"], "training.batch_size = 64: must be a positive multiple of"),
        (["--topology=cpu:2", "--config.trainin.num_steps=1"], "unknown config key; did you mean training.num_steps"),
        ([], "required: --topology"),
    ],
)
def test_the_command_line_refuses(words: list[str], message: str) -> None:
    ended = run("plan", "--config=configs/digits.py", *words)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err


PAGE = (Path(__file__).parents[1] / "docs" / "planning.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
PLANS = [block for language, block in FENCED if not language and block.startswith("configs/") and " on " in block]


def test_the_page_names_topologies_and_chips_that_there_are() -> None:
    named = re.findall(r"`([a-z0-9-]+:\d[\dx]*)`", PAGE)
    assert len(named) >= 7
    for each in named:
        topology.parse(each)
    for name in ("a100", "a100-80gb", "l4"):
        assert f"`{name}`" in PAGE
        chip(name)


@pytest.mark.parametrize("block", PLANS, ids=lambda block: block.partition(": ")[0])
def test_plans_on_the_page_have_the_form_and_the_bounds_of_today(block: str) -> None:
    """Of FLOPs in one format the least time is that of its peak."""
    assert len(PLANS) >= 6
    first = re.match(r"(\S+) on (\S+): (\d+) x (.+) \(", block)
    assert first is not None
    place = topology.parse(first[2])
    assert (place.count, place.chip.title) == (int(first[3]), first[4])
    config.load(first[1])
    flops = re.search(r"FLOPs, (\S+) a device", block)
    formats = re.findall(r"^    (float32, precision highest|bfloat16) +(\S+)% ", block, flags=re.MULTILINE)
    arithmetic = re.search(r"^  arithmetic +(\S+) (s|ms|us) ", block, flags=re.MULTILINE)
    assert flops is not None
    assert arithmetic is not None
    peaks = {words: place.chip.peak(words.partition(",")[0], "highest") or math.nan for words, _ in formats}
    least = sum(float(share) / 100 * float(flops[1]) / peaks[words] for words, share in formats)
    found = float(arithmetic[1]) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[arithmetic[2]]
    assert found == pytest.approx(least, rel=0.02)
