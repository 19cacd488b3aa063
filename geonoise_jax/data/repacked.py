"""Files of public sets that a distribution packed again, with the bytes that the data set registers.

Debian's package ``dataset-fashion-mnist`` holds the archives of Fashion-MNIST without the names and the times in their
headers (RFC 1952, section 2.3), so that their checksums are others. The compressed data are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from geonoise_jax import files

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

FOLDERS = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
# When the files in the archives were changed, in seconds since 1970.
_MODIFIED = {
    "train-images-idx3-ubyte.gz": 1504176606,
    "train-labels-idx1-ubyte.gz": 1504176606,
    "t10k-images-idx3-ubyte.gz": 1504176627,
    "t10k-labels-idx1-ubyte.gz": 1504176627,
}
# A header without a name, and one with: magic number, deflate, flags, time, extra flags (none), system (Unix).
_PLAIN, _NAMED = b"\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x08"
_HEADER_BYTES = 10


def collect(name: str, registered: Mapping[str, tfds.download.checksums.UrlInfo], manual: Path, writable: Path) -> Path:
    """Return a folder with the files of a data set as it registers them, where repacked ones are at hand.

    Args:
      name: of the data set.
      registered: the files that the data set registers, by address.
      manual: the folder of files that were fetched by hand.
      writable: the folder that files with their first header are written into.

    Returns:
      ``writable`` if repacked files were found in ``manual`` or where the distribution has them, else ``manual``.
    """
    folders = [folder for folder in (manual, FOLDERS.get(name)) if folder is not None]
    found = {}
    for info in registered.values():
        contents = (_as_registered(folder / str(info.filename), info.checksum) for folder in folders)
        found[info.filename] = next((content for content in contents if content is not None), None)
    if not any(content for content in found.values()):
        return manual
    writable.mkdir(parents=True, exist_ok=True)
    for filename, content in found.items():
        if content is not None:
            with files.replacing(writable / filename) as file:
                file.write(content)
    return writable


def with_header(content: bytes, filename: str) -> bytes:
    """Return a gzip archive without a name in its header as upstream packed it, with name and time."""
    stem = filename.removesuffix(".gz").encode()
    time = _MODIFIED[filename].to_bytes(4, "little")
    return _NAMED + time + b"\x00\x03" + stem + b"\x00" + content[_HEADER_BYTES:]


def _as_registered(path: Path, checksum: str) -> bytes | None:
    """Return the bytes of one of the known files with the registered checksum, or None."""
    if path.name not in _MODIFIED or not path.is_file():
        return None
    content = path.read_bytes()
    candidates = [content, with_header(content, path.name)] if content.startswith(_PLAIN) else [content]
    return next((bytes_ for bytes_ in candidates if hashlib.sha256(bytes_).hexdigest() == checksum), None)
