"""The 1,797 handwritten 8x8 digits: ``configs/digits.py:SYSTEM,blind|conditional``."""

from geonoise_jax.config import ConfigDict, base_config
from geonoise_jax.systems import image_data, with_variant


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system on the digits; the same net and budget for all."""
    net = {"base_channels": 24, "channel_multipliers": (1, 2), "blocks_per_level": 1, "middle_attention": False}
    config = image_data(base_config(), "digits", sigma_data=0.75, **net)
    config.optimizer.learning_rate = 2e-3
    config.optimizer.decay = "cosine"
    config.training.num_steps = 4000
    config.training.batch_size = 64
    return with_variant(config, variant, bounded=True)
