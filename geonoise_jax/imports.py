"""Code that a config names: ``package.module:Class`` or ``path/file.py:Class`` where else the name of a class stands.

To import a module is to run it. A config that is given, on the command line or to a function, is consent. One that
lies in a workdir may be somebody else's, and is not: its imports run unasked only if this user trained that very
workdir with these very specs, of which a record is kept outside of it, and otherwise within :func:`allow`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from geonoise_jax import files
from geonoise_jax.errors import UserError, nearest

# What follows the colon is a Python name: TFDS versions, such as ``name:1.0.0``, are no imports.
_IMPORT = re.compile(r"(?P<where>.+\.py|[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_]\w*)")
_allowed = contextvars.ContextVar("allowed", default=False)


def is_import(name: Any) -> bool:
    """Return whether a name of a spec is one of code to be imported."""
    return isinstance(name, str) and _IMPORT.fullmatch(name) is not None


def load(key: str, name: str) -> Any:
    """Import what a name says and return it.

    Args:
        key: dotted key of the spec, for errors.
        name: ``package.module:Class`` or ``path/file.py:Class``.

    Raises:
        ValueError: if there is no such file or module, it fails, or it has no such class.
    """
    where, attribute = _parts(name)
    label = f"{key}.name = {name!r}"
    if where.endswith(".py"):
        path = Path(where).expanduser()
        if not path.is_file():
            raise UserError(f"{label}: no such file; put it back where it was when the config was made")
        with _said(label, path):
            module = _of_file(path.resolve(), path.stat().st_mtime_ns)
    else:
        with _said(label, None):
            module = importlib.import_module(where)
    if not hasattr(module, attribute):
        known = [word for word in vars(module) if not word.startswith("_")]
        raise UserError(f"{label}: has no {attribute}{nearest(attribute, known)}")
    return getattr(module, attribute)


def absolute(name: str, folders: Iterable[Path]) -> str:
    """Return a name whose file is found from anywhere: its path from the first of these folders that has it."""
    if not is_import(name) or not _parts(name)[0].endswith(".py"):
        return name
    where, attribute = _parts(name)
    path = Path(where).expanduser()
    found = next((folder / path for folder in folders if (folder / path).is_file()), path)
    return f"{found.resolve()}:{attribute}"


def specs(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every spec of a config that names an import, with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            if is_import(value.get("name")) and "kwargs" in value:
                yield f"{prefix}{key}", value
            yield from specs(value, f"{prefix}{key}.")


@contextlib.contextmanager
def allow(allowed: bool = True) -> Iterator[None]:
    """Within this context, import what the configs of workdirs name, whoever made them; nothing changes if False."""
    token = _allowed.set(_allowed.get() or allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def trust(folder: PurePath, tree: Mapping[str, Any]) -> None:
    """Remember that this user gave the imports of a config for this workdir; without a place to write, do nothing."""
    digest = _digest(tree)
    record = _record()
    if digest is None or record.get(str(files.absolute(folder))) == digest:
        return
    with contextlib.suppress(UserError):
        files.write_json(record_path(), {**record, str(files.absolute(folder)): digest})


def require(folder: PurePath, tree: Mapping[str, Any]) -> None:
    """Refuse the config of a workdir that names imports, unless they are this user's own or allowed.

    Raises:
        ValueError: naming the imports, and how to allow it.
    """
    digest = _digest(tree)
    if digest is None or _allowed.get() or _record().get(str(files.absolute(folder))) == digest:
        return
    named = ", ".join(f"{key}.name = {spec['name']!r}" for key, spec in specs(tree))
    raise UserError(
        f"workdir = {str(folder)!r}: its config names code to be imported ({named}), and you did not train it here; "
        "look at the code, then give --allow-import (allow_import=True)"
    )


def record_path() -> Path:
    """Return the file that remembers which workdirs this user trained with imports."""
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".local" / "state"
    return Path(state) / "geonoise_jax" / "imports.json"


@contextlib.contextmanager
def neighbours(folder: Path) -> Iterator[None]:
    """Let modules in a folder be imported by their bare names, and forget them afterwards, as others have the same."""
    before, where = set(sys.modules), str(folder)
    sys.path.insert(0, where)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(where)
        new = set(sys.modules) - before
        beside = {name for name in new if getattr(sys.modules[name], "__file__", None) in _files_beside(folder, name)}
        # Of what else lies below the folder, such as an environment, nothing is forgotten: it is no neighbour.
        for name in new:
            if name.partition(".")[0] in beside:
                del sys.modules[name]


def failure(error: BaseException, path: Path | None) -> str:
    """Return what went wrong in code of the user on one line: the error, and the line of the file where it happened."""
    message = (str(error).splitlines() or [""])[0]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {text}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"line {lines[-1]}: {text}" if path is not None and lines else text


def _files_beside(folder: Path, name: str) -> tuple[str, str]:
    return str(folder / f"{name}.py"), str(folder / name / "__init__.py")


def _parts(name: str) -> tuple[str, str]:
    where, _, attribute = name.rpartition(":")
    return where, attribute


@contextlib.contextmanager
def _said(label: str, path: Path | None) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # Whatever code of the user raises is the user's to mend.
    except Exception as error:
        where = None if path is None else path.resolve()
        raise UserError(f"{label}: cannot be imported ({failure(error, where)})") from error


@functools.cache
def _of_file(path: Path, changed: int) -> Any:
    """Import a file once; again if it has changed."""
    name = f"{path.stem}_{hashlib.sha256(f'{path} {changed}'.encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise UserError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(found)
    # Dataclasses look up the module of their class.
    sys.modules[name] = module
    try:
        with neighbours(path.parent):
            found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _digest(tree: Mapping[str, Any]) -> str | None:
    named = {key: [spec["name"], spec["kwargs"]] for key, spec in specs(tree)}
    return hashlib.sha256(json.dumps(named, sort_keys=True, default=list).encode()).hexdigest() if named else None


def _record() -> dict[str, str]:
    try:
        stored = json.loads(record_path().read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
