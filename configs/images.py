"""Own images, a folder of files: ``configs/images.py:SYSTEM,blind|conditional[,paper|size64|size128]``.

The folder is ``--config.data.kwargs.path=FOLDER``; ``--config.data.kwargs.size=48`` asks for another size. The net
suits sizes around 32; ``size64`` and ``size128`` set the size and a net for it.
"""

from geonoise_jax.config import ConfigDict, base_config, spec
from geonoise_jax.systems import image_data, with_variant

_NET = {"base_channels": 64, "channel_multipliers": (1, 2, 2), "blocks_per_level": 2}
# A level more for each doubling, so that the attention in the middle sees 8x8 activations at every size.
_SIZES = {
    f"size{size}": {"data.kwargs.size": size, "model": spec("UNet", **{**_NET, "channel_multipliers": multipliers})}
    for size, multipliers in ((64, (1, 2, 2, 2)), (128, (1, 1, 2, 2, 2)))
}


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system; the same net and budget for all."""
    config = image_data(base_config(), "folder", **_NET)
    with config.unlocked():
        config.data.kwargs.update({"size": 32, "fit": "crop"})
    config.optimizer.learning_rate = 5e-4
    config.training.num_steps = 30_000
    config.training.batch_size = 64
    return with_variant(config, variant, _SIZES, bounded=True)
