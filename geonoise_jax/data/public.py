"""Prepare a public TFDS image set: needs TensorFlow once, and the network or files fetched by hand."""

from __future__ import annotations

import importlib.util
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from geonoise_jax.data import repacked
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


def manual_folder(builder: tfds.core.DatasetBuilder, given: str | Path | None = None) -> Path:
    """Return the folder of the files of a public set that were fetched by hand.

    Args:
      builder: of the data set.
      given: the folder that the user names, or None.

    Raises:
      ValueError: the folder that the user names is not there.
    """
    if given is None:
        return Path(builder.data_dir_root) / "downloads" / "manual"
    if not Path(given).is_dir():
        raise UserError(f"manual_dir = {str(given)!r}: must be a folder")
    return Path(given)


def needs(builder: tfds.core.DatasetBuilder) -> dict[str, str]:
    """Return what a public set is prepared from, and where, as lines with a name each."""
    files = [f"{info.filename or url} ({info.size})" for url, info in _registered(builder).items()]
    by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    return {
        "folder": str(builder.data_dir),
        **({"files": ", ".join(files)} if files else {}),
        "files by hand": f"{manual_folder(builder)}{': ' if by_hand else ''}{by_hand}",
    }


def download(builder: tfds.core.DatasetBuilder, file_format: str, manual: Path) -> None:
    """Download and write a public data set, with TFDS's own progress messages (this can take minutes).

    Args:
      builder: of the data set.
      file_format: of TFDS.
      manual: folder of files that were fetched by hand.

    Raises:
      ValueError: files are missing and their server cannot be reached.
    """
    manual = repacked.collect(builder.name, _registered(builder), manual, manual_folder(builder))
    _check_by_hand(builder, manual)
    _check_downloads(builder, manual)
    config = without_cloud()
    config.manual_dir = manual
    builder.download_and_prepare(file_format=file_format, download_config=config)


def without_cloud() -> tfds.download.DownloadConfig:
    """Return a TFDS configuration that does not look for ready-made copies in cloud storage."""
    import tensorflow_datasets as tfds

    return tfds.download.DownloadConfig(try_download_gcs=False)


def _check_by_hand(builder: tfds.core.DatasetBuilder, manual: Path) -> None:
    """Refuse a set whose files only a person can fetch, and that nobody has.

    Raises:
      ValueError: the message names the folder, with TFDS's instructions.
    """
    instructions = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if instructions and not (manual.is_dir() and any(manual.iterdir())):
        raise UserError(f"data set {builder.name!r} must be fetched by hand into {manual}: {instructions}")


def _check_downloads(builder: tfds.core.DatasetBuilder, manual: Path) -> None:
    """Refuse early what TFDS would find out after minutes of silent retries: missing files and no network.

    Raises:
      ValueError: the message names the files, their addresses and the folder to put them in.
    """
    missing = _missing(builder, manual)
    if missing and not _reachable(next(iter(missing))):
        wanted = ", ".join(f"{file} ({url})" for url, file in missing.items())
        raise UserError(
            f"data set {builder.name!r} cannot be downloaded: {next(iter(missing))} cannot be reached. Put these files "
            f"into {manual} and run again: {wanted}"
        )


def _registered(builder: tfds.core.DatasetBuilder) -> dict[str, tfds.download.checksums.UrlInfo]:
    """Return {address: file} of the downloads of a set, of its config alone where the names of its files tell."""
    found = dict(builder.url_infos or {})
    size = re.match(r"\d+", builder.builder_config.name) if builder.builder_config else None
    own = {url: info for url, info in found.items() if size and size[0] in str(info.filename)}
    return own or found


def _missing(builder: tfds.core.DatasetBuilder, manual: Path) -> dict[str, str]:
    """Return {address: file name} of the downloads that lie neither in TFDS's cache nor among those fetched by hand."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    folder = Path(builder.data_dir_root) / "downloads"
    present = {path.name for pattern in ("*", "*/*") for path in folder.glob(pattern)}
    present |= {path.name for path in manual.glob("*")}
    return {
        url: info.filename
        for url, info in _registered(builder).items()
        if info.filename and not present & {info.filename, get_dl_fname(url, info.checksum)}
    }


def _reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # the server answered: its refusal of HEAD is TFDS's business
    except OSError:
        return False
    return True
