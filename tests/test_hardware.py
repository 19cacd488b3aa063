"""The table of chips against itself, and counted products against closed forms and XLA's own count."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.hardware.chips import CHIPS, chip, of_kind
from geonoise_jax.hardware.counting import Format, count
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.nets.unet import UNet


def shapes(module: Any, *arguments: Any) -> Any:
    return jax.eval_shape(lambda *given: module.init(jax.random.key(0), *given), *arguments)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def square(prediction: Any) -> Any:
    return jnp.sum(prediction**2)


def xla_flops(function: Any, *arguments: Any) -> float:
    return (jax.jit(function).lower(*arguments).cost_analysis() or {})["flops"]


def counted(function: Any, *arguments: Any) -> float:
    return count(jax.make_jaxpr(function)(*arguments)).total


@pytest.mark.parametrize("name", [name for name in CHIPS if name != "cpu"])
def test_figures_of_a_chip_are_of_one_order(name: str) -> None:
    """A typing error of a factor of ten would show: the balance of arithmetic and bandwidth is alike everywhere."""
    found = chip(name)
    assert found.memory is not None
    assert found.bfloat16 is not None
    assert found.bandwidth is not None
    assert found.interconnect is not None
    assert 100 < found.bfloat16 / found.bandwidth < 600
    assert 0.01 < found.memory / found.bandwidth < 0.1
    assert 2 < found.bandwidth / found.interconnect < 11
    assert found.peak("bfloat16", "highest") == found.bfloat16
    slow, fast = found.peak("float32", "highest"), found.peak("float32", "default")
    assert slow is not None
    assert fast is not None
    assert slow < fast <= found.bfloat16
    assert found.source


def test_a_chip_is_known_by_what_jax_calls_it() -> None:
    kinds = [kind for each in CHIPS.values() for kind in each.kinds]
    assert len(kinds) == len(set(kinds))
    assert of_kind("TPU v5 lite") is chip("v5e")
    assert of_kind("NVIDIA H100 80GB HBM3") is chip("h100")
    assert of_kind("NVIDIA GeForce RTX 4090") is None
    assert of_kind(jax.devices("cpu")[0].device_kind) is chip("cpu")
    assert chip("cpu").peak("float32", "default") is None
    with pytest.raises(ValueError, match="chip = 'v5': unknown; did you mean .*v5e"):
        chip("v5")


def test_a_float32_product_of_a_tpu_takes_six_of_bfloat16() -> None:
    found = chip("v5e")
    peaks = [found.peak("float32", each) for each in ("default", "high", "highest")]
    assert peaks == pytest.approx([197e12, 197e12 / 3, 197e12 / 6])
    peaks = [chip("h100").peak("float32", each) for each in ("default", "high", "highest")]
    assert peaks == pytest.approx([494.7e12, 494.7e12, 66.9e12])
    assert chip("h100").peak("float64", "highest") is None


def test_a_multilayer_perceptron_is_counted_exactly() -> None:
    """Forward: input, 2 layers a block, output. Backward: the same for the parameters, and all but the first for u."""
    width, depth, size, batch = 16, 3, 5, 7
    net = ResidualMLP(width=width, depth=depth, conditional=False)
    u = floats(batch, size)
    params = shapes(net, u)
    forward = 2 * batch * (size * width + depth * 2 * width * width + width * size)
    assert counted(net.apply, params, u) == forward
    backward = counted(jax.grad(lambda params, u: square(net.apply(params, u))), params, u)
    assert backward == 3 * forward - 2 * batch * size * width


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 3))])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolutions_and_their_gradients_are_counted_as_xla_does(padding: Any, stride: int) -> None:
    def loss(kernel: Any, image: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (stride, stride), padding, dimension_numbers=numbers)

    kernel, image = floats(3, 5, 2, 6), floats(4, 9, 8, 2)
    assert counted(loss, kernel, image) == xla_flops(loss, kernel, image)

    def pulled(kernel: Any, image: Any) -> Any:
        out, pull = jax.vjp(loss, kernel, image)
        return out, pull(out)

    assert counted(pulled, kernel, image) == pytest.approx(xla_flops(pulled, kernel, image), rel=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_unet_is_counted_to_within_four_per_cent_of_all_that_xla_counts(conditional: bool) -> None:
    """XLA counts activations, norms and the rest too."""
    net = UNet(base_channels=24, channel_multipliers=(1, 2), blocks_per_level=1, conditional=conditional)
    u, t = floats(4, 8, 8, 1), floats(4) if conditional else None
    params = shapes(net, u, t)
    gradient = jax.grad(lambda params, u, t: square(net.apply(params, u, t)))
    ratio = counted(gradient, params, u, t) / xla_flops(gradient, params, u, t)
    assert 0.96 < ratio < 1.0


def test_loops_branches_and_formats() -> None:
    square = floats(8, 8)
    one = 2.0 * 8**3

    def looped(x: Any) -> Any:
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, length=5)[0]

    def branched(x: Any) -> Any:
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    def stopped(x: Any) -> Any:
        return jax.lax.while_loop(lambda x: jnp.max(x) < 9, lambda x: x @ x, x)

    assert counted(looped, square) == 5 * one
    assert counted(branched, square) == 2 * one
    found = count(jax.make_jaxpr(stopped)(square))
    assert (found.total, found.unbounded) == (one, 1)

    def mixed(x: Any) -> Any:
        half = x.astype(jnp.bfloat16)
        return jnp.dot(x, x, precision="highest"), half @ half

    assert dict(count(jax.make_jaxpr(mixed)(square)).flops) == {
        Format("float32", "highest"): one,
        Format("bfloat16", "default"): one,
    }
    assert np.isclose(counted(jax.vmap(lambda x: x @ x), floats(3, 8, 8)), 3 * one)
