"""The residual MLP alone: event shapes, parameter count, bad fields."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.nets import ResidualMLP


def _shapes(net: ResidualMLP, event: tuple[int, ...]) -> Any:
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, *event)), jnp.zeros(2))


@pytest.mark.parametrize("event", [(1,), (5,), (2, 3), (2, 1, 4)])
def test_any_event_shape_is_restored(event: tuple[int, ...]) -> None:
    net = ResidualMLP(width=8, depth=1)
    out = jax.eval_shape(net.apply, _shapes(net, event), jnp.zeros((3, *event)), jnp.zeros(3))
    assert out.shape == (3, *event)


def test_the_event_is_flattened_in_row_major_order() -> None:
    net = ResidualMLP(width=8, depth=1, conditional=False)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), _shapes(net, (6,)))
    u = jnp.asarray(rng.standard_normal((3, 6)), jnp.float32)
    folded = net.apply(params, u.reshape(3, 2, 3))
    np.testing.assert_array_equal(jnp.asarray(folded).reshape(3, 6), net.apply(params, u))


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("classes", [0, 5])
def test_parameter_count_is_that_of_the_formula(conditional: bool, classes: int) -> None:
    width, depth, size = 12, 3, 7
    time = (128 * width + width) + (width**2 + width)
    film = width * 2 * width + 2 * width
    block = 2 * width + 2 * (width**2 + width) + (film if conditional or classes else 0)
    expected = size * width + width + depth * block + width * size + size
    expected += (time if conditional else 0) + ((classes + 1) * width if classes else 0)
    net = ResidualMLP(width=width, depth=depth, conditional=conditional, num_classes=classes)
    assert sum(leaf.size for leaf in jax.tree.leaves(_shapes(net, (size,)))) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 1}, "width = 1: must be an integer >= 2"),
        ({"depth": 0}, "depth = 0: must be an integer >= 1"),
        ({"width": 2.5}, "width = 2.5: must be an integer >= 2"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualMLP(**fields)
