"""Networks of features by the words of an option, and features that are kept."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from geonoise_jax import files
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.features import (
    FeatureNetwork,
    Features,
    efficientnet_lite0,
    extract,
    inception,
    train_classifier,
    weights,
)
from geonoise_jax.evaluation.reference import Reference
from geonoise_jax.progress import Progress

DEFAULT = "efficientnet_lite0:112"
NAMES = ("efficientnet_lite0", "inception", "classifier")
_DIGITS = 10
_CHUNK = 512
# Images that are brought to the network at once.
_BATCH = 64


def network(words: str, reference: Reference | None) -> FeatureNetwork:
    """Return a network of features.

    Args:
        words: ``efficientnet_lite0[:SIZE]``, ``inception[:PROTOCOL]`` or ``classifier``, which learns the data at hand.
        reference: the data, for the latter.

    Raises:
        UserError: if there is no such network, or its weights are not here, saying where to put them.
    """
    name, _, detail = words.partition(":")
    if name == "efficientnet_lite0" and re.fullmatch(r"[1-9]\d*|", detail):
        return efficientnet_lite0(size=int(detail)) if detail else efficientnet_lite0()
    if name == "inception":
        return inception(detail) if detail else inception()
    if words == "classifier":
        if reference is None or reference.data is None:
            raise UserError("features = classifier: needs the data set of the run, with classes, to learn from")
        held_out, training = reference.data
        return train_classifier(training, held_out)
    raise refused("features", words, f"one of {', '.join(NAMES)}, such as {DEFAULT} or inception:pytorch_fid")


def installed() -> bool:
    """Return whether the default network has its weights."""
    try:
        weights.efficientnet_lite0()
    except UserError:
        return False
    return True


class Extractor:
    """Features of images by one network, kept where they were found.

    Args:
        net: the network.
        mesh: devices to split batches over.
    """

    def __init__(self, net: FeatureNetwork, mesh: Mesh | None) -> None:
        self.network = net
        self._mesh = mesh
        self._digest = hashlib.sha256(net.protocol.encode()).hexdigest()[:_DIGITS]

    def of_kept(self, samples: Kept, num: int) -> tuple[Float[np.ndarray, "num d"], Float[np.ndarray, "num k"] | None]:
        """Return features and logits of the first samples, NaN where a sample is not finite, in memory of a batch.

        They are kept beside the samples.
        """
        kept = Kept(samples.folder / f"features-{self._digest}")
        with self._progress(f"features ({self.network.name})", num, kept.held) as progress:
            done = 0
            for batch in samples.batches(num):
                images = batch["x"]
                missing = images[max(kept.held - done, 0) :]
                if len(missing):
                    kept.add(_arrays(self._extract(missing)))
                done += len(images)
                progress.update(min(done, num))
        logits = kept.read("logits", num) if self.network.num_classes else None
        return kept.read("features", num), logits

    def of_reference(
        self, images: Float[np.ndarray, "n h w c"], title: str
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n k"] | None]:
        """Return features and logits of images that other workdirs are compared with too, kept in the user's cache."""
        what = hashlib.sha256(self.network.protocol.encode())
        what.update(repr((images.shape, str(images.dtype))).encode())
        what.update(np.ascontiguousarray(images).data)
        kept = Kept(files.cache_folder() / "features" / what.hexdigest()[: 2 * _DIGITS])
        files.usable_folder(kept.folder, "cache")
        with self._progress(f"features of {title}", len(images), kept.held) as progress:
            while kept.held < len(images):
                kept.add(_arrays(self._extract(images[kept.held : kept.held + _CHUNK])))
                progress.update(kept.held)
        logits = kept.read("logits", len(images)) if self.network.num_classes else None
        return kept.read("features", len(images)), logits

    def _extract(self, images: Float[np.ndarray, "n h w c"]) -> Features:
        return extract(self.network, images, batch_size=_BATCH, mesh=self._mesh, not_finite="mark")

    @contextlib.contextmanager
    def _progress(self, label: str, total: int, start: int) -> Iterator[Progress]:
        progress = Progress(label, total, "images", start=min(start, total))
        with contextlib.closing(progress):
            yield progress


def _arrays(found: Features) -> dict[str, np.ndarray]:
    return {"features": found.features, **({} if found.logits is None else {"logits": found.logits})}
