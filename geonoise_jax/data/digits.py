"""TFDS builder `digits`: the 1,797 handwritten digits of 8x8 pixels that scikit-learn ships.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part, written by 13 people). Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

NUM_TEST = 360
# Seed of the split. Changing it changes the data set: raise `Digits.VERSION` with it.
SPLIT_SEED = 0


def split_rows(labels: Int[np.ndarray, "N"]) -> dict[str, Int[np.ndarray, "M"]]:
    """Divide the rows into `train` (all but 360) and `test` (360) with the class frequencies of the whole.

    Args:
      labels: class of each row.

    Returns:
      Row numbers of each split: disjoint, together all rows, the same in every call.
    """
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=NUM_TEST, stratify=labels, random_state=SPLIT_SEED)
    return {"train": np.sort(train), "test": np.sort(test)}


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits with features `image` (uint8 [8, 8, 1], values 0..16) and `label` (0..9).

    Splits `train` (1,437) and `test` (360), stratified by class. Needs no TensorFlow as long as
    `file_format="array_record"`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        # A Tensor feature in bytes: TFDS's Image feature can only be written with TensorFlow.
        image = tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels with 17 grey levels, 0 (paper) to 16 (ink).",
            features=tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=10)}),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        from sklearn.datasets import load_digits

        del dl_manager  # nothing to download
        digits = load_digits()
        images = digits.images.astype(np.uint8)[..., None]
        return {
            split: self._generate_examples(rows, images, digits.target)
            for split, rows in split_rows(digits.target).items()
        }

    def _generate_examples(
        self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for row in rows.tolist():
            yield row, {"image": images[row], "label": int(labels[row])}
