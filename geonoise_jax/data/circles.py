"""TFDS builder `circles`: concentric circles in a random plane of R^D (see `circle_points`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from geonoise_jax.data.circle_points import SPLITS, CirclesSpec, circles_frame

__all__ = ["Circles", "CirclesConfig", "CirclesSpec", "circles_frame"]

# The ambient dimensions of the paper's experiment.
_PAPER_DIMS = (2, 8, 32, 128)


class CirclesConfig(tfds.core.BuilderConfig):
    """One set of circles as a TFDS config: its name is derived from the parameters, so each set has its own folder.

    Attributes:
      spec: the parameters.
    """

    def __init__(self, spec: CirclesSpec) -> None:
        super().__init__(name=spec.name, description=f"Circles of radii {spec.radii} in R^{spec.dim}.")
        self.spec = spec


class Circles(tfds.core.GeneratorBasedBuilder):
    """Points on concentric circles, with features `point` (float32 [D]) and `label` (the circle).

    `Circles.of(spec)` makes the builder of any parameters; `tfds.builder("circles")` is the default set in the plane.
    Needs no TensorFlow as long as `file_format="array_record"`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[CirclesConfig]] = [CirclesConfig(CirclesSpec(dim=dim)) for dim in _PAPER_DIMS]

    @classmethod
    def of(cls, spec: CirclesSpec, **kwargs: Any) -> Circles:
        """Return the builder of `spec`; further keywords (`data_dir`, `file_format`) go to TFDS."""
        # TFDS refuses a second config object under the name of a predefined one.
        return cls(config=cls.builder_configs.get(spec.name) or CirclesConfig(spec), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        spec = self.builder_config.spec
        # Bytes are written and read faster than the list of numbers that TFDS stores by default.
        point = tfds.features.Tensor(shape=(spec.dim,), dtype=np.float32, encoding=tfds.features.Encoding.BYTES)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Concentric circles of several radii in a random plane of R^D.",
            features=tfds.features.FeaturesDict(
                {"point": point, "label": tfds.features.ClassLabel(num_classes=len(spec.radii))}
            ),
            supervised_keys=("point", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
        points, labels = self.builder_config.spec.draw(split)
        for key, (point, label) in enumerate(zip(points, labels.tolist(), strict=True)):
            yield key, {"point": point, "label": label}
