"""Two concentric circles embedded in R^D: ``configs/circles.py:SYSTEM,blind|conditional``."""

from geonoise_jax.config import ConfigDict, base_config, set_spec, spec
from geonoise_jax.systems import with_variant


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system on circles in R^8; change ``data.kwargs.dim`` for another dimension.

    The standard deviation ``data.sigma_data`` is that of D = 8; it is 0.56 sqrt(8 / D) in D dimensions.
    """
    config = base_config()
    set_spec(config.data, spec("circles", dim=8))
    config.data.sigma_data = 0.56
    set_spec(config.model, spec("ResidualMLP", width=256, depth=4))
    config.optimizer.decay = "cosine"
    config.training.num_steps = 20_000
    config.training.batch_size = 512
    config.training.log_every = 500
    config.sampling.every = 5000
    config.sampling.num = 1024
    return with_variant(config, variant)
