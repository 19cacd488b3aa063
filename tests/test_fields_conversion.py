"""One field as the field of another process, and a network that predicts another target than its process."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Marginal, Mixture
from geonoise_jax.fields import ConvertedField, ExactField, Field, GuidedField, NetworkField
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target
from tests.exact_laws import whole_range
from tests.stub_networks import Stub

ETA = (-3.0, 2.0)
LINEAR = Process(schedules.Linear(), targets.Velocity())


def within(schedule: Schedule) -> Schedule:
    """The schedule on the noise levels that all of them have."""
    low, high = (float(schedule.t_of_eta(jnp.asarray(eta))) for eta in ETA)
    if isinstance(schedule, schedules.VPDiscrete):
        low, high = math.ceil(low), math.floor(high)
    return dataclasses.replace(schedule, t_min=low, t_max=high)


def exact(process: Process) -> ExactField:
    law = Mixture([[1.0, 0.0], [-0.5, 0.8]], [[0.1, 0.2], [0.3, 0.05]], [0.4, 0.6])
    return ExactField(Marginal(law, process, whole_range(process.schedule)), blind=False)


@pytest.mark.parametrize("number", range(len(SCHEDULES)))
def test_the_exact_field_of_one_process_is_that_of_another(number: int, x64: None) -> None:
    """Around a circle through all schedules, and through all targets."""
    other = (number + 1) % len(SCHEDULES)
    source = Process(SCHEDULES[number](), TARGETS[number % len(TARGETS)]())
    wanted = Process(within(SCHEDULES[other]()), TARGETS[other % len(TARGETS)]())
    t = wanted.schedule.t_of_eta(jnp.linspace(*ETA, 7)[1:-1])
    u = jax.random.normal(jax.random.key(0), (5, 2), t.dtype)
    got, want = ConvertedField(exact(source), wanted)(u, t), exact(wanted)(u, t)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


def test_on_one_schedule_only_the_target_changes(x64: None) -> None:
    source, t = Process(schedules.Linear(), targets.Signal()), jnp.array([0.001, 0.4, 0.999])
    u = jax.random.normal(jax.random.key(0), (3, 2), t.dtype)
    np.testing.assert_allclose(ConvertedField(exact(source), LINEAR)(u, t), exact(LINEAR)(u, t), rtol=1e-9)


def test_float32_keeps_its_digits() -> None:
    wanted = Process(within(schedules.Linear()), targets.Velocity())
    t = jnp.linspace(wanted.schedule.t_min, wanted.schedule.t_max, 9)
    u = jax.random.normal(jax.random.key(0), (9, 2))
    got = ConvertedField(exact(Process(schedules.VE(), targets.Signal())), wanted)(u, t)
    np.testing.assert_allclose(got, exact(wanted)(u, t), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match=r"ConvertedField.field.blind = True: must be False"):
        ConvertedField(dataclasses.replace(exact(LINEAR), blind=True), Process(schedules.VE(), targets.Signal()))
    # VE covers log(b / a) in [log 0.002, log 80]: t / (1 - t) beyond that is refused, and the limits are named.
    field = exact(Process(schedules.VE(), targets.Signal()))
    with pytest.raises(ValueError, match=r"choose t_min >= 0.001996\d* and t_max <= 0.98765\d*"):
        ConvertedField(field, LINEAR)
    ConvertedField(field, Process(schedules.Linear(t_min=0.002, t_max=0.9876), targets.Velocity()))
    with pytest.raises(ValueError, match="ConvertedField.field = ExactField: must have classes"):
        ConvertedField(field, field.process).with_labels(jnp.zeros(1, jnp.int32))


def test_a_converted_field_is_a_pytree_and_hands_labels_on() -> None:
    traces = []

    @jax.jit
    def run(field: Field, u: jax.Array, t: jax.Array) -> jax.Array:
        traces.append(field.process)
        return field(u, t)

    def network(scale: float) -> ConvertedField:
        stub = Stub(lambda p, u, _, y: p * u + y[:, None], 3)
        guided = GuidedField(NetworkField(jnp.asarray(scale), stub, LINEAR, (2,), False), 2.0)
        return ConvertedField(guided, wanted)

    wanted = Process(schedules.VE(t_min=0.01, t_max=50.0), targets.Signal())
    u, t = jnp.ones((2, 2)), jnp.array([0.5, 7.0])
    functions = network(1.0)
    labelled = functions.with_labels(jnp.array([0, 2]))
    first = run(labelled, u, t)
    inner = labelled.field
    assert isinstance(inner, GuidedField)
    params = dataclasses.replace(inner, field=dataclasses.replace(inner.field, params=jnp.asarray(2.0)))  # type: ignore[type-var]
    assert not np.allclose(run(dataclasses.replace(labelled, field=params), u, t), first)
    assert len(traces) == 1
    assert isinstance(labelled, Field)
    assert (labelled.blind, labelled.event_shape, labelled.process) == (False, (2,), wanted)


@pytest.mark.parametrize("target", [target() for target in TARGETS], ids=lambda target: type(target).__name__)
def test_x_prediction_with_the_loss_of_any_target(target: Target, x64: None) -> None:
    """The network's output is read as x: the field is the target of that x and of the noise that goes with u."""
    process = Process(schedules.VPLinear(), target)
    t = jnp.array([0.05, 0.5, 1.0])
    x, eps = jax.random.normal(jax.random.key(0), (2, 3, 4), t.dtype)
    field = NetworkField(x, Stub(lambda p, *_: p), process, (4,), False, reads_as=targets.Signal())
    np.testing.assert_allclose(field(process.corrupt(x, eps, t), t), process.target(x, eps, t), rtol=1e-8, atol=1e-9)
    assert field.predicted == Process(process.schedule, targets.Signal())


def test_what_a_network_cannot_be_read_as() -> None:
    stub = Stub(lambda _, u, *__: u)
    with pytest.raises(ValueError, match=r"NetworkField.reads_as = Signal\(\): must be None for a blind network"):
        NetworkField(None, stub, LINEAR, (2,), True, reads_as=targets.Signal())
    whole = Process(schedules.Linear(t_max=1.0), targets.Velocity())
    with pytest.raises(ValueError, match=r"singular: .* vanishes at t = 1"):
        NetworkField(None, stub, whole, (2,), False, reads_as=targets.Noise())
    with pytest.raises(ValueError, match="NetworkField.output = 'scalar': must be one of direct, dot, l2, affine"):
        NetworkField(None, stub, LINEAR, (2,), False, output="scalar")
