"""All studies on one page: what is kept, what fails, what it costs to add one, and a page that needs nothing else."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jax
import pytest
from PIL import Image

from geonoise_jax import cli
from geonoise_jax.cli_options import options_of
from geonoise_jax.studies import STUDIES, collection, collection_page, fingerprint, runner
from geonoise_jax.studies.budgets import BUDGETS, Budget, Plan, budget_of
from geonoise_jax.studies.collection_page import sentence
from geonoise_jax.studies.table import NEEDED, NONE, Entry
from geonoise_jax.studies.verdicts import Outcome, Row
from geonoise_jax.studies.workdirs import Training
from tests.command_line import CONFIG, SMALL, run

# Says when it is measured; one more line at each.
HALVES = """
import dataclasses, io, pathlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from geonoise_jax.studies.verdicts import Verdict, judge

@dataclasses.dataclass(frozen=True)
class Options:
    num: int = 4
    most: float = 2.5

QUICK = Options(num=3)

def measure(options):
    with (pathlib.Path(__file__).parent / "measured").open("a") as file:
        file.write(f"{options.num}\\n")
    return options

def table(study): return f"<{study.num}> & halves"
def picture(study): return Figure((study.num, 1))
def arrays(study): return {"halves": np.arange(study.num) / 2}

def verdicts(study):
    top = (study.num - 1) / 2
    told = judge(top, top, at_most=study.most)
    return [Verdict("eq. 0", "half of 5 < is most", "always", "top", top, top, np.inf, told)] * 2

def pages(study, image):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return {".webp": buffer.getvalue(), ".gif": b"", ".md": "text"}
"""
TRAINED = """
import dataclasses, pathlib
from matplotlib.figure import Figure
from geonoise_jax.studies.workdirs import Training

@dataclasses.dataclass(frozen=True)
class Options:
    workdir: pathlib.Path
    times: int = 1

def measure(options): return sorted(each.name for each in options.workdir.iterdir())
def table(study): return " ".join(study)
def picture(study): return Figure((1, 1))
def arrays(study): return {}
"""
BROKEN = TRAINED.replace("workdir: pathlib.Path", "size: int = 2").replace(
    "return sorted(each.name for each in options.workdir.iterdir())", "raise RuntimeError('no <luck>')"
)


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let studies be these alone, each from its source."""
    monkeypatch.syspath_prepend(tmp_path)

    def offer(**studies: str) -> None:
        for name in tuple(STUDIES):
            monkeypatch.delitem(STUDIES, name)
        for name, source in studies.items():
            module = f"{name}_{tmp_path.name}"
            (tmp_path / f"{module}.py").write_text(source)
            needs = NEEDED if "workdir:" in source else NONE
            monkeypatch.setitem(STUDIES, name, Entry(module, f"{name} of <numbers>", needs))

    return offer


def measured(folder: Path) -> list[str]:
    """What was measured so far."""
    return (folder / "measured").read_text().split()


class Reader(html.parser.HTMLParser):
    """Tags with attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, name: str) -> list[str]:
        return [found[name] or "" for each, found in self.tags if each == tag and name in found]


def check_alone(page: str) -> Reader:
    """The page is well formed and needs no other file: every image is in it, and all links lead within."""
    read = Reader(page)
    assert read.open == []
    ids = [found["id"] for _, found in read.tags if "id" in found]
    assert len(set(ids)) == len(ids)
    assert all(link.startswith("#") and link[1:] in ids for link in read.all("a", "href"))
    assert not {tag for tag, _ in read.tags} & {"script", "link", "iframe", "object", "video"}
    assert "url(" not in page
    assert "@import" not in page
    for source, text in zip(read.all("img", "src"), read.all("img", "alt"), strict=True):
        kind, content = re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", source).groups()  # type: ignore[union-attr]
        decoded = base64.b64decode(content, validate=True)
        if kind == "svg+xml":
            assert decoded.startswith(b"<?xml")
        else:
            Image.open(io.BytesIO(decoded)).verify()
        assert text
    return read


def test_a_new_study_costs_a_module_and_a_line(only: Any, tmp_path: Path) -> None:
    only(halves=HALVES)
    assert "halves: halves of <numbers>; all: all of them, on one page" in " ".join(run("figure", "--help").out.split())
    out = tmp_path / "out"
    ended = run("figure", "all", f"--out={out}")
    assert ended[:2] == (0, f"Of 2 claims 2 hold.\n{out / 'index.html'}\n")
    assert "halves: 1 of 1 studies, ETA at most 1:00" in ended.err
    page = (out / "index.html").read_text()
    read = check_alone(page)
    # In the table of all verdicts, and in the study's own.
    assert read.text.count("half of 5 < is most") == 4
    assert read.text.count("✓ holds") == 5
    assert "This shows halves of <numbers>. Of 2 claims 2 hold." in read.text
    assert "<4> & halves" in read.text
    assert f"geonoise figure halves --out={out / 'halves'}" in read.text
    assert [source.partition(";")[0] for source in read.all("img", "src")] == ["data:image/svg+xml", "data:image/webp"]
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *(f"halves.{ending}" for ending in ("png", "svg", "npz", "json", "webp", "gif", "md")),
        "index.html",
    }


def test_what_is_the_same_is_kept(only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(halves=HALVES)
    out = tmp_path / "out"
    first = collection.make_all(out)
    page = first.page.read_text()
    assert collection.make_all(out).parts == first.parts
    assert (measured(tmp_path), first.page.read_text()) == (["4"], page)
    # A budget of another size, one in words alone, a file that is gone, a damaged record, other sources.
    monkeypatch.setitem(BUDGETS, "halves", Plan(Budget(options={"num": 8, "most": 1.0})))
    assert [row.outcome for row in collection.make_all(out).parts[0].rows] == [Outcome.FAILS] * 2
    monkeypatch.setitem(BUDGETS, "halves", Plan(Budget(seconds=3.0, options={"num": 8, "most": 1.0})))
    collection.make_all(out)
    assert measured(tmp_path) == ["4", "8"]
    (out / "halves.md").unlink()
    collection.make_all(out)
    (out / "halves.json").write_text(json.dumps({"fingerprint": "?"}))
    collection.make_all(out)
    assert measured(tmp_path) == ["4", "8", "8", "8"]
    (source,) = tmp_path.glob("halves_*.py")
    source.write_text(source.read_text() + "\n# Changed.\n")
    fingerprint._digest.cache_clear()
    collection.make_all(out)
    assert measured(tmp_path) == ["4", "8", "8", "8", "8"]
    assert collection.make_all(out, quick=True).parts[0].commands == (
        f"geonoise figure halves --out={out / 'halves'} --quick",
    )
    assert measured(tmp_path)[-1] == "3"


def test_one_that_fails_does_not_stop_the_others(only: Any, tmp_path: Path) -> None:
    only(broken=BROKEN, halves=HALVES)
    ended = run("figure", "all", f"--out={tmp_path / 'out'}")
    assert ended.status == 1
    assert ended.out.splitlines()[:2] == ["Of 2 claims 2 hold.", "broken could not be made: RuntimeError: no <luck>"]
    assert "Traceback" in ended.err
    read = check_alone((tmp_path / "out" / "index.html").read_text())
    assert "could not be made: RuntimeError: no <luck>" in read.text
    assert "<4> & halves" in read.text


def test_an_interrupted_one_goes_on(only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(halves=HALVES, later=HALVES)
    make, out = runner.make, tmp_path / "out"

    def stop(name: str, *rest: Any) -> Any:
        if name == "later":
            raise KeyboardInterrupt
        return make(name, *rest)

    monkeypatch.setattr(runner, "make", stop)
    with pytest.raises(KeyboardInterrupt):
        collection.make_all(out)
    read = check_alone((out / "index.html").read_text())
    assert "1 of 2 studies so far." in read.text
    monkeypatch.setattr(runner, "make", make)
    assert len(collection.make_all(out).parts) == 2
    assert measured(tmp_path) == ["4", "4"]
    assert "so far" not in (out / "index.html").read_text()


def test_a_run_that_a_study_needs_is_trained_once(only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(trained=TRAINED)
    (unplanned,) = collection.make_all(tmp_path / "none").failed
    assert unplanned.failure == "--workdir: must be given for trained"
    training = Training(CONFIG.partition("=")[2], {**SMALL, "data.data_dir": tmp_path / "data"})
    monkeypatch.setitem(BUDGETS, "trained", Plan(Budget(options={"times": 2}, training=training)))
    out = tmp_path / "out"
    (part,) = collection.make_all(out).parts
    assert part.found is not None, part.failure
    assert "checkpoints" in part.found.table
    workdir = out / "runs" / "trained-6"
    train, figure = part.commands
    assert figure == f"geonoise figure trained --out={out / 'trained'} --workdir={workdir} --option=times=2"
    arguments, overrides = cli._parse(shlex.split(train)[1:])
    assert arguments.workdir == str(workdir)
    assert ("training.num_steps", "6") in overrides
    monkeypatch.setattr(runner, "make", None)
    assert collection.make_all(out).parts == (part,)


def test_commands_lead_to_the_same_options() -> None:
    for name, quick in (("images", True), ("shells", True), ("circles", False)):
        options = runner.options(name, None, {"seed": 3, **budget_of(name, quick=quick).options}, quick=quick)
        words = shlex.split(runner.command(name, Path("a b") / name, options, quick=quick))
        arguments, _ = cli._parse(words[1:])
        assert arguments.out == f"a b/{name}"
        assert runner.options(name, None, options_of(arguments.option), quick=arguments.quick) == options


def test_budgets_are_of_known_studies_and_can_be_spent() -> None:
    assert set(BUDGETS) <= set(STUDIES)
    for name, entry in STUDIES.items():
        for quick in (False, True):
            budget = budget_of(name, quick=quick)
            assert (budget.training is not None) == (entry.workdir == NEEDED)
            workdir = None if budget.training is None else Path("run")
            asked = quick and bool(runner.quick_options(name))
            runner.options(name, workdir, dict(budget.options), quick=asked)
            if budget.training is not None:
                assert budget.training.choose().training.num_steps == int(budget.training.name(name).split("-")[1])


def test_try_outs_are_found_in_both_forms() -> None:
    assert runner.quick_options("circles") == {"quick": True}
    assert runner.quick_options("shells") == {"dims": (3, 8, 128), "num": 20_000}
    assert runner.options("shells", None, {"num": 300}, quick=True).num == 300
    with pytest.raises(ValueError, match="--quick: has no effect on table1"):
        runner.options("table1", None, {}, quick=True)


def test_a_try_out_compiles_fast_and_only_that() -> None:
    before = jax.config.values["jax_disable_most_optimizations"]
    with collection._compiled_fast(quick=True):
        assert jax.config.values["jax_disable_most_optimizations"]
    with collection._compiled_fast(quick=False):
        assert jax.config.values["jax_disable_most_optimizations"] == before
    assert jax.config.values["jax_disable_most_optimizations"] == before


def test_sources_are_those_that_a_study_uses() -> None:
    names = {
        path.relative_to(path.parents[1]).as_posix() for path in fingerprint.sources("geonoise_jax.studies.shells")
    }
    assert {"studies/shells.py", "studies/verdicts.py", "drawing/style.py"} <= names
    assert not names & {"studies/table.py", "studies/collection.py", "geonoise_jax/cli.py", "geonoise_jax/__init__.py"}
    # By way of names that are imported when they are first used.
    many = fingerprint.sources("geonoise_jax.studies.excess_risk")
    assert {"unet.py", "train.py", "estimates.py", "schedules.py"} <= {path.name for path in many}


def test_verdicts_come_to_one_sentence() -> None:
    row = Row("eq. 1", "x is y", "z 1 [0, 2]", "D = 2", Outcome.UNTOLD)
    assert sentence([]) == "It judges no claim."
    assert sentence([row]) == "The claim of eq. 1 that x is y cannot be told: z 1 [0, 2] (D = 2)."
    rows = [row, row, row._replace(outcome=Outcome.HOLDS), row._replace(outcome=Outcome.FAILS)]
    assert sentence(rows) == "Of 4 claims 1 holds, 1 does not hold and 2 cannot be told."


def test_large_pictures_are_shown_as_pixels(only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(halves=HALVES)
    monkeypatch.setattr(collection_page, "_MOST_SVG", 10)
    read = check_alone(collection.make_all(tmp_path / "out").page.read_text())
    assert read.all("img", "src")[0].startswith("data:image/png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workdir=x",), "--workdir: is no argument of all, whose studies have theirs"),
        (("--option=num=2",), "--option: is no argument of all"),
    ],
)
def test_what_all_does_not_take_is_refused(words: tuple[str, ...], message: str) -> None:
    ended = run("figure", "all", *words)
    assert ended[:2] == (2, "")
    assert message in ended.err
