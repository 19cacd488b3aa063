"""What ``import geonoise_jax`` offers: light, complete, the same for programs and for type checkers."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import geonoise_jax as gn
from geonoise_jax.process import schedules, targets, times

ROOT = Path(__file__).resolve().parents[1]
LAZY = tuple(f"geonoise_jax{room}" for room in ("", ".training", ".evaluation", ".drawing", ".studies"))
SETTLED = (
    *("Linear", "VPLinear", "VPDiscrete", "Cosine", "VE", "Trigonometric", "EDMScaled"),
    *("Noise", "Signal", "Velocity", "VPrediction", "Score", "Equilibrium", "EDMNetwork"),
    *("Uniform", "LogUniform", "LogNormal", "LogitNormal", "Discrete", "Process"),
    *("FiniteSet", "Gaussian", "Mixture", "Subspace", "Circles", "Marginal"),
    *("Field", "ExactField", "NetworkField", "sample", "generate", "train", "restore", "UserError"),
)


def declared(package: str) -> set[str]:
    """The names that a type checker sees: those imported under TYPE_CHECKING."""
    path = ROOT / package.replace(".", "/") / "__init__.py"
    guards = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    imported = [node for guard in guards for node in guard.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imported for alias in node.names}


@pytest.mark.parametrize("package", LAZY)
def test_programs_and_type_checkers_see_the_same_names(package: str) -> None:
    public = {name for name in dir(importlib.import_module(package)) if not name.startswith("__")}
    assert public == declared(package)


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_found(package: str) -> None:
    module = importlib.import_module(package)
    for name in declared(package):
        assert getattr(module, name) is not None


def test_the_settled_names_are_at_the_top() -> None:
    assert set(SETTLED) <= set(dir(gn))
    members = {cls.__name__ for room in (schedules.SCHEDULES, targets.TARGETS) for cls in room}
    members |= {cls.__name__ for cls in vars(times).values() if isinstance(cls, type) and issubclass(cls, gn.TimeLaw)}
    assert {name for name in members if name[0] != "_"} - {"UEDM"} <= set(dir(gn))
    assert gn.Linear is schedules.Linear
    assert gn.process.Velocity is gn.targets.Velocity
    assert gn.sampling.heun.__name__ == "heun"


def test_a_name_that_is_not_there_names_its_neighbour() -> None:
    with pytest.raises(AttributeError, match=r"'geonoise_jax' has no attribute 'Gausian'; did you mean 'Gaussian'\?"):
        gn.Gausian  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(AttributeError, match=r"use schedules.UEDM or targets.UEDM"):
        gn.UEDM  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match="Sampels"):
        from geonoise_jax import Sampels  # type: ignore[attr-defined] # noqa: F401


def test_the_import_is_light() -> None:
    """The version and the list of names cost neither jax nor numpy; an exact field needs no Flax."""
    code = (
        "import sys, geonoise_jax as gn; gn.__version__, dir(gn); heavy = ('jax', 'numpy', 'flax', 'matplotlib'); "
        "first = [name for name in heavy if name in sys.modules]; gn.Gaussian, gn.sample, gn.ExactField; "
        "print(first, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[] ['jax', 'numpy']"


def test_the_version_is_that_of_the_distribution() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in pyproject
    assert 'path = "geonoise_jax/__init__.py"' in pyproject
    assert gn.__version__.count(".") == 2


def test_types_are_shipped() -> None:
    assert (Path(gn.__file__).parent / "py.typed").is_file()
