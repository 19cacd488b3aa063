"""What samples are compared with: data that training did not see, and data that says how near one can come."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Float, Int

from geonoise_jax import build
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.numpy_files import npz_names
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import DRAWS, Distance, Measure, floor
from geonoise_jax.evaluation.moments import Moments, read_moments
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.point_files import as_events, read_points, space_of
from geonoise_jax.evaluation.point_sets import finite
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.training.workdir import check_data, facts_of

_MOMENTS = {"mu", "sigma"}
# Draws of a floor come from this many times as many points as there are samples, at least that many, or all there are.
_POOL, _LEAST_POOL = 4, 2000


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Points that samples are compared with.

    Attributes:
        title: what they are, a part of every protocol.
        held_out: m points in model space that training did not see; None where only moments are known.
        known: N points of the same law, of which draws give the floor; None where there are none.
        labels: classes of the latter.
        moments: published moments of features, in place of points.
        data: the held-out items as they are stored, and the training set, of a data set.
        seen: whether samples are compared with training items, and the floor is that of held-out ones.
    """

    title: str
    held_out: Float[np.ndarray, "m *event"] | None = None
    known: Float[np.ndarray, "N *event"] | None = None
    labels: Int[np.ndarray, "N"] | None = None
    moments: Moments | None = None
    data: tuple[Arrays, Arrays] | None = None
    seen: bool = False
    _floors: dict[tuple[object, ...], Distance] = dataclasses.field(default_factory=dict)

    @property
    def training(self) -> Float[np.ndarray, "N *event"] | None:
        """Items that training saw, of a data set; points of the law itself otherwise."""
        return self.held_out if self.seen else self.known

    def floor(
        self,
        key: tuple[object, ...],
        num: int,
        measure: Measure,
        points: Float[np.ndarray, "N *shape"] | None,
        like: Int[np.ndarray, "num"] | None,
    ) -> Distance | None:
        """Return the distance of ``num`` points of the law itself, over 20 draws; None where there are no such points.

        Args:
            key: what the measure is, by which the floor is kept for the next samples.
            num: points of a draw.
            measure: the distance of a set to the held-out points.
            points: :attr:`known`, or features of them.
            like: classes of the samples, which the draws then have too.
        """
        if points is None:
            return None
        classes = None if like is None else tuple(np.bincount(like))
        key = (*key, num, classes if self.labels is not None else None)
        if key not in self._floors:
            labels = None if like is None else self.labels
            like = None if labels is None else like
            self._floors[key] = floor(points, num, measure, labels=labels, like=like, draws=DRAWS)
        return self._floors[key]


def of_data(
    trained: Trained, folder: PurePath, held_out: str, num: int | None, samples: int, *, seen: bool = False
) -> Reference:
    """Return the data set of a run: a held-out split, and a part of the training split for the floors.

    Args:
        trained: the restored model.
        folder: its workdir, whose record the data are compared with.
        held_out: the split that training did not see.
        num: held-out items that are used, of all splits evenly spread; None for all.
        samples: number of samples that will be compared with them.
        seen: compare with the training split, as published Fréchet distances do, of which ``num`` items are used; the
            floor is that of the held-out split.

    Raises:
        UserError: if the data cannot be loaded, are other data than the run's, or training saw the held-out items.
    """
    if trained.config is None:
        raise UserError("data: the run is of own objects, whose data nothing here names; give them as a reference")
    training, other = build.arrays(trained.config), build.arrays(trained.config, held_out)
    check_data(folder, facts_of(training))
    check_held_out(held_out, build.model_points(training), build.model_points(other))
    classes = bool(trained.field.null_label)
    if not seen:
        return of_arrays(training, other, num, samples, classes=classes)
    used, labels = _evenly(training, num), other.labels if classes else None
    title = f"{used.name}/{used.split}, {len(used)} items that training saw; floor by {other.split}"
    return Reference(
        title, build.model_points(used), build.model_points(other), labels, data=(other, training), seen=True
    )


def of_arrays(training: Arrays, other: Arrays, num: int | None, samples: int, *, classes: bool = False) -> Reference:
    """Return held-out items, known to be such, and a part of the training set for the floors.

    Args:
        training: the training set.
        other: the held-out items.
        num: held-out items that are used, evenly spread; None for all.
        samples: number of samples that will be compared with them.
        classes: whether samples have classes, which the draws of floors then have too.
    """
    other = _evenly(other, num)
    pool = _evenly(training, max(_POOL * samples, _LEAST_POOL))
    labels = pool.labels if classes else None
    title = f"{other.name}/{other.split}, {len(other)} items"
    return Reference(title, build.model_points(other), build.model_points(pool), labels, data=(other, training))


def of_file(path: Path, trained: Trained) -> Reference:
    """Return the points of a file, or published moments (``mu`` and ``sigma``).

    Half of the points, chosen at random, are compared with; the other half gives the floor.

    Raises:
        UserError: if it is no such file, or its points are no events of the model.
    """
    given = f"reference = {str(path)!r}"
    if not path.exists():
        raise UserError(f"{given}: no such file or workdir")
    if path.suffix == ".npz" and set(npz_names(path, given)) >= _MOMENTS:
        return Reference(f"moments of {path.name}", moments=read_moments(path))
    facts = trained.facts
    scaling = None if facts.center is None or facts.scale is None else (facts.center, facts.scale)
    space = space_of(trained.config, trained.field.event_shape, scaling, reach=3.0)
    points = as_events(read_points(path, "reference"), space)
    return of_points(points, path.name)


def of_points(points: Float[np.ndarray, "n *event"], title: str) -> Reference:
    """Return points as a reference: one half is compared with, the other gives the floor.

    Raises:
        UserError: if there are fewer than 4, or some are not finite.
    """
    bad = int((~finite(points)).sum())
    if len(points) < 4 or bad:
        raise UserError(f"reference: {len(points)} points of {title}, {bad} not finite; must be at least 4, all finite")
    order = np.random.default_rng(0).permutation(len(points))
    half = len(points) // 2
    return Reference(f"{title}, {half} of {len(points)} points", points[order[:half]], points[order[half:]])


def _evenly(data: Arrays, num: int | None) -> Arrays:
    """Return at most so many items, evenly spread."""
    if num is None or num >= len(data):
        return data
    rows = np.linspace(0, len(data) - 1, num).round().astype(int)
    labels = None if data.labels is None else data.labels[rows]
    return dataclasses.replace(data, events=data.events[rows], labels=labels)
