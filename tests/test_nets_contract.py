"""What every network promises: dtypes, blindness, conditioning, dropout, independence of samples, derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.nets import Network, ResidualMLP, UNet

BATCH = 4
CLASSES = 3
EVENTS = {"mlp": (3, 2), "unet": (4, 4, 2)}
KINDS = pytest.mark.parametrize("kind", list(EVENTS))


def _make(kind: str, **fields: Any) -> Network:
    if kind == "mlp":
        return ResidualMLP(width=16, depth=2, **fields)
    # One level, for the time to compile; test_nets_unet.py has the resampling ones.
    return UNet(base_channels=4, channel_multipliers=(1,), blocks_per_level=1, num_heads=2, **fields)


def _inputs(kind: str, dtype: str = "float32") -> tuple[jax.Array, jax.Array]:
    u = np.random.default_rng(0).standard_normal((BATCH, *EVENTS[kind]))
    return jnp.asarray(u, dtype), jnp.linspace(0.1, 0.9, BATCH, dtype=dtype)


@cache
def _shapes(net: Network, kind: str) -> Any:
    return jax.eval_shape(net.init, jax.random.key(0), *_inputs(kind))


def _params(net: Network, kind: str) -> Any:
    """Random parameters, no layer zero, without compiling the initialisation."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), _shapes(net, kind))


def _paths(net: Network, kind: str) -> list[str]:
    return ["/".join(path) for path in flax.traverse_util.flatten_dict(_shapes(net, kind)["params"])]


def _jit(function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """jax.jit, compiling quickly rather than well."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **kwargs)


@cache
def _jitted(net: Network) -> Callable[..., jax.Array]:
    return _jit(net.apply, static_argnames="train")


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("conditional", [True, False])
def test_parameters_and_output_are_float32(kind: str, dtype: str, conditional: bool) -> None:
    net = _make(kind, dtype=dtype, conditional=conditional, num_classes=CLASSES, dropout=0.1)
    u, t = _inputs(kind)
    shapes = _shapes(net, kind)
    with jax.numpy_dtype_promotion("strict"):
        out = jax.eval_shape(lambda p: net.apply(p, u, t, train=True, rngs={"dropout": jax.random.key(0)}), shapes)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"float32"}
    assert (out.shape, out.dtype.name) == (u.shape, "float32")


@KINDS
def test_only_conditional_networks_have_a_time_branch(kind: str) -> None:
    assert not [p for p in _paths(_make(kind, conditional=False, num_classes=CLASSES), kind) if "time" in p.lower()]
    assert [p for p in _paths(_make(kind, conditional=True), kind) if "time_embed" in p]


@KINDS
def test_without_conditions_there_are_no_conditioning_parameters(kind: str) -> None:
    bare = _paths(_make(kind, conditional=False), kind)
    classes = _paths(_make(kind, conditional=False, num_classes=CLASSES), kind)
    assert not [p for p in bare if "film" in p or "embed" in p or "condition" in p]
    assert [p for p in classes if "film" in p]
    assert [p for p in classes if "class_embed" in p]


@KINDS
def test_blind_output_and_input_gradient_ignore_t_bit_for_bit(kind: str) -> None:
    net = _make(kind, conditional=False)
    params, (u, t) = _params(net, kind), _inputs(kind)

    @_jit
    def value_and_grad(u: jax.Array, t: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        out, pull = jax.vjp(lambda u: jnp.asarray(net.apply(params, u, t)), u)
        return out, pull(jnp.ones_like(out))[0]

    reference = value_and_grad(u, t)
    assert float(jnp.abs(reference[0]).min()) > 0.0
    for other in (1.0 - t, jnp.full_like(t, jnp.nan), None):
        for got, expected in zip(value_and_grad(u, other), reference, strict=True):
            np.testing.assert_array_equal(got, expected)


@KINDS
def test_conditional_output_depends_on_t_and_on_the_label(kind: str) -> None:
    net = _make(kind, num_classes=CLASSES)
    params, (u, t), apply = _params(net, kind), _inputs(kind), _jitted(net)
    labels = jnp.array([0, 1, 2, 2])
    reference = apply(params, u, t, labels)
    moved = apply(params, u, t.at[0].add(0.05), labels.at[1].set(2))
    changed = jnp.abs(moved - reference).reshape(BATCH, -1).max(-1)
    assert float(changed[:2].min()) > 1e-3
    np.testing.assert_allclose(changed[2:], 0.0, atol=1e-6)


@KINDS
@pytest.mark.parametrize("conditional", [True, False])
def test_a_network_is_told_how_its_input_was_augmented(kind: str, conditional: bool) -> None:
    """By one linear map without offset, which adds no time branch to a blind network; nothing is told as zeros."""
    net, (u, t) = _make(kind, conditional=conditional, augment_dim=5), _inputs(kind)
    params = _params(net, kind)
    told = [path for path in _paths(net, kind) if "augment" in path]
    assert told == ["conditioning/augment_embed/kernel"]
    assert any("time" in path for path in _paths(net, kind)) == conditional
    labels = jnp.asarray(np.random.default_rng(2).standard_normal((BATCH, 5)), jnp.float32)
    plain, zeros = net.apply(params, u, t), net.apply(params, u, t, augment=jnp.zeros((BATCH, 5)))
    np.testing.assert_array_equal(plain, zeros)
    assert (
        (np.asarray(net.apply(params, u, t, augment=labels)) != np.asarray(plain))
        .any(axis=tuple(range(1, u.ndim)))
        .all()
    )
    with pytest.raises(ValueError, match=rf"augment.shape = \[{BATCH}, 4\]: must be \[{BATCH}, 5\]"):
        net.apply(params, u, t, augment=labels[:, :4])


@KINDS
def test_no_labels_means_the_null_class_and_outsiders_give_nan_for_their_sample_only(kind: str) -> None:
    net = _make(kind, num_classes=CLASSES)
    params, (u, t), apply = _params(net, kind), _inputs(kind), _jitted(net)
    null = apply(params, u, t, jnp.full(BATCH, CLASSES))
    np.testing.assert_allclose(apply(params, u, t), null, atol=1e-5)
    mixed = apply(params, u, t, jnp.array([-1, CLASSES, CLASSES + 1, CLASSES]))
    assert bool(jnp.isnan(mixed[jnp.array([0, 2])]).all())
    np.testing.assert_array_equal(mixed[jnp.array([1, 3])], null[jnp.array([1, 3])])


@KINDS
def test_samples_are_independent(kind: str) -> None:
    net = _make(kind, num_classes=CLASSES)
    params, (u, t), apply = _params(net, kind), _inputs(kind), _jitted(net)
    labels, order = jnp.array([0, 1, 2, 3]), jnp.array([2, 0, 3, 1])
    permuted = apply(params, u[order], t[order], labels[order])
    np.testing.assert_allclose(permuted, apply(params, u, t, labels)[order], rtol=1e-5, atol=1e-5)
    gradient = _jit(jax.grad(lambda u: jnp.asarray(net.apply(params, u, t, labels))[0].sum()))(u)
    assert float(jnp.abs(gradient[0]).max()) > 0.0
    np.testing.assert_array_equal(gradient[1:], 0.0)


@KINDS
def test_dropout_acts_in_training_only(kind: str) -> None:
    net, plain = (_make(kind, conditional=False, dropout=rate) for rate in (0.5, 0.0))
    params, (u, _), apply = _params(net, kind), _inputs(kind), _jitted(net)
    keys = [{"dropout": jax.random.key(i)} for i in (0, 1)]
    first, second = (apply(params, u, train=True, rngs=key) for key in keys)
    assert float(jnp.abs(first - second).max()) > 1e-3
    np.testing.assert_array_equal(first, apply(params, u, train=True, rngs=keys[0]))
    # Outside training, and at rate zero, the very same program without a random key.
    programs = [
        str(jax.make_jaxpr(partial(module.apply, train=train))(params, u))
        for module, train in ((net, False), (plain, False), (plain, True))
    ]
    assert programs[0] == programs[1] == programs[2]


@KINDS
def test_bfloat16_stays_near_float32(kind: str) -> None:
    nets = [_make(kind, dtype=dtype, num_classes=CLASSES) for dtype in ("float32", "bfloat16")]
    params, (u, t) = _params(nets[0], kind), _inputs(kind)
    full, half = (np.asarray(_jitted(net)(params, u, t)) for net in nets)
    error = np.linalg.norm(half - full) / np.linalg.norm(full)
    assert 1e-5 < error < 0.03  # about 2^-8 per layer; not zero, or nothing ran in bfloat16


@KINDS
def test_untrained_output_is_zero(kind: str) -> None:
    net = _make(kind)
    out, params = _jit(net.init_with_output)(jax.random.key(0, impl="rbg"), *_inputs(kind))
    np.testing.assert_array_equal(out, 0.0)
    kernels = {
        "/".join(k): v for k, v in flax.traverse_util.flatten_dict(params["params"]).items() if k[-1] == "kernel"
    }
    zero = {name for name, kernel in kernels.items() if not np.asarray(kernel).any()}
    last = ("dense_out/kernel", "conv_out/kernel", "attention/out/kernel", "output/kernel")
    assert zero == {name for name in kernels if name.endswith(last) and "embed" not in name}


@KINDS
def test_forward_and_reverse_mode_agree_with_differences(kind: str, x64: None) -> None:
    net = _make(kind, dtype="float64")
    params, (u, t) = _params(net, kind), _inputs(kind, "float64")
    rng = np.random.default_rng(2)
    v, w = (jnp.asarray(rng.standard_normal(u.shape)) for _ in range(2))

    @_jit
    def slopes(u: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """w . f(u), and w . f'(u) v by forward and by reverse mode."""

        def projected(u: jax.Array) -> jax.Array:
            return jnp.vdot(w, jnp.asarray(net.apply(params, u, t)))

        value, forward = jax.jvp(projected, (u,), (v,))
        return value, forward, jnp.vdot(jax.grad(projected)(u), v)

    h = 1e-5
    _, forward, reverse = slopes(u)
    difference = (slopes(u + h * v)[0] - slopes(u - h * v)[0]) / (2 * h)
    assert abs(float(forward)) > 1e-2
    np.testing.assert_allclose(reverse, forward, rtol=1e-11)
    np.testing.assert_allclose(difference, forward, rtol=1e-6)


@KINDS
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conditional": "False"}, "conditional = 'False': must be True or False"),
        ({"num_classes": -1}, "num_classes = -1: must be an integer >= 0"),
        ({"num_classes": True}, "num_classes = True: must be an integer"),
        ({"dropout": 1.0}, r"dropout = 1.0: must be a number in \[0, 1\)"),
        ({"dropout": float("nan")}, "dropout = nan: must be a number in"),
        ({"dtype": "float16"}, "dtype = 'float16': must be one of float32, bfloat16, float64"),
        ({"dtype": "bf16"}, "dtype = 'bf16': must be one of"),
        ({"dtype": "float64"}, "dtype = 'float64': must be .* without jax_enable_x64"),
    ],
)
def test_bad_fields_are_refused_at_construction(kind: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _make(kind, **fields)


@KINDS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": None}, "t = None: must be one noise feature per sample"),
        ({"t": jnp.zeros(())}, r"t.shape = \[\]: must be \[4\]"),
        ({"t": jnp.zeros((4, 1))}, r"t.shape = \[4, 1\]: must be \[4\]"),
        ({"labels": jnp.zeros(3, jnp.int32)}, r"labels = int32\[3\]: must be integers \[4\]"),
        ({"labels": jnp.zeros(4)}, r"labels = float32\[4\]: must be integers"),
        ({"u": jnp.zeros(4)}, r"u.shape = \[4\]: must be"),
        ({"u": jnp.zeros((4, 0))}, r"u.shape = \[4, 0\]: must be"),
    ],
)
def test_bad_arguments_are_refused(kind: str, arguments: dict[str, Any], message: str) -> None:
    net = _make(kind, num_classes=CLASSES)
    u, t = _inputs(kind)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), **{"u": u, "t": t, **arguments})


@KINDS
def test_integer_images_and_unexpected_labels_are_refused(kind: str) -> None:
    u, t = _inputs(kind)
    with pytest.raises(ValueError, match="u.dtype = int32: must be floats"):
        jax.eval_shape(_make(kind).init, jax.random.key(0), u.astype(jnp.int32), t)
    with pytest.raises(ValueError, match="num_classes = 0"):
        jax.eval_shape(_make(kind).init, jax.random.key(0), u, t, jnp.zeros(BATCH, jnp.int32))
