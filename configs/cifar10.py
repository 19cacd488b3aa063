"""CIFAR-10, 50,000 images of 32x32x3: ``configs/cifar10.py:SYSTEM,blind|conditional[,paper|sun]``.

``sun`` is the recipe of Sun et al. (2025, "Is noise conditioning necessary for denoising generative models?") as far as
it is published, for the systems that they trained: flow_matching, ddpm, edm and uedm. Their network is EDM's NCSN++,
of which the U-Net here has width, depth and attention; edm and uedm have EDM's augmentation.
"""

from geonoise_jax.config import ConfigDict, base_config, spec
from geonoise_jax.systems import SYSTEMS, Changes, image_data, with_variant

_IMAGES = 50_000
_NET = {
    "base_channels": 128,
    "channel_multipliers": (2, 2, 2),
    "blocks_per_level": 4,
    "attention_resolutions": (16,),
}
# Batch, epochs, learning rate, dropout, beta2, half-life of the average in millions of images, and whether augmented.
_SUN = {
    "flow_matching": (2048, 2000, 8e-4, 0.15, 0.95, 50.0, False),
    "ddpm": (512, 2000, 4e-4, 0.1, 0.95, 50.0, False),
    "edm": (512, 4000, 1e-3, 0.13, 0.999, 0.5, True),
    "uedm": (512, 4000, 1e-3, 0.13, 0.999, 0.5, True),
}


def get_config(variant: str = "flow_matching,blind") -> ConfigDict:
    """Return the config of one system; the same net and budget for all but the published recipes."""
    net = {"base_channels": 128, "channel_multipliers": (1, 2, 2), "blocks_per_level": 2}
    config = image_data(base_config(), "cifar10", flip=True, attention_resolutions=(16,), dropout=0.1, **net)
    config.optimizer.learning_rate = 2e-4
    config.training.num_steps = 200_000
    config.training.batch_size = 256
    words = [word.strip() for word in variant.split(",")]
    system = next((word for word in words if word in SYSTEMS), "flow_matching")
    return with_variant(config, variant, recipes={"sun": _sun(*_SUN[system])} if system in _SUN else {}, bounded=True)


def _sun(
    batch: int, epochs: int, rate: float, dropout: float, beta2: float, half_life: float, augmented: bool
) -> Changes:
    steps_per_epoch = _IMAGES / batch
    # Its mirror images are told from the others.
    augment = {"data.augment": spec("edm", probability=0.12), "data.flip": False} if augmented else {}
    return {
        **augment,
        "model.kwargs.dropout": dropout,
        **{f"model.kwargs.{name}": value for name, value in _NET.items()},
        "optimizer": spec("adamw", weight_decay=0.0, b2=beta2),
        "optimizer.learning_rate": rate,
        "optimizer.clip_norm": 0.0,
        "optimizer.warmup_steps": round(200 * steps_per_epoch),
        "ema": spec("ramped", half_life=half_life * 1e6 / batch, ramp=0.05),
        "training.batch_size": batch,
        "training.num_steps": round(epochs * steps_per_epoch),
    }
