"""SVHN, 73,257 cropped house-number digits of 32x32x3: ``configs/svhn.py:SYSTEM,blind|conditional[,paper]``."""

from geonoise_jax.config import ConfigDict, base_config
from geonoise_jax.systems import image_data, with_variant


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system; the same net and budget for all. Digits are not mirrored."""
    net = {"base_channels": 96, "channel_multipliers": (1, 2, 2), "blocks_per_level": 2, "attention_resolutions": (16,)}
    config = image_data(base_config(), "svhn_cropped", sigma_data=0.4, **net)
    config.optimizer.learning_rate = 3e-4
    config.training.num_steps = 100_000
    config.training.batch_size = 256
    return with_variant(config, variant, bounded=True)
