"""The demo: four configs that differ in system and conditioning alone, and the whole of it with a tiny budget."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax import build, cli, config, demo
from geonoise_jax.config import ConfigDict
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.load import load_arrays
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.demo import Budget, InterruptedDemoError, demo_config
from geonoise_jax.evaluation.floors import DRAWS
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.systems import variants
from geonoise_jax.training.train import Result

SMALL = Budget(train_steps=20, sample_steps=4, samples=96)
MODELS = tuple(tuple(model.split(",")) for model in demo.FOUR)
WHAT_MAKES_A_SYSTEM = {"schedule.name", "target.name", "time_law.name"}


@pytest.mark.parametrize("budget", [demo.QUICK, demo.FULL])
def test_the_four_models_have_the_same_net_budget_and_seed(budget: Budget) -> None:
    choices = {model: demo_config(",".join(model), budget) for model in MODELS}
    for (one, other), (a, b) in zip(
        itertools.combinations(MODELS, 2), itertools.combinations(choices.values(), 2), strict=True
    ):
        differing = set(config.differences(a, b))
        systems = WHAT_MAKES_A_SYSTEM if one[0] != other[0] else set()
        blindness = {"model.blind"} if one[1] != other[1] else set()
        assert differing == systems | blindness
    for (system, conditioning), choice in choices.items():
        assert choice.model.blind == (conditioning == "blind")
        assert choice.target.name == {"flow_matching": "Velocity", "ddpm": "Noise"}[system]


def test_the_four_models_share_one_sampler_and_all_models_have_their_own() -> None:
    for model in demo.FOUR:
        assert demo_config(model, demo.FULL).sampling.sampler.name == "heun"
        assert demo_config(model, demo.FULL).sampling.num_steps == demo.FULL.sample_steps
    for model in variants():
        own, expected = demo_config(model, demo.OWN_SAMPLERS), config.load(f"configs/digits.py:{model}")
        assert build.sampling_options(own) == {**build.sampling_options(expected), "batch_size": 512}


@pytest.mark.parametrize("budget", [demo.QUICK, demo.FULL])
def test_the_budget_is_spent_logged_and_saved_to_its_end(budget: Budget) -> None:
    choice = demo_config("ddpm,blind", budget)
    assert choice.training.num_steps == budget.train_steps
    assert budget.train_steps % choice.training.log_every == 0
    assert budget.train_steps % choice.checkpoint.every == 0
    assert choice.sampling.every == 0
    assert choice.is_locked


@pytest.mark.parametrize(("system", "conditioning"), MODELS)
def test_all_four_are_one_network_but_for_the_time_branch(system: str, conditioning: str) -> None:
    def fields(choice: ConfigDict) -> dict[str, Any]:
        net = build.network(choice, 10)
        return {name: getattr(net, name) for name in net.__dataclass_fields__ if name not in ("conditional", "parent")}

    reference = fields(demo_config(demo.FOUR[0], SMALL))
    assert fields(demo_config(f"{system},{conditioning}", SMALL)) == reference
    assert reference["num_classes"] == 0


def tiny(data_dir: Path) -> Any:
    """`demo_config` with a net that trains in seconds."""

    def make(model: str, budget: Budget) -> ConfigDict:
        small = {
            "data.data_dir": data_dir,
            "model.kwargs.base_channels": 4,
            "model.kwargs.channel_multipliers": (1,),
            "model.kwargs.middle_attention": False,
            "training.batch_size": 16,
        }
        return config.override(demo_config(model, budget), [(k, str(v)) for k, v in small.items()])

    return make


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Arrays, Arrays]:
    """Training and held-out digits."""
    train, test = (load_arrays("digits", split, data_dir=tmp_path) for split in ("train", "test"))
    return train, test


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(demo, "demo_config", tiny(tmp_path_factory.mktemp("data")))


@pytest.mark.slow
def test_the_demo_from_end_to_end(small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third run, started again, and then once more when all is done."""
    batch = Pipeline.batch
    calls = []

    def stopping(self: Pipeline, step: int) -> dict[str, np.ndarray]:
        calls.append(step)
        if len(calls) == 46:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step)

    monkeypatch.setattr(Pipeline, "batch", stopping)
    out = tmp_path / "demo"
    with pytest.raises(InterruptedDemoError, match=r"SIGTERM: saved step 6 of .*ddpm-conditional-20"):
        demo.run(out, SMALL)
    assert not (out / "report.html").exists()

    text = demo.run(out, SMALL)
    assert len(calls) == 4 * 20
    assert sorted(folder.name for folder in (out / "runs").iterdir()) == sorted(f"{a}-{b}-20" for a, b in MODELS)
    *table, picture, report, total = text.splitlines()
    assert (picture, report) == (str(out / "samples.png"), str(out / "report.html"))
    assert total.startswith("total time ")
    cells = [re.split(r" {2,}", line) for line in table[2:8]]
    distances = {name: distance for name, distance, *_ in cells}
    assert len(distances) == 6
    numbers = {name: [float(part) for part in distance.split(" +- ")] for name, distance in distances.items()}
    assert all(math.isfinite(value) and 0 < spread < value for value, spread in numbers.values())
    assert 0 < numbers["training digits (floor)"][0] < 0.2 < numbers["Gaussian noise"][0]
    with Image.open(out / "samples.png") as image:
        assert image.size == (round(3.2 * 5 * 150), round(3.6 * 150))
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "20 steps each" in html
    assert "96 samples and 360 held-out" in html
    assert all(distance in html for distance in distances.values())

    began = time.perf_counter()
    again = demo.run(out, SMALL)
    assert len(calls) == 4 * 20, "a finished run was trained again"
    # Same runs, same samples; only the time that sampling took may differ.
    assert [re.split(r" {2,}", line)[:4] for line in again.splitlines()[2:8]] == [row[:4] for row in cells]
    assert time.perf_counter() - began < 60


def test_a_run_that_was_stopped_ends_the_demo_with_the_signals_status(
    small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "train", lambda *_: Result(7, "SIGINT", 0.0))
    assert cli.main(["demo", "--out", str(tmp_path)]) == 130
    message = r"SIGINT: saved step 7 of .*flow_matching-conditional-1000; the same command goes on there"
    assert re.fullmatch(message, capsys.readouterr().err.splitlines()[-1])


def test_samples_that_are_not_finite_have_an_infinite_distance(
    small_demo: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = np.random.default_rng(0).uniform(-1, 1, (10, 8, 8, 1)).astype(np.float32)
    drawn = held_out.copy()
    choice = demo_config("ddpm,blind", SMALL)
    folder = tmp_path / "ddpm-blind-20"
    folder.mkdir()
    lines = [{"step": 10, "loss": 2.0, "seconds": 1.5}, {"step": 20, "loss": 1.0, "seconds": 3.0}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.setattr(build, "train", lambda *_: Result(20, None, 0.0))
    monkeypatch.setattr(demo, "_draw", lambda *_: drawn)
    measure = SlicedWasserstein(held_out)
    sound = demo._outcome("ddpm,blind", choice, folder, 10, measure)
    assert (sound.system, sound.blind, sound.distance.value) == ("ddpm", True, 0.0)
    assert sound.distance.spread > 0
    assert (sound.loss, sound.train_seconds) == ([(10, 2.0), (20, 1.0)], 3.0)
    drawn[0, 0, 0, 0] = np.inf
    assert demo._outcome("ddpm,blind", choice, folder, 10, measure).distance == (math.inf, 0.0)


def test_baselines_are_those_of_real_and_of_random_points() -> None:
    """Each is a mean over draws: the order of the data does not count but within the spread of that mean."""
    rng = np.random.default_rng(0)
    training, held_out = (rng.uniform(-1, 1, (num, 8, 8, 1)).astype(np.float32) for num in (1400, 360))
    baselines = demo._baselines(training, held_out, 96)
    floor, noise = baselines.floor, baselines.noise
    assert 0 < floor.spread < 0.2 * floor.value < 0.03 < 0.1 < noise.value
    assert 0 < noise.spread < 0.2 * noise.value
    assert 0 < baselines.held_out < 0.2 * floor.value
    other = demo._baselines(np.roll(training, 1), held_out, 96).floor
    assert other != floor
    assert abs(other.value - floor.value) < 4 * floor.spread * math.sqrt(2 / DRAWS)


def test_the_floor_of_the_digits_is_known_to_a_hundredth_of_itself_or_two(digits: tuple[Arrays, Arrays]) -> None:
    """Draws of 512 training digits: 0.057 with a scatter of 0.003, so that single draws reach 0.062."""
    training, held_out = (np.asarray(each.to_model(each.events)) for each in digits)
    floor = demo._baselines(training, held_out, 512).floor
    assert floor.value == pytest.approx(0.057, abs=0.0015)
    assert 0.002 < floor.spread < 0.005
