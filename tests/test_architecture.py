"""The shape of the package: who may import whom, what a light import costs, and the size of a file."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "geonoise_jax"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What every room may import.
GROUND = {"checks", "errors", "lazy"}
# What each room may import of ours, besides itself and the ground.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "lazy": set(),
    "checks": set(),
    "process": set(),
    "nets": set(),
    "data": {"progress"},
    "imports": {"files"},
    "config": {"imports"},
    "progress": set(),
    "files": set(),
    "signals": set(),
    "runtime": {"progress", "signals"},
    "systems": {"config"},
    "exact": {"process"},
    # An exact field is whatever has the methods of exact.marginal.Marginal.
    "fields": {"process"},
    "sampling": {"process", "exact", "fields"},
    "figures": {"exact", "files", "progress"},
    # Of the configs, the workdir alone: it stores them.
    "training": {
        *("config", "data", "fields", "figures", "files", "imports", "process", "progress", "sampling", "signals"),
    },
    "build": {"config", "data", "exact", "fields", "imports", "nets", "process", "sampling", "training"},
    "evaluation": {
        *("build", "config", "data", "exact", "fields", "figures", "files", "imports", "nets", "process", "progress"),
        *("sampling", "training"),
    },
    "demo": {"build", "config", "evaluation", "figures", "files", "process", "progress", "sampling", "training"},
    "cli_data": {"config", "evaluation"},
    "cli": {
        *("build", "cli_data", "config", "demo", "evaluation", "files", "imports", "progress", "runtime", "signals"),
        *("systems", "training"),
    },
    "__main__": {"cli", "files", "runtime", "signals"},
}
# What is imported for its types alone, and never when the program runs.
TYPES_ONLY: dict[str, set[str]] = {"figures": {"demo", "evaluation"}}
# The only rooms that may import these libraries.
LIBRARIES: dict[str, set[str]] = {
    "tensorflow": set(),
    "tensorflow_datasets": {"data"},
    "sklearn": {"data", "evaluation"},
    "flax": {"nets", "training"},
    "optax": {"build", "training"},
    "diffrax": {"sampling"},
    "orbax": {"training"},
    "clu": {"training"},
    "tensorboardX": {"training"},
    "matplotlib": {"figures"},
    "PIL": {"data", "figures", "files"},
    "filelock": {"data", "files"},
}
CONFIG_ROOMS = {"config", "systems", "build", "training", "evaluation", "figures", "demo", "cli"}


class Import(NamedTuple):
    """One imported module, e.g. ``geonoise_jax.process.times``."""

    module: str
    types_only: bool


def room(path: Path) -> str:
    """The folder or the file of the top level that a source belongs to; empty for the package itself."""
    relative = path.relative_to(PACKAGE)
    name = relative.parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST, types_only: bool = False) -> Iterator[Import]:
    """Every import below a node, at the top of a file or inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, types_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative import"
            # `from package import module` and `from module import name` look alike: both are kept.
            yield from (Import(f"{child.module}.{alias.name}", types_only) for alias in child.names)
        else:
            guard = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from imports(child, types_only or guard)


def ours(path: Path, *, types_only: bool) -> set[str]:
    """Rooms that a source imports, its own left out."""
    names = {each.module for each in imports(tree(path)) if each.types_only == types_only}
    found = {name.split(".")[1] for name in names if name.startswith("geonoise_jax.")}
    return found - {room(path)} - GROUND


def test_every_room_is_in_the_table_and_the_table_has_no_circle() -> None:
    assert {room(path) for path in SOURCES} - {""} == set(ROOMS)
    tuple(graphlib.TopologicalSorter(ROOMS).static_order())


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_in_one_direction(name: str) -> None:
    for path in SOURCES:
        if room(path) == name:
            assert ours(path, types_only=False) <= ROOMS[name], path
            assert ours(path, types_only=True) <= ROOMS[name] | TYPES_ONLY.get(name, set()), path


def test_the_package_itself_imports_only_the_ground() -> None:
    assert ours(PACKAGE / "__init__.py", types_only=False) == set()
    outside = {each.module.split(".")[0] for each in imports(tree(PACKAGE / "__init__.py"))}
    assert outside == {"__future__", "typing", "geonoise_jax"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    users = {room(path) for path in SOURCES for each in imports(tree(path)) if each.module.split(".")[0] == library}
    assert users <= LIBRARIES[library]
    assert bool(users) == bool(LIBRARIES[library]), "the table names a room that does not use it"


def test_flax_in_the_training_room_is_confined_to_the_state() -> None:
    files = {path.name for path in SOURCES if any(each.module.split(".")[0] == "flax" for each in imports(tree(path)))}
    assert files & {path.name for path in (PACKAGE / "training").glob("*.py")} == {"state.py"}


def test_configs_are_seen_where_things_are_built_and_run_only() -> None:
    seeing = {room(path) for path in SOURCES if re.search(r"\bConfigDict\b|\bml_collections\b", path.read_text())}
    assert "build" in seeing
    assert seeing <= CONFIG_ROOMS


def test_a_training_run_is_of_objects_and_its_workdir_alone_knows_configs() -> None:
    """Neither the class of configs nor the module that makes them."""
    known = {"geonoise_jax.config", "geonoise_jax.build", "ml_collections"}

    def knows(path: Path) -> bool:
        names = {each.module for each in imports(tree(path))}
        return "ConfigDict" in path.read_text() or any(
            f"{name}.".startswith(f"{one}.") for name in names for one in known
        )

    assert {path.name for path in (PACKAGE / "training").glob("*.py") if knows(path)} == {"workdir.py"}


def fresh(code: str) -> str:
    """What a program prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_mathematics_and_samplers_pull_in_neither_flax_nor_tensorflow() -> None:
    heavy = ("flax", "optax", "diffrax", "orbax", "tensorflow", "tensorflow_datasets", "matplotlib", "ml_collections")
    modules = "geonoise_jax.process.process, geonoise_jax.exact, geonoise_jax.fields, geonoise_jax.sampling"
    assert fresh(f"import {modules}, sys; print([name for name in {heavy!r} if name in sys.modules])") == "[]"


def test_the_command_line_starts_before_jax() -> None:
    """XLA flags count only if they are set before jax is imported; and ``--help`` is quick."""
    loaded = fresh("import geonoise_jax.cli as c, sys; c.parser(); print('jax' in sys.modules, 'numpy' in sys.modules)")
    assert loaded == "False False"


@pytest.mark.parametrize("folder", ["geonoise_jax", "configs", "tests", "launch"])
def test_no_file_is_over_400_lines(folder: str) -> None:
    files = [path for pattern in ("*.py", "*.sh") for path in (ROOT / folder).rglob(pattern)]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_the_library_neither_prints_nor_asserts() -> None:
    """Only the command line prints; bad input is an exception of its own, which `python -O` keeps."""
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert room(path) in ("cli", "cli_data"), f"{path}:{node.lineno}"
