"""Config files of one's own: neighbours, variants, paths with colons, and what is said of a bad one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from geonoise_jax import config
from tests.command_line import run

GOOD = """
from geonoise_jax.config import base_config
from common import SEED


def get_config(variant=""):
    choice = base_config()
    choice.seed = SEED
    if variant:
        choice.schedule.name = variant
    return choice
"""


def written(folder: Path, text: str, name: str = "own.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_neighbours_are_imported_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders may have neighbours of one name. An environment that lies below a folder is no neighbour."""
    written(tmp_path / "a" / "env", "", "of_environment.py")
    monkeypatch.syspath_prepend(str(tmp_path / "a" / "env"))
    before = list(sys.path)
    for seed, folder in ((3, tmp_path / "a"), (4, tmp_path / "b")):
        written(folder, "from package.inner import SEED as SEED\nimport of_environment\n", "common.py")
        written(folder / "package", "", "__init__.py")
        written(folder / "package", f"SEED = {seed}\n", "inner.py")
        assert config.load(str(written(folder, GOOD))).seed == seed
    assert not {"common", "package", "package.inner"} & set(sys.modules)
    assert sys.modules.pop("of_environment")
    assert sys.path == before


@pytest.mark.parametrize("folder", ["a:b", "c.py:d", "x y"])
def test_paths_may_have_colons(folder: str, tmp_path: Path) -> None:
    written(tmp_path / folder, "SEED = 3\n", "common.py")
    path = written(tmp_path / folder, GOOD)
    odd = written(tmp_path / folder, GOOD, "odd:name.py")
    bare = written(tmp_path / folder, GOOD, "no:suffix")
    for file in (path, odd, bare):
        assert (config.load(str(file)).seed, config.load(str(file)).schedule.name) == (3, "Linear")
        assert config.load(f"{file}:VE").schedule.name == "VE"


def test_a_config_without_variants(tmp_path: Path) -> None:
    path = written(tmp_path, "from geonoise_jax.config import base_config as get_config\n")
    loaded = config.load(str(path))
    assert loaded == config.base_config()
    assert loaded.is_locked
    with pytest.raises(ValueError, match="its get_config takes no variant, 'ddpm'"):
        config.load(f"{path}:ddpm")


def test_code_beside_a_config_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And beside the working directory where a command names it; what is nowhere keeps its name, made whole."""
    text = "from geonoise_jax.config import base_config\ndef get_config():\n    c = base_config()\n"
    text += "    c.schedule.name = 'mine.py:A'\n    c.target.name = 'nowhere.py:B'\n    return c\n"
    path = written(tmp_path / "configs", text)
    mine = written(tmp_path / "configs", "", "mine.py")
    monkeypatch.chdir(tmp_path)
    choice = config.load(str(path))
    assert (choice.schedule.name, choice.target.name) == (
        f"{mine.resolve()}:A",
        f"{tmp_path.resolve() / 'nowhere.py'}:B",
    )
    law = written(tmp_path, "", "law.py")
    config.override(choice, [("time_law.name", "law.py:C")])
    assert config.absolute(choice).time_law.name == f"{law.resolve()}:C"


BAD = [
    ("def get_confi(): pass\n", "must define get_config(variant)"),
    ("get_config = 3\n", "must define get_config(variant)"),
    ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
    ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ("def get_config(:\n", "line 1: SyntaxError: "),
    ("def get_config():\n    return {'seed': 1}\n", "get_config returned dict; must be a ConfigDict of base_config()"),
    ("def get_config():\n    return None\n", "get_config returned NoneType; must be"),
    (
        "from geonoise_jax.config import ConfigDict\ndef get_config():\n    return ConfigDict({'a': 1})\n",
        "key 'a' is unknown",
    ),
    (
        "from geonoise_jax.config import base_config\ndef get_config():\n    c = base_config()\n    c.sedd = 1\n",
        "line 4: AttributeError: ",
    ),
    (
        "from geonoise_jax.config import base_config\ndef get_config():\n    c = base_config()\n"
        "    with c.unlocked(), c.ignore_type():\n        c.training.num_steps = 'many'\n    return c\n",
        "training.num_steps = 'many': must be of type int",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_bad_config_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"config = {str(path)!r}: {message}")) as error:
        config.load(str(path))
    assert "\n" not in str(error.value)
    ended = run("train", f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
