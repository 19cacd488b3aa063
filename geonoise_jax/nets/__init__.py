"""Networks in Flax Linen: `ResidualMLP` for vectors and `UNet` for images, conditional or blind (see `network`)."""

from __future__ import annotations

from geonoise_jax.nets import conditioning, convolution, layers, mlp, network, unet
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.nets.network import Network
from geonoise_jax.nets.unet import UNet

__all__ = ["Network", "ResidualMLP", "UNet", "conditioning", "convolution", "layers", "mlp", "network", "unet"]
