"""Find a data set by name and make sure that it lies prepared on disk, once, whoever asks first."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging
from filelock import FileLock

from geonoise_jax.data import names, public
from geonoise_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Data sets of this package: they need neither a download nor TensorFlow.
OWN = ("circles", "digits")
FORMAT = "array_record"
# Standard output and the verbosity belong to the whole process: threads that mute them take turns.
_MUTING = threading.RLock()


def prepare(
    name: str,
    *,
    data_dir: str | Path | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
    manual_dir: str | Path | None = None,
) -> tfds.core.DatasetBuilder:
    """Return the TFDS builder of a data set whose files are on disk, writing them first if they are not.

    Safe to call from every process of a run at once, on one machine or many: a file lock lets one process per disk
    write while the others wait and then find the work done. Where a network disk does not share locks between hosts,
    TFDS writes into a temporary folder and renames it, so the first to finish wins.

    Args:
      name: `digits`, `circles` or a TFDS name, e.g. `fashion_mnist` or `downsampled_imagenet/32x32`; also that of a
        builder which the calling program has defined.
      data_dir: root folder; TFDS's default (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`) when None.
      builder_kwargs: for `circles` the fields of `CirclesSpec`, for TFDS names the builder's `config` and `version`.
      manual_dir: folder of files that were fetched by hand, of a public set; `data_dir/downloads/manual` when None.

    Raises:
      ValueError: unknown name or keyword, no such folder, or a public data set that cannot be prepared here (the
        message says how).
    """
    names.check_folder(data_dir)
    builder = _builder(name, data_dir, builder_kwargs)
    if not _is_prepared(builder):  # before the lock: a read-only data folder is fine
        manual = public.manual_folder(builder, manual_dir)
        if public.is_of_tfds(builder):
            public.require_tensorflow(builder, FORMAT)
        with _locked(Path(builder.data_dir_root) / builder.name):
            if not _is_prepared(builder):  # another process may have been faster
                _write(builder, manual)
    # A builder reads its metadata when it is made: one made before the files were complete knows of no splits.
    return _builder(name, data_dir, builder_kwargs)


def described(name: str, *, data_dir: str | Path | None = None) -> tuple[bool, dict[str, str]]:
    """Return whether a data set is prepared, and what there is to say of it without preparing it.

    Args:
      name: see `prepare`.
      data_dir: see `prepare`.

    Returns:
      The second is empty for data sets that need no files.

    Raises:
      ValueError: see `prepare`.
    """
    names.check_folder(data_dir)
    builder = _builder(name, data_dir, None)
    return _is_prepared(builder), public.needs(builder) if public.is_of_tfds(builder) else {}


def _write(builder: tfds.core.DatasetBuilder, manual: Path) -> None:
    """Write the files of `builder`, in TFDS's temporary folder that is renamed when complete.

    Raises:
      ValueError: see `prepare`; also when the folder is there but is not a complete data set.
    """
    if Path(builder.data_dir).exists() and not _is_prepared(builder):
        raise UserError(f"data set folder {builder.data_dir} is incomplete: delete it and run again")
    try:
        if public.is_of_tfds(builder):
            public.download(builder, FORMAT, manual)
        else:
            with _quiet(), _without_progress_bar():
                builder.download_and_prepare(file_format=FORMAT, download_config=public.without_cloud())
    except ImportError as error:
        raise UserError(
            f"data set {builder.name!r} cannot be prepared without {_missing(error)}, which is not installed; TFDS's "
            "Tensor and ClassLabel features need no TensorFlow"
        ) from error
    except OSError:
        # The rename fails when a host that does not see our lock was faster.
        if not _is_prepared(builder):
            raise


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    with _quiet():
        return builder.is_prepared()


def _builder(
    name: str, data_dir: str | Path | None, builder_kwargs: Mapping[str, Any] | None
) -> tfds.core.DatasetBuilder:
    """Make the builder object of a name; reads at most its metadata. Raises ValueError as `prepare` does."""
    kwargs = dict(builder_kwargs or {})
    with _quiet():
        if name == "digits":
            return _digits(data_dir, kwargs)
        if name == "circles":
            return _circles(data_dir, kwargs)
        return _public(name, data_dir, kwargs)


def _digits(data_dir: str | Path | None, kwargs: dict[str, Any]) -> tfds.core.DatasetBuilder:
    from geonoise_jax.data.digits import Digits

    _check_keywords("digits", kwargs, ())
    return Digits(data_dir=data_dir, file_format=FORMAT)


def _circles(data_dir: str | Path | None, kwargs: dict[str, Any]) -> tfds.core.DatasetBuilder:
    from geonoise_jax.data.circles import Circles, CirclesSpec

    _check_keywords("circles", kwargs, tuple(field.name for field in dataclasses.fields(CirclesSpec)))
    return Circles.of(CirclesSpec(**kwargs), data_dir=data_dir, file_format=FORMAT)


def _public(name: str, data_dir: str | Path | None, kwargs: dict[str, Any]) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils.file_utils import list_data_dirs

    names.check_name(name, kwargs)
    names.check_features(list_data_dirs(None if data_dir is None else str(data_dir)), name)
    try:
        return tfds.builder(name, data_dir=data_dir, try_gcs=False, **kwargs)
    except tfds.core.DatasetNotFoundError:
        known = sorted({*OWN, *tfds.list_builders(with_community_datasets=False)})
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(OWN)} and the names of TFDS."
        raise UserError(f"unknown data set {name!r}: {hint}") from None
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise UserError(f"data set {name!r} with {kwargs} is not available here: {first_line(error)}") from error


def _missing(error: BaseException) -> str:
    """Return the library that could not be imported; TFDS wraps the error."""
    names: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        names += [cause.name] if isinstance(cause, ImportError) and cause.name else []
        cause = cause.__cause__ or cause.__context__
    return names[-1] if names else "a library"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind: TFDS writes many."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _check_keywords(name: str, kwargs: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    unknown = sorted(set(kwargs) - set(allowed))
    if unknown:
        raise UserError(f"builder_kwargs of {name} must be among {list(allowed)}, got {unknown}")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it even when the process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Mute TFDS's messages, which are meant for long downloads; errors still raise.

    The standard error stream is left alone: redirecting it would bind logging handlers made meanwhile to the sink.
    """
    with _MUTING:
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _without_progress_bar() -> Iterator[None]:
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)
