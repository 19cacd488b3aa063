"""Open a data set, one of TFDS or the user's own files: in memory, or read as needed where it does not fit."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Shaped

from geonoise_jax.data import in_memory, memory, own, ranges, splits
from geonoise_jax.data.array_records import ArrayRecords
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.pipeline import PLACEMENTS, resolved
from geonoise_jax.data.prepare import FORMAT, OWN, prepare, unprepared
from geonoise_jax.data.rows import CHUNK, NoReaderError, Reader, Streamed, columns
from geonoise_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_LOG = logging.getLogger(__name__)
_EVENT_KEYS = ("image", "point")


def load_arrays(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
    value_range: Sequence[float] = (),
    placement: str = "auto",
    sharing: int = 1,
) -> Arrays:
    """Open one split of a data set, preparing its files first if need be.

    Args:
      name: `digits`, `circles`, or a TFDS data set with features `image` (uint8, one shape) and perhaps `label`; or
        `folder`, `npy` or `npz` for own files.
      split: a TFDS split, e.g. `train`, `test` or `train[:80%]`; own files are sliced likewise.
      data_dir: root folder; TFDS's default when None. Own files have none.
      builder_kwargs: see `prepare`; for own files the fields of `Folder`, `Npy` or `Npz`.
      value_range: the stored values that become -1 and 1 in model space. () means 0 and 255 (16 for `digits`) for
        uint8; floats are then left as they are, and images must be in [-1, 1].
      placement: one of `pipeline.PLACEMENTS`: with `stream` items are read when they are asked for, with `auto` if they
        do not fit into the memory that a process may take, and otherwise all of them now.
      sharing: number of processes on this machine that open it, which share the memory.

    Returns:
      The items in the order of the files (the same on every machine), in their stored dtype, with their scaling.

    Raises:
      ValueError: see `prepare`, `own` and `Arrays`; also an unknown or empty split, another file format, other
        features, more data than memory, or images whose values do not fill the range that they are taken to have (the
        message gives the range found).
    """
    if placement not in PLACEMENTS:
        raise UserError(f"data.placement = {placement!r}: must be one of {', '.join(PLACEMENTS)}")
    source = _open(name, data_dir, builder_kwargs)
    parts = splits.resolve(name, split, source.sizes)
    scale = ranges.scaling(name, source.dtype, value_range)  # refuses before anything is read
    reader = _reader(source, split, parts, placement, sharing)
    if reader is None:
        events, labels = source.read(split, parts)
    else:
        events, labels = columns(Streamed(reader, f"{name}/{split}", *scale, source.classes))
    return in_memory.assemble(
        events,
        labels,
        value_range=value_range,
        num_classes=source.classes,
        class_names=source.class_names,
        name=name,
        split=split,
    )


def _reader(
    source: own.Source, split: str, parts: Sequence[splits.Part], placement: str, sharing: int
) -> Reader | None:
    """Return what reads single items of a source that is not to be held in memory, or None for one that is."""
    num, shape, dtype = sum(stop - start for _, start, stop in parts), source.shape, source.dtype
    nbytes, share = num * math.prod(shape) * dtype.itemsize, memory.share(sharing)
    what = f"{num} items of shape {list(shape)}, {dtype}"
    way_out = "read a part, such as data.split = 'train[:10%]', or let data.placement be stream"
    if resolved(placement, nbytes, share=share) == "stream":
        try:
            reader = source.reader(split, parts)
        except NoReaderError as error:
            if placement == "stream":
                raise
            way_out = f"read a part, such as data.split = 'train[:10%]'; {error}"
        else:
            if placement == "auto":
                held = f"of which this process may hold {memory.in_words(share or 0)}"
                _LOG.info("%s: %s, %s: read from their files as they are needed", what, memory.in_words(nbytes), held)
            return reader
    memory.require(nbytes, what, way_out)
    return None


def scaling(
    name: str,
    *,
    data_dir: str | Path | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
    value_range: Sequence[float] = (),
) -> tuple[float, float]:
    """Return center and scale of a data set's `Arrays` without reading it; arguments and errors as `load_arrays`."""
    return ranges.scaling(name, _open(name, data_dir, builder_kwargs).dtype, value_range)


def split_sizes(
    name: str, *, data_dir: str | Path | None = None, builder_kwargs: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Return the number of items of each split of a data set; arguments and errors as `load_arrays`."""
    return dict(_open(name, data_dir, builder_kwargs).sizes)


def unread(
    name: str, *, data_dir: str | Path | None = None, builder_kwargs: Mapping[str, Any] | None = None
) -> own.Source:
    """Return what is known of a data set without fetching it: a public one that is not prepared has no sizes.

    Arguments and errors as `load_arrays`.
    """
    if name in own.KINDS or name in OWN:
        return _open(name, data_dir, builder_kwargs)
    return _Prepared(unprepared(name, data_dir=data_dir, builder_kwargs=builder_kwargs))


def _open(name: str, data_dir: str | Path | None, kwargs: Mapping[str, Any] | None) -> own.Source:
    if name in own.KINDS:
        return own.open_own(name, kwargs or {}, data_dir)
    return _Prepared(prepare(name, data_dir=data_dir, builder_kwargs=kwargs))


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A prepared TFDS data set, see `own.Source`."""

    builder: tfds.core.DatasetBuilder

    @property
    def sizes(self) -> Mapping[str, int]:
        return {split: info.num_examples for split, info in self.builder.info.splits.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.builder.info.features[self._key].shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.builder.info.features[self._key].np_dtype)

    @property
    def classes(self) -> int | None:
        features = self.builder.info.features
        return getattr(features["label"], "num_classes", None) if "label" in features else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        names = getattr(self.builder.info.features["label"], "names", None) if self.classes else None
        return tuple(names) if names and len(names) == self.classes else None

    def read(
        self, spec: str, parts: Sequence[splits.Part]
    ) -> tuple[Shaped[np.ndarray, "N *event"], Int32[np.ndarray, "N"] | None]:
        """Read by chunks, so that only the arrays grow with the data set."""
        records = self.reader(spec, parts)
        events = np.empty((records.num, *self.shape), self.dtype)
        labels = np.empty(records.num, np.int32) if self.classes else None
        for start in range(0, records.num, CHUNK):
            rows = slice(start, min(start + CHUNK, records.num))
            events[rows], some = records.read(np.arange(rows.start, rows.stop))
            if labels is not None and some is not None:
                labels[rows] = some
        return events, labels

    def reader(self, spec: str, parts: Sequence[splits.Part]) -> ArrayRecords:
        """Return what reads single items, from the record files themselves."""
        del parts
        files = self.builder.info.splits[spec].file_instructions
        return ArrayRecords(self._source(spec), files, self._key, self.shape, self.dtype, labelled=bool(self.classes))

    @property
    def _key(self) -> str:
        features = self.builder.info.features
        key = next((key for key in _EVENT_KEYS if key in features), None)
        if key is None or None in features[key].shape:
            found = ", ".join(f"{name} {list(feature.shape or ())}" for name, feature in features.items())
            raise UserError(
                f"data set {self.builder.name!r} must have a feature {' or '.join(_EVENT_KEYS)} of one shape, "
                f"got {found}"
            )
        return key

    def _source(self, spec: str) -> Any:
        try:
            return self.builder.as_data_source(spec)
        except NotImplementedError:
            raise UserError(
                f"data set {self.builder.name!r} in {self.builder.data_dir} must be in the format {FORMAT}, but is in "
                f"{self.builder.info.file_format.value}: delete the folder or give another data_dir"
            ) from None
