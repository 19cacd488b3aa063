"""One table of all studies: a line and a module each, and one way to run them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax.studies import STUDIES, runner
from geonoise_jax.studies import run as run_study
from geonoise_jax.studies.table import NEEDED, NONE, OPTIONAL, Entry, find
from tests.command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_a_module_with_five_names(name: str) -> None:
    module: Any = find(name).load()
    study = typing.get_type_hints(module.measure)["return"]
    assert study is module.Study
    assert next(iter(inspect.signature(module.measure).parameters)) == "options"
    assert typing.get_type_hints(module.measure)["options"] is module.Options
    for function, kind in ((module.table, str), (module.picture, Image.Image), (module.arrays, dict)):
        hints = typing.get_type_hints(function)
        found = hints.pop("return")
        assert (typing.get_origin(found) or found) is kind, function
        assert hints == {"study": study}, function
    for part in (module, module.Options, module.measure, module.table, module.picture, module.arrays):
        assert part.__doc__


@pytest.mark.parametrize("name", STUDIES)
def test_options_are_frozen_and_need_a_workdir_as_the_table_says(name: str) -> None:
    options = find(name).load().Options
    assert options.__dataclass_params__.frozen
    fields = {field.name: field for field in dataclasses.fields(options)}
    needs = {True: NEEDED, False: OPTIONAL}
    found = needs[fields["workdir"].default is dataclasses.MISSING] if "workdir" in fields else NONE
    assert found == STUDIES[name].workdir
    others = [field for field in fields.values() if field.name != "workdir"]
    assert all(field.default is not dataclasses.MISSING for field in others)


def test_the_page_shows_every_study_and_no_other() -> None:
    assert set(re.findall(r"geonoise figure (\w+)", PAGE)) == set(STUDIES)


def test_the_command_line_offers_every_study() -> None:
    ended = run("figure", "--help")
    assert ended.status == 0
    said = " ".join(ended.out.split())
    for name, entry in STUDIES.items():
        assert f"{name}: {entry.about}" in said


@pytest.mark.parametrize("name", STUDIES)
def test_a_missing_or_needless_workdir_is_refused_by_one_rule(name: str) -> None:
    entry = STUDIES[name]
    if entry.workdir == NEEDED:
        with pytest.raises(ValueError, match=f"--workdir: must be given for {name}"):
            runner.options(name, None, {})
    else:
        assert runner.options(name, None, {"seed": 3}).seed == 3
    if entry.workdir == NONE:
        with pytest.raises(ValueError, match=f"--workdir: is no argument of {name}"):
            runner.options(name, Path("run"), {})
    else:
        assert runner.options(name, Path("run"), {}).workdir == Path("run")
    with pytest.raises(ValueError, match=f"--option=workdir: give the workdir of {name} as --workdir"):
        runner.options(name, None if entry.workdir != NEEDED else Path("run"), {"workdir": "run"})


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(ValueError, match="name = 'weather': must be one of excess_risk, log_density"):
        run_study("weather", "out", None)


def test_a_new_study_costs_a_module_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halves.py").write_text(
        "import dataclasses, numpy as np\n"
        "from PIL import Image\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Options:\n"
        "    num: int = 4\n"
        "def measure(options): return np.arange(options.num) / 2\n"
        "def table(study): return f'largest {study.max():g}'\n"
        "def picture(study): return Image.new('L', (len(study), 1))\n"
        "def arrays(study): return {'halves': study}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(STUDIES, "halves", Entry("halves", "halves of numbers", NONE))
    ended = run("figure", "halves", "--option=num=6", f"--out={tmp_path / 'new' / 'out'}")
    assert ended == (0, f"largest 2.5\n{tmp_path / 'new' / 'out.png'}\n", "")
    with np.load(tmp_path / "new" / "out.npz") as written:
        np.testing.assert_array_equal(written["halves"], np.arange(6) / 2)
