"""One table of all studies: a line and a module each, and one way to run them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import time
import typing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from geonoise_jax.studies import STUDIES, runner
from geonoise_jax.studies import run as run_study
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.concurrency import at_once
from geonoise_jax.studies.table import NEEDED, NONE, OPTIONAL, Entry, find
from geonoise_jax.studies.verdicts import Outcome, Verdict, judge
from tests.command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_a_module_with_five_names(name: str) -> None:
    module: Any = find(name).load()
    study = typing.get_type_hints(module.measure)["return"]
    assert study is module.Study
    assert next(iter(inspect.signature(module.measure).parameters)) == "options"
    assert typing.get_type_hints(module.measure)["options"] is module.Options
    for function, kind in ((module.table, str), (module.picture, Figure), (module.arrays, dict)):
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
    assert set(re.findall(r"geonoise figure (\w+)", PAGE)) == {*STUDIES, "all"}


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
        seeded = any(field.name == "seed" for field in dataclasses.fields(entry.load().Options))
        assert not seeded or runner.options(name, None, {"seed": 3}).seed == 3
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
        "from matplotlib.figure import Figure\n"
        "from geonoise_jax.studies.verdicts import Verdict, judge\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Options:\n"
        "    num: int = 4\n"
        "def measure(options): return np.arange(options.num) / 2\n"
        "def table(study): return f'largest {study.max():g}'\n"
        "def picture(study): return Figure((len(study), 1))\n"
        "def arrays(study): return {'halves': study, 'gap': np.array([np.nan]), 'long': np.zeros(2000)}\n"
        "def verdicts(study):\n"
        "    top = study.max()\n"
        "    told = judge(top, top, at_most=2.5)\n"
        "    return [Verdict('eq. 0', 'half of 5 is most', 'always', 'top', top, top, top, told)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(STUDIES, "halves", Entry("halves", "halves of numbers", NONE))
    ended = run("figure", "halves", "--option=num=6", f"--out={tmp_path / 'new' / 'out'}")
    said = (
        "source  claim              measured  condition  verdict\n"
        "------  -----------------  --------  ---------  -------\n"
        "eq. 0   half of 5 is most  top 2.5   always     holds\n"
    )
    assert ended == (0, f"largest 2.5\n\n{said}{tmp_path / 'new' / 'out.png'}\n", "")
    with np.load(tmp_path / "new" / "out.npz") as written:
        np.testing.assert_array_equal(written["halves"], np.arange(6) / 2)
    numbers = json.loads((tmp_path / "new" / "out.json").read_text())
    assert numbers["study"] == "halves"
    assert numbers["options"] == {"num": "6"}
    assert numbers["arrays"] == {"halves": [0, 0.5, 1, 1.5, 2, 2.5], "gap": [None]}
    assert [(each["value"], each["outcome"]) for each in numbers["verdicts"]] == [(2.5, "holds")]
    assert (tmp_path / "new" / "out.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("ends", "limits", "outcome"),
    [
        ((1.0, 2.0), {"at_most": 2.0}, Outcome.HOLDS),
        ((1.0, 2.0), {"at_most": 1.5}, Outcome.UNTOLD),
        ((1.0, 2.0), {"at_most": 0.9}, Outcome.FAILS),
        ((1.0, 2.0), {"at_least": 1.0, "at_most": 3.0}, Outcome.HOLDS),
        ((1.0, 2.0), {"at_least": 2.1}, Outcome.FAILS),
        ((np.nan, np.nan), {"at_least": 0.0}, Outcome.UNTOLD),
    ],
)
def test_a_claim_is_told_where_the_whole_interval_agrees(
    ends: tuple[float, float], limits: dict[str, float], outcome: Outcome
) -> None:
    assert judge(*ends, **limits) is outcome


@pytest.mark.parametrize(
    ("ends", "outcome", "condition"),
    [
        (((0.0, 1.0), (0.5, 2.0)), Outcome.HOLDS, "known, A, B"),
        (((3.0, 4.0), (5.0, 6.0)), Outcome.FAILS, "known, A, B"),
        (((0.0, 1.0), (5.0, 6.0)), Outcome.HOLDS_IF, "known: holds for A; not for B"),
        (((0.0, 1.0), (1.0, 6.0)), Outcome.HOLDS_IF, "known: holds for A; not told for B"),
        (((3.0, 4.0), (1.0, 6.0)), Outcome.FAILS, "known: not for A; not told for B"),
        (((np.nan, np.nan), (1.0, 6.0)), Outcome.UNTOLD, "known, A, B"),
    ],
)
def test_one_verdict_over_cases(ends: Any, outcome: Outcome, condition: str) -> None:
    cases = [Case(name, low, low, high) for name, (low, high) in zip("AB", ends, strict=True)]
    about = Claim("eq. 1", "c", "known", "q")
    verdict = over_cases(cases, about, at_most=2.0)
    assert (verdict.outcome, verdict.condition) == (outcome, condition)
    worst = cases[0] if np.isnan(ends[0][0]) or ends[0][0] > ends[1][0] else cases[1]
    np.testing.assert_array_equal((verdict.value, verdict.high), worst[1::2])
    with pytest.raises(ValueError, match="cases: there must be at least one"):
        over_cases([], about)


def test_cases_of_a_number_and_its_error() -> None:
    np.testing.assert_allclose(Case.of("A", 1.0, 0.5)[1:], (1.0, 0.02, 1.98))
    assert Case.of("A", np.inf, np.nan) == Case.exact("A", np.inf) == Case("A", np.inf, np.inf, np.inf)


def test_tasks_run_at_once_and_end_with_the_first_that_fails() -> None:
    began: list[int] = []

    def task(number: int) -> int:
        began.append(number)
        time.sleep(0.01)
        return number // (3 - number)

    assert at_once("numbers", "fields", {str(number): partial(task, number) for number in range(3)}) == [0, 0, 2]
    with pytest.raises(ZeroDivisionError):
        at_once("numbers", "fields", {str(number): partial(task, number) for number in range(3, 200)})
    assert len(began) < 100


def test_a_verdict_checks_its_words_and_its_interval() -> None:
    good: dict[str, Any] = {"source": "eq. 1", "claim": "c", "condition": "d", "quantity": "q", "outcome": "holds if"}
    verdict = Verdict(**good, value=2.0, low=1.5, high=2.25)
    assert verdict.outcome is Outcome.HOLDS_IF
    assert verdict.measured == "q 2 [1.5, 2.25]"
    assert Verdict(**good, value=np.nan, low=np.nan, high=np.nan).to_dict()["value"] is None
    with pytest.raises(ValueError, match=r"value = 3.0: must lie in its interval \[1.5, 2.25\]"):
        Verdict(**good, value=3.0, low=1.5, high=2.25)
    with pytest.raises(ValueError, match="claim = '': must be said"):
        Verdict(**{**good, "claim": ""}, value=2.0, low=2.0, high=2.0)
    with pytest.raises(ValueError, match="outcome = 'perhaps'"):
        Verdict(**{**good, "outcome": "perhaps"}, value=2.0, low=2.0, high=2.0)
