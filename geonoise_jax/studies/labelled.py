"""Data with classes, class-conditional networks, and which class their samples are of."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict
from sklearn.neighbors import KNeighborsClassifier

from geonoise_jax import build
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation import point_sets
from geonoise_jax.evaluation.restore import Trained, restore

_NEIGHBOURS = 5


class Labelled(NamedTuple):
    """One split in model space, the items that have a class, and their classes."""

    x: Float[np.ndarray, "n *event"]
    labels: Int[np.ndarray, "n"]


def labelled(chosen: ConfigDict, split: str | None) -> Labelled:
    """Return the items of a split that have a class; of training if it is None."""
    data = build.arrays(chosen, split)
    labels = np.asarray(data.labels)
    return Labelled(build.model_points(data)[labels >= 0], labels[labels >= 0])


def class_conditional(folder: Path) -> Trained:
    """Restore a network that was trained with and without classes.

    Raises:
        ValueError: if it was not.
    """
    trained = restore(folder)
    if trained.field.null_label is None or not trained.config.model.label_dropout > 0.0:
        raise UserError(f"workdir = {str(folder)!r}: must hold a class-conditional model with model.label_dropout > 0")
    return trained


class Neighbours:
    """The class of the majority of the nearest known items."""

    def __init__(self, known: Labelled) -> None:
        """Take the known items."""
        self._classifier = KNeighborsClassifier(_NEIGHBOURS).fit(flat(known.x), known.labels)

    def hits(self, x: Float[np.ndarray, "n *event"], labels: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Return whether each point is of its class; what is not finite is of none."""
        told = self._classifier.predict(flat(np.nan_to_num(x)))
        return np.asarray(point_sets.finite(x) & (told == labels))


def flat(x: Float[np.ndarray, "n *event"]) -> Float[np.ndarray, "n d"]:
    """Return points as rows."""
    return x.reshape(len(x), -1)
