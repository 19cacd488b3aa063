"""What the name of a TFDS data set may be, and what its files may make TFDS do.

A config comes with a workdir that somebody may have sent: the data set that it names must run no code of theirs. So no
name may make TFDS fetch code, and the classes of features that files name must be TFDS's own, since TFDS imports them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from geonoise_jax.errors import UserError

# No namespace (`kaggle:name`), which would fetch code, and no arguments (`name/a=1`), which kwargs are for.
_SET, _WORD = r"[a-z_][a-z0-9_]*", r"(?!\.+$)[A-Za-z0-9_.+*-]+"
_NAME = re.compile(rf"({_SET})(/{_WORD.replace('$', '($|:)')})?(:[\d.*]+)?", re.ASCII)
_TRUSTED = "tensorflow_datasets."
_FEATURES = "features.json"
# name / config / version / features.json
_DEEPEST = 3


def check_name(name: str, builder_kwargs: Mapping[str, Any]) -> None:
    """Refuse what is no name of a data set, or no config or version of one.

    Raises:
      ValueError: the message says the form.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"data.name = {name!r}: must be folder, npy, npz, or the name of a TFDS data set, NAME, NAME/CONFIG or "
            "NAME/CONFIG:VERSION, of small letters, digits and underscores"
        )
    for key in ("config", "version"):
        value = builder_kwargs.get(key)
        plain = isinstance(value, (int, float, list, tuple, Mapping))  # from a config, not an object of a program
        if plain or (isinstance(value, str) and not re.fullmatch(_WORD, value)):
            raise UserError(f"data.kwargs.{key} = {value!r}: must be the name of a {key} of data set {name!r}")


def check_folder(data_dir: str | Path | None) -> None:
    """Refuse the address of something else than a local folder, which is not looked through before it is read.

    Raises:
      ValueError: the message says so.
    """
    if data_dir is not None and re.match(r"\w+:/", str(data_dir)):
        raise UserError(f"data.data_dir = {str(data_dir)!r}: must be a local folder; addresses are not read")


def check_features(roots: Iterable[str | Path], name: str) -> None:
    """Refuse a prepared data set whose files name classes that are not of TFDS, before TFDS imports them.

    Args:
      roots: folders in which the data set may lie.
      name: the name, checked.

    Raises:
      ValueError: the message names file and class.
    """
    for root in roots:
        for path in _feature_files(Path(root).expanduser() / re.split("[/:]", name)[0], _DEEPEST):
            for found in _classes(_content(path)):
                if not found.startswith(_TRUSTED):
                    raise UserError(
                        f"data set {name!r}: {path} names the class {found!r}, which is none of tensorflow_datasets "
                        "and is not imported; only data sets with TFDS's own features are read"
                    )


def _feature_files(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / _FEATURES).is_file():
        yield folder / _FEATURES
    elif depth and folder.is_dir():
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from _feature_files(entry, depth - 1)


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not the features of a data set ({type(error).__name__})") from error


def _classes(content: Any) -> Iterator[str]:
    """Yield every class that a description of features names, at any depth, JSON within strings included."""
    waiting = [content]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            # The last is that of the oldest files; a feature may be called so too.
            named = (node.get(key) for key in ("pythonClassName", "python_class_name", "type"))
            yield from (value for value in named if isinstance(value, str))
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str) and node.lstrip()[:1] in ("{", "["):
            with contextlib.suppress(ValueError, RecursionError):
                waiting.append(json.loads(node))
