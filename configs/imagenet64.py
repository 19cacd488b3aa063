"""ImageNet at 64x64, class-conditional: ``configs/imagenet64.py:SYSTEM,blind|conditional[,paper]``."""

from geonoise_jax.config import ConfigDict, base_config
from geonoise_jax.systems import image_data, with_variant


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system; the same net and budget for all."""
    net = {
        "base_channels": 192,
        "channel_multipliers": (1, 2, 3, 4),
        "blocks_per_level": 3,
        "attention_resolutions": (16, 8),
        "num_heads": 4,
        "dtype": "bfloat16",
    }
    config = image_data(base_config(), "imagenet_resized/64x64", flip=True, **net)
    config.model.class_conditional = True
    config.optimizer.learning_rate = 1e-4
    config.training.num_steps = 500_000
    config.training.batch_size = 1024
    return with_variant(config, variant, bounded=True)
