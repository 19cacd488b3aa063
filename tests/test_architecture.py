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
    "data": {"files", "progress"},
    "imports": {"files"},
    "config": {"imports"},
    "signals": set(),
    "processes": {"signals"},
    "progress": {"processes"},
    "files": {"processes"},
    "runtime": {"files", "processes", "progress", "signals"},
    "systems": {"config"},
    "exact": {"process"},
    # An exact field is whatever has the methods of exact.marginal.Marginal.
    "fields": {"process"},
    "sampling": {"process", "processes", "exact", "fields"},
    # Measures of pairs of fields, of exact ones without a network in sight.
    "stability": {"process", "exact", "fields", "sampling"},
    # What is drawn is plain arrays, and exact fields of the plane.
    "drawing": {"exact", "files"},
    "hardware": set(),
    # Of the configs, the workdir alone: it stores them.
    "training": {
        *("config", "data", "drawing", "fields", "files", "hardware", "imports", "process", "processes", "progress"),
        *("sampling", "signals"),
    },
    "build": {
        *("config", "data", "exact", "fields", "imports", "nets", "process", "processes", "sampling", "training"),
    },
    "evaluation": {
        *("build", "config", "data", "drawing", "exact", "fields", "files", "imports", "nets", "process", "processes"),
        *("progress", "sampling", "training"),
    },
    "planning": {
        *("build", "config", "data", "drawing", "files", "hardware", "imports", "process", "progress", "runtime"),
        *("sampling", "training"),
    },
    "studies": {
        *("build", "config", "data", "drawing", "evaluation", "exact", "fields", "files", "process", "progress"),
        *("sampling", "signals", "stability", "systems", "training"),
    },
    # Of the studies, what a verdict is.
    "demo": {
        *("build", "config", "drawing", "evaluation", "files", "process", "progress", "sampling", "studies"),
        *("training",),
    },
    "cli_options": {"config", "files", "processes"},
    "cli_data": {"config", "data", "evaluation"},
    "cli_figure": {"cli_options", "studies"},
    "cli_evaluate": {"cli_options", "evaluation", "files", "processes"},
    "cli_plan": {"config", "files", "planning"},
    "cli": {
        *(
            "build",
            "cli_data",
            "cli_evaluate",
            "cli_figure",
            "cli_options",
            "cli_plan",
            "config",
            "demo",
            "evaluation",
            "files",
            "imports",
        ),
        *("processes", "progress", "runtime", "signals", "systems", "training"),
    },
    "__main__": {"cli", "files", "processes", "runtime", "signals"},
}
# The only rooms that may import these libraries.
LIBRARIES: dict[str, set[str]] = {
    "tensorflow": set(),
    "tensorflow_datasets": {"data"},
    "sklearn": {"data", "evaluation", "studies"},
    "flax": {"nets", "training"},
    "optax": {"build", "training"},
    "diffrax": {"sampling"},
    "orbax": {"training"},
    "clu": {"training"},
    "tensorboardX": {"training"},
    "matplotlib": {"demo", "drawing", "evaluation", "studies"},
    "PIL": {"data", "demo", "drawing", "evaluation", "files", "studies"},
    "filelock": {"data", "files"},
    "etils": {"files"},
    "fsspec": {"files"},
    "google": {"files"},
}
CONFIG_ROOMS = {"config", "systems", "build", "training", "evaluation", "planning", "studies", "demo", "cli"}


def room(path: Path) -> str:
    """The folder or the file of the top level that a source belongs to; empty for the package itself."""
    relative = path.relative_to(PACKAGE)
    name = relative.parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(node: ast.AST) -> Iterator[str]:
    """Every import below a node, at the top of a file, inside a function or for its types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative import"
            # `from package import module` and `from module import name` look alike: both are kept.
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child)


def ours(path: Path) -> set[str]:
    """Rooms that a source imports, its own left out."""
    found = {name.split(".")[1] for name in imports(tree(path)) if name.startswith("geonoise_jax.")}
    return found - {room(path)} - GROUND


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_graph() -> dict[str, set[str]]:
    """What each module of ours imports of ours; of a package's name, the package."""
    known = {module_name(path) for path in SOURCES}

    def resolved(name: str) -> str:
        return name if name in known else name.rpartition(".")[0]

    found = {module_name(path): {resolved(name) for name in imports(tree(path))} & known for path in SOURCES}
    # A package names what it offers, also to type checkers alone: that is no use of it.
    return {name: uses - {name} for name, uses in found.items()}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of two or more nodes that all lead to each other (Kosaraju)."""

    def reach(edges: dict[str, set[str]], start: str) -> set[str]:
        seen, rest = {start}, [start]
        while rest:
            new = edges[rest.pop()] - seen
            seen |= new
            rest += new
        return seen

    reverse: dict[str, set[str]] = {node: set() for node in graph}
    for node, uses in graph.items():
        for used in uses:
            reverse[used].add(node)
    groups = {frozenset(reach(graph, node) & reach(reverse, node)) for node in graph}
    return [set(group) for group in groups if len(group) > 1]


def test_every_room_is_in_the_table_and_the_table_has_no_circle() -> None:
    assert {room(path) for path in SOURCES} - {""} == set(ROOMS)
    tuple(graphlib.TopologicalSorter(ROOMS).static_order())


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_in_one_direction(name: str) -> None:
    for path in SOURCES:
        if room(path) == name:
            assert ours(path) <= ROOMS[name], path


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Not for its types alone either."""
    found = sorted(sorted(circle) for circle in circles(module_graph()))
    assert not found, "circles: " + "; ".join(" <-> ".join(circle) for circle in found)


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e"}, "g": {"a"}}
    assert sorted(sorted(circle) for circle in circles(graph)) == [["a", "b", "c"], ["e", "f"]]
    assert module_graph()["geonoise_jax.drawing.pictures"] >= {"geonoise_jax.drawing.style", "geonoise_jax.errors"}
    assert "geonoise_jax.training.train" in module_graph()["geonoise_jax"], "imported for its types alone"


def test_the_package_itself_imports_only_the_ground() -> None:
    source = tree(PACKAGE / "__init__.py")
    when_run = [node for node in source.body if isinstance(node, ast.ImportFrom)]
    assert [(node.module, alias.name) for node in when_run[2:] for alias in node.names] == [("geonoise_jax", "lazy")]
    outside = {name.split(".")[0] for name in imports(source)}
    assert outside == {"__future__", "typing", "geonoise_jax"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    users = {room(path) for path in SOURCES for name in imports(tree(path)) if name.split(".")[0] == library}
    assert users <= LIBRARIES[library]
    assert bool(users) == bool(LIBRARIES[library]), "the table names a room that does not use it"


def test_flax_in_the_training_room_is_confined_to_the_state() -> None:
    files = {path.name for path in SOURCES if any(name.split(".")[0] == "flax" for name in imports(tree(path)))}
    assert files & {path.name for path in (PACKAGE / "training").glob("*.py")} == {"state.py"}


def test_configs_are_seen_where_things_are_built_and_run_only() -> None:
    seeing = {room(path) for path in SOURCES if re.search(r"\bConfigDict\b|\bml_collections\b", path.read_text())}
    assert "build" in seeing
    assert seeing <= CONFIG_ROOMS


def test_a_training_run_is_of_objects_and_its_workdir_alone_knows_configs() -> None:
    """Neither the class of configs nor the module that makes them."""
    known = {"geonoise_jax.config", "geonoise_jax.build", "ml_collections"}

    def knows(path: Path) -> bool:
        names = set(imports(tree(path)))
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
    modules = ", ".join(
        f"geonoise_jax.{name}" for name in ("process.process", "exact", "fields", "sampling", "stability")
    )
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
                assert room(path).startswith("cli"), f"{path}:{node.lineno}"
