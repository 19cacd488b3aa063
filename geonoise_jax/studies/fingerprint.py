"""What the numbers of a study depend on, in few letters: a result is used again only where all of it is the same.

That are the choices, the sources of this package that the study's module imports, directly or through others, the
configs that ship with it, the libraries that compute, the kind of device, and the training run that is measured.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import jax

from geonoise_jax import files
from geonoise_jax.evaluation.restore import saved_steps
from geonoise_jax.studies import table

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "flax", "optax", "matplotlib", "pillow")
# Where results and runs are kept is no choice of what they are.
_PLACES = ("runs", "workdir")


def fingerprint(name: str, options: Any, *, quick: bool = False) -> str:
    """Return what a study's numbers depend on, as 16 letters.

    Args:
        name: name of the study.
        options: its choices.
        quick: whether it is compiled fast rather than well, which rounds differently.

    Raises:
        ValueError: if there is no such study, or its workdir holds no run.
    """
    fields = [field.name for field in dataclasses.fields(options) if field.name not in _PLACES]
    parts = [name, f"quick = {quick}", *(f"{field} = {getattr(options, field)!r}" for field in fields)]
    parts += [f"{library} {importlib.metadata.version(library)}" for library in _LIBRARIES]
    parts += [device.device_kind for device in jax.devices()]
    if (workdir := getattr(options, "workdir", None)) is not None:
        parts += [files.read_text(workdir / "config.json"), str(saved_steps(workdir))]
    found = hashlib.sha256("\n".join(parts).encode())
    for path in [*sources(table.find(name).module), *_configs()]:
        found.update(_digest(path))
    return found.hexdigest()[:16]


def sources(module: str) -> list[Path]:
    """Return the file of a module, and those of this package that it leads to, in order."""
    found, left = set(), {_file(module)}
    while left:
        path = left.pop()
        found.add(path)
        left |= _imported(path) - found
    return sorted(found)


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that compute."""
    return {name: importlib.metadata.version(name) for name in ("geonoise_jax", *_LIBRARIES)}


def _file(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return Path(spec.origin)


@cache
def _imported(path: Path) -> frozenset[Path]:
    """Return the files of this package that one imports, for its types alone too: so lazy names are found."""
    names = (name.split(".")[1:] for name in _names(path) if name.startswith(f"{_PACKAGE.name}."))
    return frozenset(each for each in map(_of_package, names) if each is not None)


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _of_package(parts: list[str]) -> Path | None:
    """Return the file of a module, given from the package on, or of the one that has what the last part names."""
    for length in (len(parts), len(parts) - 1):
        base = _PACKAGE.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if length and path.is_file():
                return path
    return None


def _configs() -> list[Path]:
    # Installed wheels carry the configs inside the package; a source tree has them beside it.
    return sorted(path for folder in (_PACKAGE, _PACKAGE.parent) for path in (folder / "configs").glob("*.py"))


@cache
def _digest(path: PurePath) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
