"""From specs to objects: every name builds, and what a spec may not say is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.build import from_spec
from geonoise_jax.config import ConfigDict
from geonoise_jax.data.circle_points import CirclesSpec
from geonoise_jax.exact import Circles, FiniteSet
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target
from geonoise_jax.process.times import TIME_LAWS, Discrete
from geonoise_jax.process.weights import LOSS_WEIGHTS
from geonoise_jax.training import ema, optimizer

SIGMA_DATA = 0.75  # of the digits


def scaled(cls: type, **given: Any) -> Any:
    """An object with its defaults, but with the scale of the data if it has one."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**given, **({"sigma_data": SIGMA_DATA} if "sigma_data" in names else {}))


def changed(base: str = "configs/digits.py", **overrides: Any) -> ConfigDict:
    """A config with overrides, whose dots are written as two underscores."""
    return config.override(config.load(base), [(k.replace("__", "."), str(v)) for k, v in overrides.items()])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_by_name_with_its_range(schedule: type[Schedule]) -> None:
    default = schedule()
    narrow = 0.5 * (default.t_min + default.t_max)
    choice = changed(schedule__name=schedule.__name__, schedule__kwargs__t_max=narrow)
    assert build.schedule(choice) == scaled(schedule, t_max=narrow)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_by_name(target: type[Target]) -> None:
    assert build.process(changed(target__name=target.__name__)).parameterization == scaled(target)


@pytest.mark.parametrize("law", TIME_LAWS)
def test_every_time_law_is_on_the_schedules_range_unless_narrowed(law: type) -> None:
    schedule, lo, hi = ("VPDiscrete", 10, 20) if law is Discrete else ("Trigonometric", 0.25, 0.5)
    choice = changed(schedule__name=schedule, time_law__name=law.__name__)
    whole, within = build.time_law(choice), build.schedule(choice)
    assert type(whole) is law
    assert (whole.lo, whole.hi) == (within.t_min, within.t_max)
    config.override(choice, [("time_law.kwargs.lo", str(lo)), ("time_law.kwargs.hi", str(hi))])
    narrow = build.time_law(choice)
    assert (narrow.lo, narrow.hi) == (lo, hi)


@pytest.mark.parametrize("weight", LOSS_WEIGHTS)
def test_every_loss_weight_has_the_schedule(weight: type) -> None:
    choice = changed(loss_weight__name=weight.__name__, schedule__name="VE")
    assert build.loss_weight(choice) == scaled(weight, schedule=build.schedule(choice))


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_every_optimizer_by_name(name: str) -> None:
    build.optimizer(changed(optimizer__name=name))


@pytest.mark.parametrize("name", ema.EMAS)
def test_every_average_by_name(name: str) -> None:
    assert from_spec("ema", changed(ema__name=name).ema, ema.EMAS) == ema.EMAS[name]()


def test_lists_of_a_stored_config_become_tuples() -> None:
    choice = config.loads(config.dumps(changed(model__kwargs__channel_multipliers="[1, 2, 2]")))
    net = build.network(choice, None)
    assert net.channel_multipliers == (1, 2, 2)
    hash(net)
    nested = {"name": "f", "kwargs": {"x": [[1, [2]], "a"]}}
    assert from_spec("k", nested, {"f": lambda x: x}) == ((1, (2,)), "a")


def test_arguments_win_over_defaults() -> None:
    table = {"f": lambda a, b: (a, b)}
    assert from_spec("k", {"name": "f", "kwargs": {"a": 1}}, table, defaults={"a": 5, "b": 6}) == (1, 6)
    assert from_spec("k", {"name": "f", "kwargs": {"a": 1}}, table, b=2) == (1, 2)
    assert from_spec("k", {"name": "f", "kwargs": {"a": 1, "b": 2}}, table, defaults={"c": 3}) == (1, 2)


def test_all_objects_of_a_config_know_one_scale_of_the_data() -> None:
    names = {"schedule": "EDMScaled", "target": "EDMNetwork", "loss_weight": "Preconditioned"}
    choice = changed(
        **{f"{key}__name": name for key, name in names.items()},
        model__blind=False,
        model__preconditioner__name="edm",
        model__reads_as__name="UEDM",
        data__sigma_data=0.3,
    )
    field = build.network_field(choice, None, None, (8,))
    process = field.process
    owners: list[Any] = [process.schedule, process.parameterization, build.loss_weight(choice)]
    for owner in [*owners, field.preconditioner, field.reads_as]:
        assert owner.sigma_data == 0.3
    other: Any = build.process(config.override(choice, [("target.kwargs.sigma_data", "0.6")])).parameterization
    assert other.sigma_data == 0.6


def test_energies_convolve_by_patches_where_xla_would_be_slow() -> None:
    """The tests run on CPU."""
    assert build.network(changed(), None).convolution == "xla"
    energy = changed(model__output="dot")
    assert build.network(energy, None).convolution == "patches"
    assert build.network(config.override(energy, [("model.kwargs.convolution", "xla")]), None).convolution == "xla"
    assert isinstance(build.network(changed("configs/circles.py", model__output="dot"), None), ResidualMLP)


UNKNOWN_NAMES = [
    ("schedule", "Liner", build.schedule, "schedule.name = 'Liner': unknown; did you mean Linear"),
    ("schedule", "linear", build.schedule, "schedule.name = 'linear': unknown; did you mean Linear"),
    ("target", "noise", build.process, "target.name = 'noise': unknown; did you mean Noise"),
    ("time_law", "LogNorm", build.time_law, "time_law.name = 'LogNorm': unknown; did you mean LogNormal"),
    ("loss_weight", "units", build.loss_weight, "loss_weight.name = 'units': unknown; did you mean Unit"),
    ("optimizer", "adamm", build.optimizer, "optimizer.name = 'adamm': unknown; did you mean adam"),
    ("target", "zzz", build.process, "target.name = 'zzz': unknown; must be one of EDMNetwork, Equilibrium, Noise"),
]


@pytest.mark.parametrize(("key", "name", "make", "message"), UNKNOWN_NAMES)
def test_unknown_name_suggests_the_nearest(key: str, name: str, make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(changed(**{f"{key}__name": name}))


def _network(choice: ConfigDict) -> Any:
    return build.network(choice, 10)


REFUSED: list[tuple[dict[str, Any], Any, str]] = [
    ({"schedule__kwargs__tmax": 0.5}, build.schedule, "schedule.kwargs.tmax: not an argument of Linear; did you mean"),
    ({"target__kwargs__decay": "linear"}, build.process, "target.kwargs.decay: not an argument of Velocity"),
    ({"model__kwargs__base_chanels": 8}, _network, "model.kwargs.base_chanels: .* did you mean base_channels"),
    # What other keys decide.
    ({"model__kwargs__conditional": True}, _network, "model.kwargs.conditional: not an argument of UNet"),
    ({"model__kwargs__num_classes": 3}, _network, "model.kwargs.num_classes: not an argument of UNet"),
    ({"model__kwargs__name": "net"}, _network, "model.kwargs.name: not an argument of UNet"),
    ({"model__kwargs__parent": None}, _network, "model.kwargs.parent: not an argument of UNet"),
    ({"loss_weight__kwargs__schedule": 1}, build.loss_weight, "loss_weight.kwargs.schedule: not an argument of Unit"),
    ({"optimizer__kwargs__learning_rate": 1.0}, build.optimizer, "optimizer.kwargs.learning_rate: not an argument"),
    # Text and truth values where the default is a number, and the reverse.
    (
        {"optimizer__kwargs__b1": "abc"},
        build.optimizer,
        "optimizer.kwargs.b1 = 'abc': must be a number, such as 0.9",
    ),
    ({"optimizer__kwargs__b1": True}, build.optimizer, "optimizer.kwargs.b1 = True: must be a number"),
    ({"optimizer__kwargs__nesterov": "no"}, build.optimizer, "optimizer.kwargs.nesterov = 'no': must be True or"),
    ({"model__kwargs__middle_attention": 1}, _network, "model.kwargs.middle_attention = 1: must be True or False"),
    ({"model__kwargs__base_channels": None}, _network, "model.kwargs.base_channels = None: must be a number"),
    # What the objects themselves refuse.
    ({"schedule__kwargs__t_max": 2}, build.schedule, "Linear.t_max = 2: must be a number"),
    ({"model__kwargs__base_channels": 2.5}, _network, "base_channels = 2.5: must be an integer >= 1"),
    # Time laws outside the schedule, on either side.
    ({"time_law__kwargs__hi": 1.0}, build.time_law, r"time_law: \[lo, hi\] = \[0.001, 1\] must lie within .* 0.999\]"),
    ({"time_law__kwargs__lo": 0.0}, build.time_law, r"time_law: \[lo, hi\] = \[0, 0.999\] must lie within"),
    ({"time_law__name": "Discrete"}, build.time_law, "Discrete.lo = 0.001: must be an integer"),
    # Processes that cannot be inverted.
    ({"schedule__kwargs__t_max": 1.0, "target__name": "Noise"}, build.process, "is singular: .* choose t_max < 1"),
    ({"schedule__kwargs__t_min": 0.0, "target__name": "Signal"}, build.process, "is singular: .* choose t_min > 0"),
]


@pytest.mark.parametrize(("overrides", "make", "message"), REFUSED, ids=[str(o) for o, _, _ in REFUSED])
def test_what_is_refused_is_named(overrides: dict[str, Any], make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(changed(**overrides))


def test_classes_come_from_the_data() -> None:
    labelled = changed("configs/circles.py", model__class_conditional=True)
    assert build.network(labelled, 2).num_classes == 2
    for classes in (None, 0):
        with pytest.raises(ValueError, match="model.class_conditional = True: data set 'circles' has no labels"):
            build.network(labelled, classes)
    assert build.network(changed("configs/circles.py"), 2).num_classes == 0


def test_network_field_has_what_the_config_says() -> None:
    choice = changed("configs/circles.py", model__blind=False, model__noise_feature="log_snr", target__name="Noise")
    net = build.network(choice, None)
    field = build.network_field(choice, net, {"w": 1}, (8,))
    assert isinstance(net, ResidualMLP)
    assert (field.module, field.params, field.event_shape) == (net, {"w": 1}, (8,))
    assert (field.blind, field.noise_feature) == (False, "log_snr")
    assert field.process == build.process(choice)
    with pytest.raises(ValueError, match="model.noise_feature = 'logsnr': unknown; did you mean log_snr"):
        build.network_field(changed(model__noise_feature="logsnr"), net, None, (8,))


def test_data_of_a_config(tmp_path: Path) -> None:
    small = {"data__kwargs__dim": 3, "data__kwargs__num_train": 12, "data__kwargs__num_test": 5}
    choice = changed("configs/circles.py", data__data_dir=tmp_path, **small, data__kwargs__radii="[1, 2, 3]")
    data = build.arrays(choice)
    assert (data.events.shape, data.num_classes, data.split) == ((12, 3), 3, "train")
    assert build.arrays(choice, "test").events.shape == (5, 3)
    stored = config.loads(config.dumps(choice))
    np.testing.assert_array_equal(build.arrays(stored).events, data.events)

    config.override(choice, [("training.batch_size", "8"), ("seed", "3")])
    stream = build.run(choice, data).pipeline()
    assert stream.batch_size == 8
    other = build.run(config.override(choice, [("seed", "4")]), data).pipeline()
    assert stream.index(0).tolist() != other.index(0).tolist()
    assert build.run(config.override(choice, [("data.placement", "host")]), data).pipeline().placement == "host"
    with pytest.raises(ValueError, match="flip needs images"):
        build.run(config.override(choice, [("data.flip", "True")]), data).pipeline()


def test_law_of_circles_is_that_of_the_population_unless_a_split_is_named() -> None:
    choice = changed("configs/circles.py", data__kwargs__dim=3, data__kwargs__num_train=50, data__kwargs__seed=4)
    population, training = build.distribution(choice), build.distribution(choice, "train")
    assert isinstance(population, Circles)
    assert isinstance(training, FiniteSet)
    points, _ = CirclesSpec(dim=3, num_train=50, seed=4).draw("train")
    np.testing.assert_array_equal(np.sort(training.points, axis=0), np.sort(points, axis=0))
    radii = np.linalg.norm(points @ np.asarray(population.frame), axis=1)
    np.testing.assert_allclose(np.unique(radii.round(3)), population.radii)


def test_law_of_images_is_the_training_set_with_mirror_images_if_training_flips() -> None:
    plain, flipped = (build.distribution(changed(data__flip=flip)) for flip in (False, True))
    assert isinstance(plain, FiniteSet)
    assert isinstance(flipped, FiniteSet)
    assert plain.event_shape == (8, 8, 1)
    assert (float(plain.rows.min()), float(plain.rows.max())) == (-1.0, 1.0)
    assert flipped.num_points == 2 * plain.num_points
    np.testing.assert_array_equal(flipped.points[plain.num_points :], plain.points[:, :, ::-1])


def test_prior_of_the_exact_field_is_time_law_times_loss_weight(x64: None) -> None:
    choice = changed("configs/circles.py", loss_weight__name="EDM", schedule__name="VE", target__name="Signal")
    config.override(choice, [("time_law.name", "LogNormal"), ("time_law.kwargs.mean", "-1.2")])
    marginal, u = build.marginal(choice), jnp.linspace(-1.0, 2.0, 16).reshape(2, 8)
    law, weight = build.time_law(choice), build.loss_weight(choice)
    t = jnp.exp(jnp.linspace(np.log(law.lo), np.log(law.hi), 4001))
    many = jnp.broadcast_to(u[:, None], (2, len(t), 8)).reshape(-1, 8)
    log_p = marginal.distribution.log_density(many, 1.0, jnp.tile(t, 2)).reshape(2, -1)
    density = jnp.exp(log_p - log_p.max(axis=1, keepdims=True)) * (law.density(t) * weight(t) * t)[None]
    at_nodes = marginal.conditional_field(many, jnp.tile(t, 2)).reshape(2, -1, 8)
    expected = jnp.einsum("bt,btd->bd", density, at_nodes) / density.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(marginal.field(u), expected, rtol=1e-7)
    unweighted = build.marginal(config.override(choice, [("loss_weight.name", "Unit")])).field(u)
    assert np.abs(unweighted - expected).max() > 0.01


@pytest.mark.parametrize("weight", LOSS_WEIGHTS)
def test_every_loss_weight_makes_a_marginal_that_jit_takes(weight: type) -> None:
    marginal = build.marginal(changed("configs/circles.py", loss_weight__name=weight.__name__))
    u = jnp.ones((1, 8))
    np.testing.assert_allclose(jax.jit(lambda m, u: m.field(u))(marginal, u), marginal.field(u), rtol=1e-5)
