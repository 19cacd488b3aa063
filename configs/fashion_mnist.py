"""Fashion-MNIST, 60,000 grey images of 28x28: ``configs/fashion_mnist.py:SYSTEM,blind|conditional[,paper]``."""

from geonoise_jax.config import ConfigDict, base_config
from geonoise_jax.systems import image_data, with_variant


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system; the same net and budget for all."""
    net = {"base_channels": 64, "channel_multipliers": (1, 2, 2), "blocks_per_level": 2, "attention_resolutions": (7,)}
    config = image_data(base_config(), "fashion_mnist", sigma_data=0.71, **net)
    config.optimizer.learning_rate = 5e-4
    config.training.num_steps = 50_000
    config.training.batch_size = 256
    return with_variant(config, variant, bounded=True)
