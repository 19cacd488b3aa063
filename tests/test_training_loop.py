"""The loop's guard, metrics, samples and workdir; the loss; averages and learning rates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from geonoise_jax import build, config
from geonoise_jax.build import learning_rate, optimizer, train
from geonoise_jax.config import ConfigDict
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.fields import NetworkField
from geonoise_jax.process import schedules, targets, times, weights
from geonoise_jax.process.process import Process
from geonoise_jax.training import ema, metrics
from geonoise_jax.training import train as training
from geonoise_jax.training.losses import Objective
from geonoise_jax.training.train import DivergedError
from tests.training_runs import circles, metrics_of, prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_loss_falls_and_is_logged(data_dir: Path, tmp_path: Path) -> None:
    steps: dict[str, Any] = {"training__num_steps": 200, "training__log_every": 25, "optimizer__learning_rate": 3e-3}
    choice = circles(data_dir, **steps, sampling__every=100, sampling__num=20)
    train(choice, tmp_path)
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(25, 201, 25))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert set(lines[0]) == {"step", "loss", "grad_norm", "update_norm", "learning_rate"}
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["00000100.png", "00000200.png"]
    with Image.open(tmp_path / "samples" / "00000200.png") as picture:
        assert picture.size[0] > 300
    assert "Total: " in (tmp_path / "parameters.txt").read_text()


@pytest.mark.parametrize(("step", "kept"), [(5, "there is no checkpoint yet"), (45, r"steps \[20, 40\] are kept")])
def test_divergence_names_the_step_and_keeps_the_checkpoints(
    step: int, kept: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Pipeline.batch

    def poisoned(self: Pipeline, at: int) -> dict[str, np.ndarray]:
        batch = original(self, at)
        return {**batch, "events": batch["events"] * np.nan} if at == step - 1 else batch

    monkeypatch.setattr(Pipeline, "batch", poisoned)
    with pytest.raises(DivergedError, match=rf"step {step}: loss = nan; .*{kept}"):
        train(circles(data_dir, data__placement="host"), tmp_path)
    monkeypatch.undo()
    # What is kept is sound: without the poison the run goes through.
    assert train(circles(data_dir, data__placement="host"), tmp_path).step == 60


def test_divergence_at_a_checkpoint_step_is_not_saved(data_dir: Path, tmp_path: Path) -> None:
    choice = circles(data_dir, checkpoint__every=1, optimizer__learning_rate=1e30, optimizer__warmup_steps=0)
    with pytest.raises(DivergedError) as error:
        train(choice, tmp_path)
    failed = int(re.match(r"step (\d+)", str(error.value)).group(1))  # type: ignore[union-attr]
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert failed not in saved


def test_workdir_of_another_config_is_refused_and_untouched(data_dir: Path, tmp_path: Path) -> None:
    train(circles(data_dir, training__num_steps=2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = circles(data_dir, training__num_steps=4, optimizer__learning_rate=0.5, schedule__kwargs__t_min=0.01)
    with pytest.raises(ValueError, match="belongs to another config") as error:
        train(other, tmp_path)
    assert "optimizer.learning_rate: 0.001 there, 0.5 now" in str(error.value)
    assert "schedule.kwargs.t_min: '<not set>' there, 0.01 now" in str(error.value)
    assert "num_steps" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


INTERVALS = [
    ("training__num_steps", 0),
    ("training__log_every", 0),
    ("checkpoint__every", 0),
    ("sampling__every", -1),
    ("sampling__num", 0),
    ("checkpoint__keep", 0),
]


@pytest.mark.parametrize(("key", "value"), INTERVALS)
def test_bad_intervals(key: str, value: int, data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{key.replace('__', '.')} = {value}: must be an integer >="):
        train(circles(data_dir, "flow_matching,blind", **{key: value}), tmp_path)


UNSAMPLED = [
    ({"sampling__sampler__name": "rk4"}, "sampler = 'rk4': must be one of euler, heun"),
    ({"sampling__sampler__kwargs__eta": 0.5}, "eta = 0.5: no option of the sampler 'heun'"),
    ({"sampling__sampler__name": "eqm_descent"}, "field.blind = False: must be True"),
    ({"sampling__guidance__scale": 2.0, "model__class_conditional": False}, "guidance.scale = 2.0: must be 1"),
    ({"sampling__end_time": 5.0}, "end_time = 5.0: must be a number in"),
    ({"sampling__grid": "karras"}, "grid = 'karras'"),
    ({"sampling__num_steps": 0}, "num_steps = 0"),
    ({"schedule__kwargs__t_max": 0.5, "sampling__every": 10}, "Linear.t_max = 0.5: a = 0.5 is not negligible"),
]


@pytest.mark.parametrize(("overrides", "message"), UNSAMPLED, ids=[message for _, message in UNSAMPLED])
def test_what_could_not_be_sampled_is_refused_before_training(
    overrides: dict[str, Any], message: str, data_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(circles(data_dir, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("t_max", [0.5, 1.0])
def test_a_run_without_samples_may_end_where_it_will(t_max: float, data_dir: Path, tmp_path: Path) -> None:
    """Its samples will start from data, or from noise alone where a = 0."""
    assert prepare(circles(data_dir, schedule__kwargs__t_max=t_max, sampling__every=0), tmp_path)


def test_speeds_are_of_the_same_steps_and_left_out_where_they_are_not_known(data_dir: Path, tmp_path: Path) -> None:
    train(circles(data_dir, training__num_steps=4, training__log_every=1), tmp_path)
    first, *later = metrics.read(tmp_path / "metrics.jsonl")
    assert {"steps_per_second", "images_per_second"}.isdisjoint(first)
    assert len(later) == 3
    for line in later:
        assert line["images_per_second"] == pytest.approx(32 * line["steps_per_second"])
        assert line["steps_per_second"] > 0.0


def test_metrics_log_rewinds_to_a_step(tmp_path: Path) -> None:
    log = metrics.MetricsLog(tmp_path)
    log.rewind(5)
    for step in (10, 20, 30):
        log.write(step, {"loss": 1.0 / step, "seconds": 2.0 * step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    log.rewind(20)
    assert metrics.read(log.path) == [{"step": s, "loss": 1.0 / s, "seconds": 2.0 * s} for s in (10, 20)]
    assert log.seconds == 40.0
    log.rewind(0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    log.close()


class Affine:
    """Stands in for a Flax module: predicts ``scale * u``."""

    num_classes = 0

    def apply(self, variables: dict[str, Any], u: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return variables["params"] * u


@pytest.mark.parametrize("target", [targets.Velocity(), targets.Noise()])
def test_loss_is_the_weighted_mean_square(target: targets.Target) -> None:
    """Against the sum written out for one sample at a time."""
    schedule = schedules.VPLinear()
    process = Process(schedule, target)
    objective = Objective(times.Uniform(0.001, 1.0), weights.NoisePower(schedule, 1.5))
    field = NetworkField(jnp.asarray(0.3), Affine(), process, (4, 2), blind=True)
    x = jax.random.normal(jax.random.key(0), (6, 4, 2))
    draws = objective.draw(jax.random.key(1), x, None)
    total = 0.0
    for i in range(6):
        k = process.coeffs(draws.t[i])
        u, r = k.a * x[i] + k.b * draws.eps[i], k.c * x[i] + k.d * draws.eps[i]
        total += float(k.b**1.5 * jnp.mean((0.3 * u - r) ** 2)) / 6
    np.testing.assert_allclose(objective.loss(field, draws), total, rtol=1e-5)


def test_minimiser_of_the_loss_is_the_exact_field() -> None:
    """For Gaussian data and one noise level the best scale is known: E[u r] / E[u u]."""
    process = Process(schedules.Linear(), targets.Velocity())
    level = times.Uniform(0.5, 0.5 + 1e-6)
    objective = Objective(level, weights.Unit(process.schedule))
    x = 2.0 * jax.random.normal(jax.random.key(0), (200_000, 1))
    draws = objective.draw(jax.random.key(1), x, None)

    def loss(scale: jax.Array) -> jax.Array:
        return objective.loss(NetworkField(scale, Affine(), process, (1,), blind=True), draws)

    slope, curvature = jax.grad(loss)(0.0), jax.hessian(loss)(0.0)
    np.testing.assert_allclose(-slope / curvature, (-0.5 * 4.0 + 0.5) / (0.25 * 4.0 + 0.25), atol=0.01)


def test_label_dropout() -> None:
    objective = Objective(times.Uniform(0.0, 1.0), weights.Unit(schedules.Linear()), label_dropout=0.25, null_label=7)
    draws = objective.draw(jax.random.key(0), jnp.zeros((4000, 1)), jnp.full(4000, 3))
    labels = np.asarray(draws.labels)
    assert set(np.unique(labels)) == {3, 7}
    assert np.mean(labels == 7) == pytest.approx(0.25, abs=0.03)
    with pytest.raises(ValueError, match=r"model.label_dropout = 1.5: must be in \[0, 1\]"):
        Objective(times.Uniform(0.0, 1.0), weights.Unit(schedules.Linear()), label_dropout=1.5)


def averaged(rule: ema.EMA, values: np.ndarray) -> float:
    average = jnp.zeros(())
    for step, value in enumerate(values, start=1):
        average = ema.update(rule, average, jnp.asarray(value, jnp.float32), jnp.asarray(step))
    return float(average)


def test_constant_average() -> None:
    values = np.linspace(1.0, 2.0, 50)
    weight = 0.1 * 0.9 ** np.arange(49, -1, -1)
    np.testing.assert_allclose(averaged(ema.Constant(0.9), values), weight @ values, rtol=1e-5)
    warm = ema.Constant(0.9, warmup=True)
    np.testing.assert_allclose([warm.decay(jnp.asarray(s)) for s in (1, 1000)], [2 / 11, 0.9], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rule", "want"),
    [
        (ema.Constant(0.999), 0.999),
        (ema.Constant(0.999, warmup=True), 8.0 / 17.0),
        (ema.Power(0.1), (1.0 - 1.0 / 7.0) ** (ema.Power(0.1).gamma + 1.0)),
        (ema.Ramped(1000.0, 0.05), 0.5 ** (1.0 / 0.35)),
        (ema.Ramped(1000.0, 0.0), 0.5**0.001),
    ],
    ids=str,
)
def test_decays_are_of_double_precision_under_x64(rule: ema.EMA, want: float, dtype: str, x64: None) -> None:
    """And the average keeps the dtype of the parameters, rounded once."""
    step = jnp.asarray(7)
    np.testing.assert_allclose(rule.decay(step), want, rtol=1e-15)
    old, new = (jnp.asarray(value, dtype) for value in (0.3, 0.7))
    average = ema.update(rule, old, new, step)
    assert average.dtype == dtype
    exact = want * float(old) + (1.0 - want) * float(new)
    np.testing.assert_allclose(float(average), exact, rtol=6e-8 if dtype == "float32" else 1e-15)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_power_average_has_the_profile_it_promises(sigma_rel: float) -> None:
    """The weight of step s is about s^gamma, of relative standard deviation sigma_rel; the start is forgotten."""
    rule = ema.Power(sigma_rel)
    assert float(rule.decay(jnp.asarray(1))) == 0.0
    num = 2000
    kept = np.array([float(rule.decay(jnp.asarray(step))) for step in range(1, num + 1)])
    weight = (1 - kept) * np.append(np.cumprod(kept[:0:-1])[::-1], 1.0)
    np.testing.assert_allclose(weight.sum(), 1.0, rtol=1e-4)
    position = np.arange(1, num + 1) / num
    mean = weight @ position
    assert np.sqrt(weight @ (position - mean) ** 2) == pytest.approx(sigma_rel, rel=0.02)


def test_bad_averages() -> None:
    with pytest.raises(ValueError, match=r"Constant.rate = 1.5: must be a number in \[0, 1\]"):
        ema.Constant(1.5)
    with pytest.raises(ValueError, match="Constant.warmup = 'no': must be True or False"):
        ema.Constant(0.9, warmup="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Power.sigma_rel = 0.5: must be a number in \(0, 0.28\]"):
        ema.Power(0.5)


def digits(**overrides: Any) -> ConfigDict:
    choice = config.load("configs/digits.py")
    return config.override(choice, [(key.replace("__", "."), str(value)) for key, value in overrides.items()])


def test_learning_rate_warms_up_and_decays() -> None:
    rate = learning_rate(digits(optimizer__learning_rate=0.1, optimizer__warmup_steps=10, training__num_steps=110))
    np.testing.assert_allclose([rate(s) for s in (0, 4, 9, 10)], [0.01, 0.05, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose([rate(60), rate(110)], [0.05, 0.0], atol=1e-7)
    flat = learning_rate(digits(optimizer__decay="constant", optimizer__warmup_steps=0, optimizer__learning_rate=0.3))
    np.testing.assert_allclose([flat(0), flat(10**6)], 0.3, rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    params = {"a": jnp.zeros(3), "b": jnp.zeros(())}
    grads = {"a": jnp.array([3.0, 0.0, 0.0]), "b": jnp.asarray(4.0)}
    common = {"optimizer__learning_rate": 1.0, "optimizer__warmup_steps": 0, "optimizer__decay": "constant"}
    for clip, norm in ((1.0, 1.0), (0.0, 5.0), (10.0, 5.0)):
        choice = digits(**common, optimizer__clip_norm=clip, optimizer__name="sgd")
        chain = optimizer(choice)
        updates, _ = chain.update(grads, chain.init(params), params)
        np.testing.assert_allclose(optax.tree.norm(updates), norm, rtol=1e-6)


BAD_OPTIMIZERS = [
    ({"optimizer__name": "adamm"}, "optimizer.name = 'adamm': unknown; did you mean adam"),
    ({"optimizer__decay": "cosin"}, "optimizer.decay = 'cosin': unknown; did you mean cosine"),
    ({"optimizer__learning_rate": 0.0}, "optimizer.learning_rate = 0.0: must be a number in (0, inf)"),
    ({"optimizer__warmup_steps": -1}, "optimizer.warmup_steps = -1"),
    ({"optimizer__clip_norm": -1.0}, "optimizer.clip_norm = -1.0"),
    ({"optimizer__kwargs__beta1": 0.9}, "optimizer.kwargs.beta1: not an argument of adam"),
    ({"optimizer__kwargs__learning_rate": 0.9}, "optimizer.kwargs.learning_rate: not an argument of adam"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD_OPTIMIZERS, ids=[message for _, message in BAD_OPTIMIZERS])
def test_bad_optimizers(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer(digits(**overrides))


def test_workdir_files_restore_the_config(data_dir: Path, tmp_path: Path) -> None:
    choice = circles(data_dir, training__num_steps=1)
    train(choice, tmp_path)
    stored = training.workdir.read_config(tmp_path)
    assert not config.differences(stored, choice)
    facts = training.workdir.facts_of(build.arrays(choice))
    assert training.workdir.read_facts(tmp_path) == facts
    assert facts == training.workdir.Facts((3,), 2, 0.0, 1.0, 200, facts.checksum)
    # A version that stored less.
    (tmp_path / "data.json").write_text(json.dumps({"event_shape": [3], "num_classes": 2}))
    assert training.workdir.read_facts(tmp_path) == training.workdir.Facts((3,), 2)
    training.workdir.claim(tmp_path, training.workdir.OfConfig(choice), facts)
    assert training.workdir.read_facts(tmp_path) == facts
    with pytest.raises(ValueError, match="no such folder"):
        training.workdir.read_config(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no config\.json in it"):
        training.workdir.read_config(tmp_path / "checkpoints")
    assert build.process(stored) == build.process(choice)
