"""Training and restoring objects that no config names: own module, own process, own arrays."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geonoise_jax import build
from geonoise_jax.config import base_config
from geonoise_jax.data import Arrays
from geonoise_jax.evaluation import draw
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.nets import UNet
from geonoise_jax.process import schedules, times, weights
from geonoise_jax.process.keys import root_key
from geonoise_jax.training import ema
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.losses import Objective
from geonoise_jax.training.run import Budget, Run, Sampling, recorded
from geonoise_jax.training.sharding import Layout
from geonoise_jax.training.train import train
from geonoise_jax.training.workdir import OfConfig
from tests.own_run import PROCESS, Net, own_run
from tests.training_runs import metrics_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workdir."""
    folder = tmp_path_factory.mktemp("own")
    assert train(own_run(), folder).step == 10
    return folder


def test_a_run_of_own_objects_is_trained_logged_and_drawn(folder: Path) -> None:
    assert [line["step"] for line in metrics_of(folder)] == [5, 10]
    assert metrics_of(folder)[-1]["learning_rate"] == pytest.approx(1e-4, rel=1e-5)
    assert (folder / "samples" / "00000010.png").is_file()
    assert not (folder / "config.json").exists()


def test_its_defaults_are_those_of_a_config(tmp_path: Path) -> None:
    """Of everything that has one; the network and the data are the reader's."""
    choice, run = base_config(), Run(network=Net(), data=own_run().data)
    assert run.process == build.process(choice)
    assert (run.budget, run.layout, run.average) == (build.budget(choice), build.layout(choice), ema.Power())
    goal = run.goal()
    assert (goal.time_law, goal.loss_weight) == (build.time_law(choice), build.loss_weight(choice))
    assert {name: value for name, value in build.field_options(choice).items() if value is not None} == {
        name: getattr(run.field(None), name) for name in ("noise_feature", "output", "matmul_precision")
    }
    _, rate = run.chain()
    assert rate is not None
    for step in (0, 50, 1000):
        assert float(rate(step)) == float(build.learning_rate(choice)(step))
    params = {"w": jnp.ones(3)}
    chains = (run.chain()[0], build.optimizer(choice))
    one, other = (chain.update(params, chain.init(params), params)[0] for chain in chains)
    np.testing.assert_array_equal(one["w"], other["w"])


def test_it_goes_on_where_it_stopped_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    budget = dataclasses.replace(own_run().budget, num_steps=5)
    train(own_run(budget=budget), tmp_path)
    result = train(own_run(), tmp_path)
    assert (result.first, result.step) == (5, 10)
    assert metrics_of(tmp_path) == metrics_of(folder)
    ours, theirs = (restore(each, network=Net(), process=PROCESS).field.params for each in (tmp_path, folder))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_finished_run_compiles_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geonoise_jax.training import train as training

    monkeypatch.setattr(training, "prepare", lambda *_: pytest.fail("was prepared"))
    result = train(own_run(), folder)
    assert (result.first, result.step, result.stopped_by) == (10, 10, None)
    assert result.seconds > 0


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"network": Net(width=9)}, "network: .*width = 8.*there, .*width = 9.* now"),
    (
        {"process": own_run().process.__class__(schedules.Linear(), PROCESS.parameterization)},
        "process: .*Trigonometric",
    ),
    ({"seed": 1}, "seed: 0 there, 1 now"),
    ({"average": ema.Constant(0.9)}, "average: 'Power"),
    ({"optimizer": optax.sgd(0.1)}, "optimizer: 'the default' there"),
    ({"learning_rate": optax.constant_schedule(0.1)}, r"learning_rate: \[.* there, \[0.1"),
    ({"field_options": {"noise_feature": "log_snr"}}, "field: {} there"),
    ({"budget": Budget(num_steps=10, batch_size=32)}, "batch_size: 16 there, 32 now"),
]


@pytest.mark.parametrize(("change", "message"), OTHERS, ids=[next(iter(change)) for change, _ in OTHERS])
def test_another_run_is_refused(change: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"belongs to another run \(.*{message}"):
        train(own_run(**change), folder)


def test_runs_of_configs_and_of_own_objects_keep_apart(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"belongs to a run of own objects \(run.json\)"):
        build.train(base_config(), folder, data=own_run().data)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="belongs to the run of a config"):
        train(own_run(), tmp_path)
    # A run of a config with one part exchanged is no longer the run of that config.
    of_config = recorded(own_run(), OfConfig(base_config()))
    assert of_config.record == OfConfig(base_config())
    assert dataclasses.replace(of_config, seed=1).record is None
    with pytest.raises(ValueError, match="run is a ConfigDict: must be a Run; build.train takes a config"):
        train(base_config(), tmp_path)


def test_other_data_are_refused(folder: Path) -> None:
    longer = Budget(num_steps=20, batch_size=16)
    data = Arrays(events=own_run().data.events + 1.0)
    with pytest.raises(ValueError, match=r"was trained on other data \(checksum"):
        train(own_run(data=data, budget=longer), folder)


class Wider(nn.Module):
    """Returns another shape."""

    @nn.compact
    def __call__(self, u: Any, t: Any, labels: Any = None, train: bool = False) -> Any:  # noqa: ARG002
        return nn.Dense(5)(u)


class Short(nn.Module):
    """Takes no option ``train``."""

    @nn.compact
    def __call__(self, u: Any, t: Any, labels: Any) -> Any:  # noqa: ARG002
        return nn.Dense(2)(u)


LAW = Objective(times.Uniform(0.0, 1.0), weights.Unit(PROCESS.schedule))
NULL = Objective(times.Uniform(0.1, 0.9), weights.Unit(PROCESS.schedule), null_label=3)
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: own_run(data=np.zeros((4, 2))), "Run.data is a ndarray: must be geonoise_jax.data.Arrays(events=...)"),
    (lambda: own_run(objective=LAW), "time_law: [lo, hi] = [0, 1] must lie within the schedule's"),
    (lambda: own_run(sampling=Sampling(guidance=2.0)), "guidance.scale = 2.0: must be 1 for a model without classes"),
    (
        lambda: own_run(budget=Budget(batch_size=65)).pipeline(),
        "training.batch_size = 65: must be at most 64, the number of items of arrays/train",
    ),
    (
        lambda: own_run(network=UNet(num_classes=2)),
        "network.num_classes = 2: must be 0, the number of classes of ",
    ),
    (lambda: own_run(objective=NULL), "objective.null_label = 3: must be None, as the network has 0 classes"),
    (lambda: Budget(num_steps=0), "training.num_steps = 0: must be an integer >= 1"),
    (lambda: Budget(checkpoint_every=True), "checkpoint.every = True: must be an integer"),
    (lambda: Sampling(every=-1), "sampling.every = -1: must be an integer >= 0"),
    (lambda: Layout(parameters="fdsp"), "sharding.parameters = 'fdsp': unknown; did you mean fsdp?"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_parts(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Wider(), "network = Wider: must return an array of the shape of its input, (2, 2), not (2, 5)"),
        (Short(), "network = Short: must be called as net(u, t, labels, train=False), but: "),
        (Net, "network = type: must be a Flax Linen module instance"),
        (len, "network = builtin_function_or_method: must be a Flax Linen module instance"),
    ],
)
def test_bad_networks(network: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        train(own_run(network=network), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_restored_with_the_same_objects_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        trained = restore(folder, network=Net(), process=PROCESS)
    assert caplog.text == ""
    assert (trained.step, trained.config, trained.facts.event_shape) == (10, None, (2,))
    assert trained.sampling == own_run().sampling
    for given, message in (
        ({"process": PROCESS}, "network: must be given: .* is of a run of own objects, with Net"),
        ({"network": Net()}, "process: must be given"),
        ({"network": Net(width=9), "process": PROCESS}, "network = Net.*width = 9.* is of Net.*width = 8"),
        ({"network": Net(), "process": PROCESS, "noise_feature": "log_snr"}, "field options = .*log_snr.* is of {}"),
    ):
        with pytest.raises(ValueError, match=message):
            restore(folder, **given)


def test_samples_of_a_trained_run(folder: Path, tmp_path: Path) -> None:
    trained = restore(folder, network=Net(), process=PROCESS)
    samples = trained.sample(6)
    assert samples.shape == (6, 2)
    np.testing.assert_array_equal(samples, trained.sample(6, 0))
    np.testing.assert_array_equal(trained.sample(6, 3), trained.sample(6, root_key(3), num_steps=2, sampler="heun"))
    assert np.abs(trained.sample(6, 1) - samples).max() > 1e-3
    assert np.abs(trained.sample(6, num_steps=3) - samples).max() > 1e-6
    u, t = jnp.ones((3, 2)), jnp.full(3, 0.3)
    expected = trained.field.process.recover(u, trained.field(u, t), t)[0]
    np.testing.assert_allclose(trained.denoise(np.asarray(u), 0.3), expected, rtol=1e-5)
    assert (
        repr(trained)
        == "Trained(Net at step 10 (ema), conditional, Trigonometric schedule, Velocity target, events [2])"
    )
    with pytest.raises(ValueError, match="label = 1: must be left out: the model has no classes"):
        trained.sample(4, labels=1)
    with pytest.raises(ValueError, match="network: must be given"):
        draw.draw(folder, tmp_path / "a", draw.Options())


def test_raw_parameters_and_earlier_steps(folder: Path, tmp_path: Path) -> None:
    """The raw parameters are those that training goes on from; a constant average of rate 0 equals them."""
    run = own_run(average=ema.Constant(0.0), sampling=Sampling(every=0))
    train(run, tmp_path)
    raw, average = (restore(tmp_path, network=Net(), process=PROCESS, params=params) for params in ("raw", "ema"))
    jax.tree.map(np.testing.assert_array_equal, raw.field.params, average.field.params)
    assert (raw.params, raw.step) == ("raw", 10)
    early = restore(tmp_path, network=Net(), process=PROCESS, params="raw", step=5)
    kernels = (each.field.params["Dense_0"]["kernel"] for each in (early, raw))
    assert early.step == 5
    assert np.abs(np.subtract(*kernels)).max() > 1e-6
    theirs = restore(folder, network=Net(), process=PROCESS, params="raw").field.params
    jax.tree.map(np.testing.assert_array_equal, theirs, raw.field.params)
    with pytest.raises(ValueError, match=r"no checkpoint of step 7, but of \[5, 10\]"):
        restore(tmp_path, network=Net(), process=PROCESS, params="raw", step=7)
    with pytest.raises(ValueError, match="params = 'rav': must be one of ema, raw"):
        restore(tmp_path, params="rav")


def test_a_sound_checkpoint_is_told_without_its_run(folder: Path) -> None:
    checkpoints = Checkpoints(folder, read_only=True)
    assert [checkpoints.is_sound(step) for step in (5, 10, 15)] == [True, True, False]
    checkpoints.close()


def test_a_damaged_description_is_one_line(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    (run / "run.json").write_text("{")
    for act in (lambda: train(own_run(), run), lambda: restore(run, network=Net(), process=PROCESS)):
        with pytest.raises(ValueError, match=r"run.json: is damaged: not valid JSON") as error:
            act()
        assert "\n" not in str(error.value)
    (run / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object"):
        train(own_run(), run)


def test_a_description_is_the_same_in_every_process(folder: Path) -> None:
    """No addresses: what has none of its own would differ when the run goes on."""
    described = (folder / "run.json").read_text()
    assert " at 0x" not in described
    assert json.loads(described)["objective"].startswith("Objective(time_law=Uniform(lo=0.0")
    assert repr(own_run()) == (
        "Run(Net on 64 items [2] of arrays/train, Trigonometric schedule, Velocity target, 10 steps)"
    )
