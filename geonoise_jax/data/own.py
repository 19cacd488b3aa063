"""The user's own data by name: `folder`, `npy` and `npz`, with their keyword arguments."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int32, Shaped

from geonoise_jax.data.folders import Folder
from geonoise_jax.data.numpy_files import Npy, Npz
from geonoise_jax.data.rows import Reader
from geonoise_jax.data.splits import Part
from geonoise_jax.errors import UserError

KINDS: dict[str, type[Folder] | type[Npy] | type[Npz]] = {"folder": Folder, "npy": Npy, "npz": Npz}


class Source(Protocol):
    """A data set that has been found, and is read by parts of its splits."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of items of each split."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype as stored."""

    @property
    def classes(self) -> int | None:
        """Number of classes, None without labels."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, None where they have none."""

    def read(
        self, spec: str, parts: Sequence[Part]
    ) -> tuple[Shaped[np.ndarray, "N *event"], Int32[np.ndarray, "N"] | None]:
        """Read items and labels of the parts that a spec names; there is memory for them."""

    def reader(self, spec: str, parts: Sequence[Part]) -> Reader:
        """Return what reads single items of the parts that a spec names, in the order of `read`.

        Raises:
          NoReaderError: items cannot be read one by one.
        """


def open_own(name: str, kwargs: Mapping[str, Any], data_dir: str | Path | None) -> Source:
    """Return the source of one of `KINDS`.

    Args:
      name: a key of `KINDS`.
      kwargs: its fields.
      data_dir: must be None: own data have a path.

    Raises:
      ValueError: an unknown, missing or bad argument.
    """
    kind = KINDS[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in kwargs:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(fields)}"
            raise UserError(f"data.kwargs.{key}: no argument of data set {name!r}; {hint}")
    if "path" not in kwargs:
        raise UserError(f"data.kwargs.path: must be given for data set {name!r}: {kind.PATH}")
    if data_dir is not None:
        raise UserError(f"data.data_dir = {str(data_dir)!r}: has no effect on data set {name!r}; give data.kwargs.path")
    return kind(**kwargs)
