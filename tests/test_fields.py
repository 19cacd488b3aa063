"""Fields: blind networks never see t, conditional ones do, and both are pytrees that jit takes."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.fields import NOISE_FEATURES, ExactField, Field, NetworkField, noise_feature
from geonoise_jax.nets import Network, ResidualMLP, UNet
from geonoise_jax.nets.conditioning import sinusoidal_features
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.times import Uniform
from geonoise_jax.training.state import init_params

BATCH = 4
CLASSES = 3
EVENTS = {"mlp": (3,), "unet": (4, 4, 2)}
KINDS = pytest.mark.parametrize("kind", list(EVENTS))
PROCESS = Process(schedules.VPDiscrete(), targets.Noise())


@cache
def make(kind: str, *, blind: bool, classes: int = 0, feature: str = "time", dropout: float = 0.0) -> NetworkField:
    """A tiny network with random parameters: fresh ones would predict 0 whatever the input."""
    fields: dict[str, Any] = {"conditional": not blind, "num_classes": classes, "dropout": dropout}
    net: Network = ResidualMLP(width=8, depth=1, **fields)
    if kind == "unet":
        net = UNet(base_channels=4, channel_multipliers=(1,), blocks_per_level=1, middle_attention=False, **fields)
    shapes = jax.eval_shape(lambda: init_params(net, EVENTS[kind], jax.random.key(0)))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), shapes)
    return NetworkField(params, net, PROCESS, EVENTS[kind], blind, feature)


def observations(kind: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, *EVENTS[kind])), jnp.float32)


@jax.jit
def evaluate(field: Any, u: jax.Array, t: jax.Array) -> jax.Array:
    return field(u, t)


@KINDS
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_blind_network_has_no_time_parameter(kind: str, classes: int) -> None:
    def paths(blind: bool) -> list[str]:
        field = make(kind, blind=blind, classes=classes)
        return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(field.params)]

    assert not [path for path in paths(blind=True) if "time" in path.lower()]
    assert [path for path in paths(blind=False) if "time" in path.lower()]


@KINDS
def test_a_blind_field_is_bitwise_the_same_at_all_times(kind: str) -> None:
    field, u = make(kind, blind=True), observations(kind)
    first = evaluate(field, u, jnp.full(BATCH, 1.0))
    assert np.asarray(first).any()
    for t in (1000.0, 437.25, 0.0, -1.0, float("nan")):
        np.testing.assert_array_equal(evaluate(field, u, jnp.full(BATCH, t)), first)
    slope = jax.jit(jax.grad(lambda t: (field(u, t) ** 2).sum()))(jnp.full(BATCH, 500.0))
    np.testing.assert_array_equal(slope, 0.0)


class Recorder:
    """Stands in for a Linen module and keeps the noise features it is shown."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def apply(self, variables: Any, u: jax.Array, feature: Any, labels: Any) -> jax.Array:  # noqa: ARG002
        self.shown.append(feature)
        return u


def test_a_blind_network_is_not_even_shown_the_time() -> None:
    for blind in (True, False):
        recorder = Recorder()
        NetworkField({}, recorder, PROCESS, (3,), blind)(observations("mlp"), jnp.ones(BATCH))
        assert [feature is None for feature in recorder.shown] == [blind]


@KINDS
@pytest.mark.parametrize("feature", NOISE_FEATURES)
def test_a_conditional_field_is_shown_the_feature_of_its_own_time(kind: str, feature: str) -> None:
    field, u = make(kind, blind=False, feature=feature), observations(kind)
    t = jnp.array([1.0, 300.0, 600.0, 1000.0])
    together = evaluate(field, u, t)
    shown = noise_feature(PROCESS.schedule, t, feature)
    want = jax.jit(field.module.apply)({"params": field.params}, u, shown)
    np.testing.assert_allclose(together, want, rtol=1e-5, atol=1e-6)
    # The time of one sample changes that sample alone.
    moved = evaluate(field, u, t.at[1].set(900.0))
    changed = np.abs(np.asarray(moved - together)).reshape(BATCH, -1).max(axis=1)
    assert changed[1] > 1e-3
    np.testing.assert_allclose(np.delete(changed, 1), 0.0, atol=1e-6)


@pytest.mark.parametrize("schedule", [cls() for cls in SCHEDULES], ids=lambda schedule: type(schedule).__name__)
def test_noise_features_are_the_documented_numbers_and_increase(schedule: Schedule) -> None:
    t = jnp.linspace(schedule.t_min, schedule.t_max, 101)
    time, log_snr, smooth, c_noise = (noise_feature(schedule, t, kind) for kind in NOISE_FEATURES)
    np.testing.assert_allclose(time, t / schedule.t_max, rtol=1e-6)
    np.testing.assert_allclose(log_snr, -schedule.log_snr(t) / 8, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(100 * smooth, log_snr, rtol=1e-6)
    np.testing.assert_allclose(1000 * c_noise, log_snr, rtol=1e-6)
    for feature in (time, log_snr, 100 * smooth, 1000 * c_noise):
        assert float(jnp.abs(feature).max()) < 5.0
        assert float(jnp.diff(feature).min()) > 0.0


def test_c_noise_is_embedded_as_in_edm(x64: None) -> None:
    """Karras et al. 2022, class PositionalEmbedding(128, max_positions=10000, endpoint=True) of log(sigma) / 4."""
    sigma = np.geomspace(0.002, 80.0, 50)
    freqs = (1.0 / 10_000) ** (np.arange(64) / 63)
    phases = np.outer(np.log(sigma) / 4.0, freqs)
    embedded = sinusoidal_features(noise_feature(schedules.VE(), jnp.asarray(sigma), "c_noise"))
    np.testing.assert_allclose(embedded, np.concatenate([np.cos(phases), np.sin(phases)], axis=1), atol=1e-12)


def test_unknown_noise_feature_is_named() -> None:
    for kind in ("xyz", ""):
        with pytest.raises(
            ValueError, match=f"noise_feature = '{kind}': must be one of time, log_snr, smooth_log_snr, c_noise"
        ):
            noise_feature(PROCESS.schedule, jnp.ones(1), kind)


def test_labels_choose_the_class() -> None:
    field, u, t = make("mlp", blind=True, classes=CLASSES), observations("mlp"), jnp.ones(BATCH)
    labels = jnp.array([0, 1, 2, 0])
    labelled = field.with_labels(labels)
    assert field.labels is None
    out = evaluate(labelled, u, t)
    want = field.module.apply({"params": field.params}, u, None, labels)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(out - evaluate(field, u, t))).max() > 1e-3
    np.testing.assert_array_equal(evaluate(labelled.with_labels(None), u, t), evaluate(field, u, t))


def test_options_reach_the_network() -> None:
    field, u, t = make("mlp", blind=False, dropout=0.5), observations("mlp"), jnp.full(BATCH, 500.0)
    dropped = field.apply(u, t, train=True, rngs={"dropout": jax.random.key(0)})
    assert np.abs(np.asarray(dropped - field(u, t))).max() > 1e-3


def test_new_parameters_do_not_retrace_and_a_new_process_does() -> None:
    traces = []

    @jax.jit
    def run(field: NetworkField, u: jax.Array, t: jax.Array) -> jax.Array:
        traces.append(field.process)
        return field(u, t)

    field, u, t = make("mlp", blind=False), observations("mlp"), jnp.full(BATCH, 500.0)
    results = [
        run(dataclasses.replace(field, params=jax.tree.map(lambda p, s=scale: s * p, field.params)), u, t)
        for scale in (1.0, 1.5, 2.0)
    ]
    assert traces == [PROCESS]
    assert not np.allclose(results[0], results[1])
    # An equal process built anew is the same to jit; another one is not.
    same = dataclasses.replace(field, process=Process(schedules.VPDiscrete(), targets.Noise()))
    run(same, u, t)
    assert len(traces) == 1
    run(dataclasses.replace(field, process=Process(schedules.VPDiscrete(), targets.Velocity())), u, t)
    assert len(traces) == 2


def test_a_field_is_a_pytree_of_parameters_and_labels() -> None:
    field = make("mlp", blind=True, classes=CLASSES).with_labels(jnp.arange(BATCH) % CLASSES)
    leaves, structure = jax.tree.flatten(field)
    assert len(leaves) == len(jax.tree.leaves(field.params)) + 1
    restored = jax.tree.unflatten(structure, leaves)
    assert (restored.module, restored.process, restored.blind) == (field.module, PROCESS, True)
    hash(structure)


def test_what_counts_as_a_field() -> None:
    process = Process(schedules.Linear(), targets.Velocity())
    marginal = Marginal(Gaussian(jnp.zeros(3), jnp.ones(3)), process, Uniform(0.001, 0.999))
    for field in (
        make("mlp", blind=True),
        make("unet", blind=False),
        ExactField(marginal),
        ExactField(marginal, False),
    ):
        assert isinstance(field, Field)
    for other in (marginal, process, make("mlp", blind=True).module, lambda u, _: u):
        assert not isinstance(other, Field)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Optimum:
    """Stands in for a Marginal: both of its fields can be told apart by eye."""

    scale: jax.Array
    process: Process = dataclasses.field(default=PROCESS, metadata={"static": True})
    event_shape: tuple[int, ...] = dataclasses.field(default=(3,), metadata={"static": True})

    def field(self, u: jax.Array) -> jax.Array:
        return self.scale * u

    def conditional_field(self, u: jax.Array, t: jax.Array) -> jax.Array:
        return self.scale * u + t[:, None]


def test_an_exact_field_is_the_blind_or_the_conditional_optimum() -> None:
    u, t = observations("mlp"), jnp.arange(4.0)
    for scale in (2.0, 3.0):
        marginal = Optimum(jnp.asarray(scale))
        blind, conditional = (ExactField(marginal, blind=choice) for choice in (True, False))
        np.testing.assert_allclose(evaluate(blind, u, t), scale * u, rtol=1e-6)
        np.testing.assert_allclose(evaluate(conditional, u, t), scale * u + t[:, None], rtol=1e-5, atol=1e-6)
        assert (blind.process, blind.event_shape, blind.blind) == (PROCESS, (3,), True)
        assert not conditional.blind
