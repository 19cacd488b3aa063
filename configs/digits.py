"""The 1,797 handwritten 8x8 digits: ``configs/digits.py:SYSTEM,blind|conditional``."""

from geonoise_jax.config import ConfigDict, base_config, set_spec, spec, with_variant


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system on the digits; the same net and budget for all."""
    config = base_config()
    set_spec(config.data, spec("digits"))
    set_spec(config.model, spec("UNet", base_channels=32, channel_multipliers=(1, 2), blocks_per_level=1))
    config.optimizer.learning_rate = 2e-3
    config.optimizer.decay = "cosine"
    config.training.num_steps = 4000
    return with_variant(config, variant)
