"""Fields in a notebook: called by hand, compiled once, shown in a line."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.checks import shown
from geonoise_jax.exact import Circles, FiniteSet, Gaussian, Marginal, Mixture, Subspace
from geonoise_jax.fields import (
    ConvertedField,
    DensityField,
    ExactField,
    Field,
    GuidedField,
    NetworkField,
    Preconditioner,
    SumField,
)
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.times import Uniform
from tests.stub_networks import Stub

PROCESS = Process(schedules.Linear(), targets.Velocity())
VP = Process(schedules.VPLinear(), targets.Noise())
U = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def network(blind: bool, process: Process = PROCESS, **options: Any) -> NetworkField:
    def scaled(params: Any, u: Any, feature: Any, _labels: Any) -> jax.Array:
        return params["w"] * u + (0.0 if feature is None else feature[:, None])

    kind = DensityField if options.pop("density", False) else NetworkField
    return kind({"w": jnp.ones(())}, Stub(scaled), process, (3,), blind, **options)


def exact(blind: bool) -> ExactField:
    return ExactField(Marginal(Gaussian(jnp.zeros(3), 0.5), PROCESS, Uniform(0.01, 0.99), accuracy=1e-3), blind)


FIELDS: dict[str, Field] = {
    "network": network(True),
    "exact": exact(True),
    "sum": SumField((network(True), network(True)), (0.5, 2.0)),
    "guided": GuidedField(network(True), 2.0, network(True)),
}
CONDITIONAL: dict[str, Field] = {
    "network": network(False),
    "energy": network(False, output="dot"),
    "preconditioned": network(False, preconditioner=Preconditioner(), reads_as=targets.Signal()),
    "density": network(False, VP, density=True),
    "exact": exact(False),
    "sum": SumField((network(False), network(True)), jnp.ones(2)),
    "guided": GuidedField(network(False), 2.0, network(True), (0.2, 0.8)),
    "converted": ConvertedField(network(False), Process(schedules.Linear(), targets.Signal())),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_blind_field_needs_no_time(name: str) -> None:
    field: Any = FIELDS[name]
    want = field(jnp.asarray(U), jnp.full(4, 0.5))
    np.testing.assert_array_equal(field(U), want)
    if name != "exact":  # whose marginal takes long to compile as a whole
        np.testing.assert_allclose(jax.jit(lambda u: field(u))(U), want, rtol=1e-5)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_field_takes_one_time_for_all_and_says_when_there_is_none(name: str) -> None:
    field: Any = CONDITIONAL[name]
    np.testing.assert_array_equal(field(U, 0.5), field(U, np.full(4, 0.5, np.float32)))
    kind = type(field).__name__
    with pytest.raises(ValueError, match=f"^t = None: must be the noise levels, one or .b., as this {kind}"):
        field(U)


@pytest.mark.parametrize("field", [*FIELDS.values(), *CONDITIONAL.values()], ids=lambda field: type(field).__name__)
def test_a_wrong_shape_is_named(field: Field) -> None:
    with pytest.raises(ValueError, match=r"^u.shape = \[4, 2\]: must be \[b, 3\], observations of this .*Field$"):
        field(jnp.ones((4, 2)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"^u.shape = \[3\]: must be \[b, 3\]"):
        field(jnp.ones(3), jnp.ones(()))
    with pytest.raises(ValueError, match=r"^t.shape = \[2\]: must be \[\] or \[4\]"):
        field(jnp.asarray(U), jnp.ones(2))


def test_a_network_is_compiled_once_for_all_parameters() -> None:
    """By hand as in a jitted function; derivatives pass through."""
    field = network(True)
    want = []
    for scale in (1.0, 2.0, 3.0):
        want.append(np.asarray(dataclasses.replace(field, params={"w": jnp.asarray(scale)})(U)) / U)
    np.testing.assert_allclose(want, [np.full((4, 3), scale) for scale in (1.0, 2.0, 3.0)], rtol=1e-6)
    assert field.module.batches == [4]
    np.testing.assert_array_equal(jax.grad(lambda u: field(u).sum())(jnp.asarray(U)), np.ones((4, 3)))
    slopes = jax.grad(lambda field: field(U).sum())(field).params["w"]
    np.testing.assert_allclose(slopes, U.sum(), rtol=1e-5)


def test_a_module_that_cannot_be_hashed_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Wide:
        widths: list[int]

    with pytest.raises(ValueError, match=r"^NetworkField.module: must be hashable, .*'list'.*; give tuples for lists$"):
        NetworkField({}, Wide([8, 8]), PROCESS, (3,), True)


def test_the_energy_of_a_network_is_compiled_too() -> None:
    field = network(True, output="dot")
    for _ in range(2):
        np.testing.assert_allclose(field.energy(jnp.asarray(U)), (U * U).sum(1), rtol=1e-5)
    assert field.module.batches == [4]


def test_an_exact_field_compiles_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    exact(True)(U)
    with jax.log_compiles():
        jax.jit(lambda x: x + 3.0)(U)
        assert "Compiling" in caplog.text
        caplog.clear()
        exact(True)(2.0 * U)
    assert [line for line in caplog.messages if "Compiling" in line] == []


def laws() -> list[Any]:
    marginals = [
        Marginal(law, VP, Uniform(0.01, 0.99), accuracy=1e-4)
        for law in (
            Gaussian(jnp.zeros((8, 8, 1)), 1.0),
            Mixture(jnp.zeros((5, 3)), jnp.ones((5, 3))),
            Subspace(np.eye(3)[:, :2], 2.0),
            Circles(jnp.ones(3)),
            FiniteSet(jnp.zeros((100, 8, 8, 1)), num_near=4),
        )
    ]
    return [*(each.distribution for each in marginals), *marginals, *(ExactField(each) for each in marginals)]


def test_everything_is_shown_in_a_short_line() -> None:
    """Networks by their size, arrays by their shape."""
    large = dataclasses.replace(network(True), params={"a": jnp.zeros((1000, 173)), "b": jnp.zeros(137)})
    for each in (large, *FIELDS.values(), *CONDITIONAL.values(), *laws()):
        assert repr(each).startswith(f"{type(each).__name__}(")
        assert len(repr(each)) < 300
        assert "\n" not in repr(each)
    assert repr(large) == (
        "NetworkField(Stub, 173,137 parameters, Process(Linear(t_min=0.001, t_max=0.999), Velocity()), "
        "event_shape=(3,), blind=True)"
    )
    assert "FiniteSet(points=float32[100, 8, 8, 1], num_near=4)" in repr(laws()[-1])
    assert "output='dot'" in repr(CONDITIONAL["energy"])
    assert "2 NetworkField" in repr(FIELDS["sum"])
    # Trees whose leaves are something else, which jax makes for its messages, are shown too.
    for each in (large, *laws()):
        repr(jax.tree.map(lambda _: object(), each))


def test_a_process_is_shown_as_the_call_that_makes_it() -> None:
    names = {**vars(schedules), **vars(targets), "Process": Process}
    for process in (PROCESS, VP, Process(schedules.VE(), targets.EDMNetwork(0.7))):
        assert eval(repr(process), names) == process


def test_values_in_messages() -> None:
    assert shown(np.zeros((2, 3))) == "float64[2, 3]"
    assert shown(jnp.asarray(2.5)) == "2.5"
    assert shown((jnp.ones(2), 1)) == "(float32[2], 1)"
    assert shown("x" * 100) == "'" + "x" * 76 + "..."
    jax.jit(lambda x: [shown(x)] == ["float32[]"] or pytest.fail(shown(x)))(1.0)
