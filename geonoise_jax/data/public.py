"""Prepare a public TFDS image set: needs TensorFlow once, and the network or files fetched by hand."""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from geonoise_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_TIMEOUT_SECONDS = 10.0


def is_of_tfds(builder: tfds.core.DatasetBuilder) -> bool:
    """Return whether a builder is one of TFDS's own, which need TensorFlow to write; others may not."""
    return type(builder).__module__.startswith("tensorflow_datasets.")


def require_tensorflow(builder: tfds.core.DatasetBuilder, file_format: str) -> None:
    """Raise ValueError, saying what to do, where TensorFlow is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"data set {builder.name!r} is not prepared in {builder.data_dir}, and preparing it needs TensorFlow "
            "(reading it does not). Install the extra `tfds` of this package, in a clone with `pip install '.[tfds]'`, "
            f"and run again; or prepare it elsewhere with `tfds build {builder.name} --file_format={file_format}` and "
            "copy the folder here."
        )


def download(builder: tfds.core.DatasetBuilder, file_format: str) -> None:
    """Download and write a public data set, with TFDS's own progress messages (this can take minutes).

    Raises:
      ValueError: files are missing and their server cannot be reached.
    """
    _check_downloads(builder, Path(builder.data_dir_root) / "downloads")
    builder.download_and_prepare(file_format=file_format, download_config=without_cloud())


def without_cloud() -> tfds.download.DownloadConfig:
    """Return a TFDS configuration that does not look for ready-made copies in cloud storage."""
    import tensorflow_datasets as tfds

    return tfds.download.DownloadConfig(try_download_gcs=False)


def _check_downloads(builder: tfds.core.DatasetBuilder, folder: Path) -> None:
    """Refuse early what TFDS would find out after minutes of silent retries: missing files and no network.

    Raises:
      ValueError: the message names the files, their addresses and the folder to put them in.
    """
    missing = _missing(builder, folder)
    if missing and not _reachable(next(iter(missing))):
        wanted = ", ".join(f"{file} ({url})" for url, file in missing.items())
        raise UserError(
            f"data set {builder.name!r} cannot be downloaded: {next(iter(missing))} cannot be reached. Put these files "
            f"into {folder / 'manual'} and run again: {wanted}"
        )


def _missing(builder: tfds.core.DatasetBuilder, folder: Path) -> dict[str, str]:
    """Return {address: file name} of the registered downloads that lie neither in TFDS's cache nor in `manual`."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    present = {path.name for pattern in ("*", "*/*") for path in folder.glob(pattern)}
    registered = (builder.url_infos or {}).items()
    return {
        url: info.filename
        for url, info in registered
        if not present & {info.filename, get_dl_fname(url, info.checksum)}
    }


def _reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # the server answered: its refusal of HEAD is TFDS's business
    except OSError:
        return False
    return True
