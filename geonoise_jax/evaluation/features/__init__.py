"""Features of images, by which sets of them are compared: networks, their input pipelines, and extraction over a mesh.

network = efficientnet_lite0(size=112)     # or inception("edm"), or train_classifier(train, held_out)
found = extract(network, images, mesh=mesh)
found.features                             # float32 [N, 1280]
network.protocol                           # what the numbers depend on
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonoise_jax import lazy as _lazy

if TYPE_CHECKING:
    from geonoise_jax.evaluation.features.classifier import Settings as Settings
    from geonoise_jax.evaluation.features.classifier import train_classifier as train_classifier
    from geonoise_jax.evaluation.features.extraction import Features as Features
    from geonoise_jax.evaluation.features.extraction import extract as extract
    from geonoise_jax.evaluation.features.extraction import stream as stream
    from geonoise_jax.evaluation.features.network import FeatureNetwork as FeatureNetwork
    from geonoise_jax.evaluation.features.pretrained import efficientnet_lite0 as efficientnet_lite0
    from geonoise_jax.evaluation.features.pretrained import inception as inception
    from geonoise_jax.evaluation.features.protocols import INCEPTION as INCEPTION
    from geonoise_jax.evaluation.features.protocols import Protocol as Protocol
else:
    __getattr__, __dir__ = _lazy.exports(
        __name__,
        {
            f"{__name__}.classifier": ("Settings", "train_classifier"),
            f"{__name__}.extraction": ("Features", "extract", "stream"),
            f"{__name__}.network": ("FeatureNetwork",),
            f"{__name__}.pretrained": ("efficientnet_lite0", "inception"),
            f"{__name__}.protocols": ("INCEPTION", "Protocol"),
        },
    )
