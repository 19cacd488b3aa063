"""Which files of a folder are images, of which split and class, in an order that no file system decides."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from geonoise_jax.data.arrays import NO_CLASS
from geonoise_jax.data.images import SUFFIXES, UNREAD_SUFFIXES
from geonoise_jax.errors import UserError

_LOG = logging.getLogger(__name__)
# Sub-folders of these names are splits, not classes.
SPLITS = ("train", "test", "val", "valid", "validation", "dev", "eval")


@dataclasses.dataclass(frozen=True)
class Tree:
    """The image files of a folder.

    Attributes:
      files: files of each split with the class of each (-1: none), in the order of their items.
      class_names: sub-folders with images, sorted; empty without classes.
    """

    files: dict[str, list[tuple[Path, int]]]
    class_names: tuple[str, ...]


def scan(root: Path, title: str) -> Tree:
    """Find the images below a folder.

    With a sub-folder `train`, and none but those named in `SPLITS`, each sub-folder is a split; otherwise everything is
    the split `train`. Below that, the first level of sub-folders are the classes, and images beside them have none.
    Files come in the order of a hash of their names, so that every slice of a split is a fair sample of it. Hidden
    files are passed over, links are followed.

    Args:
      root: the folder.
      title: how errors call it.

    Raises:
      ValueError: no images, images that cannot be read by kind, or splits that do not fit together.
    """
    return _tree(find_images(root, title), title)


def find_images(root: Path, title: str) -> dict[Path, Path]:
    """Return the image files below a folder by their names within it; arguments and errors as for `scan`."""
    found = {path.relative_to(root): path for path in _walk(root, ())}
    unread = sorted(name for name in found if name.suffix.lower() in UNREAD_SUFFIXES)
    if unread:
        raise UserError(
            f"{title}: {len(unread)} files are of a kind that is not read, such as {str(unread[0])!r}; convert them to "
            "PNG, or take them out"
        )
    images = {name: path for name, path in found.items() if name.suffix.lower() in SUFFIXES}
    others = sorted(found.keys() - images.keys())
    if others:
        _LOG.warning("%s: passed over %d files that are no images, such as %r", title, len(others), str(others[0]))
    if not images:
        raise UserError(f"{title}: no images in it; read are files named {', '.join('*' + end for end in SUFFIXES)}")
    return images


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the files below a folder; a folder that is linked into itself is entered once."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, (*above, identity))
            elif entry.is_file() or entry.is_symlink():  # a broken link is reported when it is read
                yield folder / entry.name


def _tree(images: dict[Path, Path], title: str) -> Tree:
    tops = {name.parts[0] for name in images if len(name.parts) > 1}
    named, loose = tops & set(SPLITS), any(len(name.parts) == 1 for name in images)
    if "train" in named and (len(named) > 1 or tops == named) and (tops != named or loose):
        beside = "images" if loose else f"folder {min(tops - named)!r}"
        raise UserError(
            f"{title}: has {beside} beside its splits {', '.join(sorted(named))}; take one or the other away"
        )
    if "train" not in named or tops != named:
        if named - {"train"}:
            raise UserError(
                f"{title}: has a folder {min(named - {'train'})!r}, which is a split, but none named train; rename one"
            )
        named = set()
    depth = 1 if named else 0
    groups: dict[str, dict[Path, Path]] = {split: {} for split in sorted(named, key=_split_rank) or ["train"]}
    for name, path in images.items():
        split = name.parts[0] if named else "train"
        groups[split][Path(*name.parts[depth:])] = path
    classes = {split: {name.parts[0] for name in group if len(name.parts) > 1} for split, group in groups.items()}
    names = tuple(sorted(classes["train"]))
    for split, found in classes.items():
        if not found <= set(names):
            raise UserError(
                f"{title}: split {split} has a class {min(found - set(names))!r} that train has not; its classes are "
                f"{', '.join(names) or 'none'}"
            )
    return Tree({split: _ordered(group, names) for split, group in groups.items()}, names)


def _split_rank(split: str) -> int:
    return SPLITS.index(split)


def _ordered(group: dict[Path, Path], class_names: tuple[str, ...]) -> list[tuple[Path, int]]:
    ranks = {name: rank for rank, name in enumerate(class_names)}
    return [
        (group[name], ranks[name.parts[0]] if len(name.parts) > 1 else NO_CLASS)
        for name in sorted(group, key=lambda name: (_hash(name), name))
    ]


def _hash(name: Path) -> bytes:
    # macOS stores accents as characters of their own.
    text = unicodedata.normalize("NFC", name.as_posix())
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
