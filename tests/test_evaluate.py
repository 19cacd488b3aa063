"""Evaluation of a workdir: nothing made twice, the same numbers again, floors, refusals before anything is sampled."""

from __future__ import annotations

import functools
import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax import build
from geonoise_jax.evaluation import Options, evaluate
from geonoise_jax.evaluation.evaluator import bench, cases, records, samples
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.evaluator.records import numbers_of
from geonoise_jax.evaluation.metrics.table import METRICS
from geonoise_jax.evaluation.moments import Moments, write_moments
from geonoise_jax.evaluation.point_metrics import sliced_wasserstein
from geonoise_jax.evaluation.reference import of_data
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.training.train import train
from tests.command_line import run
from tests.own_run import PROCESS, Net, own_run
from tests.training_runs import circles

QUICK = ("sliced_wasserstein", "energy_distance")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with classes and three checkpoints, on 8 devices."""
    small: dict[str, Any] = {"training__num_steps": 60, "sampling__num_steps": 4, "data__kwargs__num_test": 100}
    small |= {"sampling__batch_size": 64}
    folder = tmp_path_factory.mktemp("runs") / "run"
    build.train(circles(tmp_path_factory.mktemp("data"), **small), folder)
    return folder


@pytest.fixture
def workdir(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def drawn_numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of all samples that are drawn from now on."""
    numbers: list[int] = []

    def counting(case: cases.Case, start: int, num: int) -> dict[str, np.ndarray]:
        numbers.extend(range(start, start + num))
        return cases.draw(case, start, num)

    monkeypatch.setattr(samples, "draw", counting)
    return numbers


def of(found: Any, name: str) -> dict[str, Any]:
    (one,) = [each for each in found.records if each["metric"] == name]
    return one


def test_every_line_of_the_table_is_a_metric() -> None:
    for name, entry in METRICS.items():
        assert callable(entry.load()), name
        assert entry.load().__doc__
        assert entry.values


def test_repeated_it_is_the_same_and_nothing_is_done(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = drawn_numbers(monkeypatch)
    first = evaluate(workdir, Options(metrics=QUICK, num=96))
    assert numbers == list(range(96))
    lines = (workdir / "evaluation" / "results.jsonl").read_text()
    again = evaluate(workdir, Options(metrics=QUICK, num=96))
    assert again.records == first.records
    assert (workdir / "evaluation" / "results.jsonl").read_text() == lines
    assert len(numbers) == 96
    assert {one["metric"] for one in first.records} == set(QUICK)
    for one in first.records:
        assert one["low"] <= one["value"] <= one["high"]
        assert one["floor"]["draws"] == 20
        assert one["floor"]["spread"] > 0
        assert (one["num"], one["evaluations"], one["step"]) == (96, 8.0, 60)
        assert one["versions"]["jax"] == jax.__version__


def test_from_nothing_the_numbers_are_the_same(workdir: Path) -> None:
    options = Options(metrics=QUICK, num=96)
    first = evaluate(workdir, options)
    shutil.rmtree(workdir / "evaluation")
    assert [numbers_of(one) for one in evaluate(workdir, options).records] == [numbers_of(one) for one in first.records]


def test_a_second_metric_and_more_samples_cost_what_is_missing(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = drawn_numbers(monkeypatch)
    evaluate(workdir, Options(metrics=QUICK[:1], num=64))
    evaluate(workdir, Options(metrics=QUICK, num=64))
    assert numbers == list(range(64))
    found = evaluate(workdir, Options(metrics=QUICK[:1], num=160))
    assert numbers == list(range(len(numbers))), "a sample was drawn twice, or was left out"
    assert 160 <= len(numbers) < 160 + 64
    (folder,) = {one["samples"] for one in found.records}
    kept = Kept(workdir / "evaluation" / folder)
    direct = restore(workdir).sample(160, 0)
    np.testing.assert_allclose(kept.read("x", 160), direct, atol=1e-4)


def test_interrupted_it_goes_on(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(metrics=QUICK, num=200)
    whole = evaluate(shutil.copytree(workdir, tmp_path / "whole" / "run"), options)
    numbers = drawn_numbers(monkeypatch)
    counting = samples.draw

    def stopped(case: cases.Case, start: int, num: int) -> Any:
        if start >= 100:
            raise KeyboardInterrupt
        return counting(case, start, num)

    monkeypatch.setattr(samples, "draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(workdir, options)
    monkeypatch.setattr(samples, "draw", counting)
    assert 0 < len(numbers) < 200
    found = evaluate(workdir, options)
    assert numbers == list(range(len(numbers)))
    assert [numbers_of(one) for one in found.records] == [numbers_of(one) for one in whole.records]


@pytest.mark.slow
def test_killed_and_on_one_device_elsewhere_without_the_data(workdir: Path, tmp_path: Path) -> None:
    """In a fresh process with one device, from a copy of the workdir alone."""
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["data_dir"] = "/proc/nowhere"
    (workdir / "config.json").write_text(json.dumps(config))
    code = (
        "import os, sys; os.environ['XLA_FLAGS'] = ''\nfrom geonoise_jax.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "evaluate", f"--workdir={workdir}", "--num=96"]
    first = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "sliced_wasserstein: needs the data set 'circles'" in first.stdout
    assert re.search(r"^run +60 .* manifold ", first.stdout, flags=re.MULTILINE)
    lines = (workdir / "evaluation" / "results.jsonl").read_text()
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    assert (workdir / "evaluation" / "results.jsonl").read_text() == lines


def test_a_sweep_has_one_table_curves_and_a_page(workdir: Path, tmp_path: Path) -> None:
    options = Options(metrics=QUICK, num=64, step="all", num_steps=(2, 4))
    found = evaluate(workdir, options, out=tmp_path / "out")
    seen = {(one["step"], one["evaluations"]) for one in found.records}
    assert seen == {(step, evaluations) for step in (20, 40, 60) for evaluations in (4.0, 8.0)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"curves.png", "report.html"}
    assert found.table.count("\nrun ") == 12
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    assert len(page.sources) == 1 + 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.rows == 13


class Page(html.parser.HTMLParser):
    """Open tags, sources of images and number of rows of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_data_in_place_of_samples_is_at_the_floor(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And samples far away are not."""
    config = restore(workdir).config
    law = np.asarray(build.distribution(config).sample(jax.random.key(1), 128))

    def data(case: cases.Case, start: int, num: int) -> dict[str, np.ndarray]:
        return {"x": law[start : start + num], "evaluations": np.zeros(num, np.float32)}

    monkeypatch.setattr(samples, "draw", data)
    found = evaluate(
        workdir, Options(metrics=("sliced_wasserstein", "energy_distance", "two_sample", "modes"), num=128)
    )
    assert all(one["at_floor"] for one in found.records), found.table
    law = law + 0.5
    far = evaluate(workdir, Options(metrics=QUICK, num=128, seed=1))
    assert not any(one["at_floor"] for one in far.records)


def test_samples_that_are_not_finite_are_counted(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: cases.Case, start: int, num: int) -> dict[str, np.ndarray]:
        found = cases.draw(case, start, num)
        x = found["x"].copy()
        x[[1, 5]] = [[np.nan], [np.inf]]
        return {**found, "x": x}

    monkeypatch.setattr(samples, "draw", broken)
    found = evaluate(workdir, Options(metrics=QUICK, num=64))
    for one in found.records:
        assert (one["not_finite"], one["value"], one["low"], one["at_floor"]) == (2, None, None, None)
        assert one["finite_only"] > 0
    assert "none: 2 of 64 samples are not finite" in found.table


def test_likelihoods_do_not_depend_on_the_sampler(workdir: Path) -> None:
    options = Options(metrics=("log_likelihood",), num=40, num_likelihood=8, num_steps=(2, 4))
    found = evaluate(workdir, options)
    assert len(found.records) == 1
    one = of(found, "log_likelihood")
    assert one["num"] == 8
    assert one["low"] < one["value"] < one["high"]


def test_another_workdir_is_a_reference(workdir: Path, trained: Path, tmp_path: Path) -> None:
    """The same model, sampled with another seed, is at the floor."""
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    found = evaluate(workdir, Options(metrics=QUICK, num=64, reference=other))
    assert all(one["at_floor"] for one in found.records), found.table
    assert found.records[0]["reference"] == "samples of other, 60, heun 4, 64 of 128 points"


def test_a_run_of_own_objects_is_evaluated_against_points(tmp_path: Path) -> None:
    train(own_run(), tmp_path / "own")
    np.savez(tmp_path / "points.npz", x=np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32))
    restoring = functools.partial(restore, network=Net(), process=PROCESS)
    options = Options(metrics=QUICK, num=64, reference=tmp_path / "points.npz")
    found = evaluate(tmp_path / "own", options, restoring=restoring)
    assert {one["reference"] for one in found.records} == {"points.npz, 100 of 200 points"}


def test_training_items_are_a_reference_whose_floor_is_held_out(workdir: Path) -> None:
    found = evaluate(workdir, Options(metrics=QUICK, num=64, against="training", num_reference=150))
    title = "circles/train, 150 items that training saw; floor by test"
    assert {one["reference"] for one in found.records} == {title}
    other = evaluate(workdir, Options(metrics=QUICK, num=64))
    assert of(found, QUICK[0])["value"] != of(other, QUICK[0])["value"]
    config = restore(workdir).config
    seen = build.model_points(build.arrays(config))[np.linspace(0, 199, 150).round().astype(int)]
    kept = Kept(workdir / "evaluation" / of(found, QUICK[0])["samples"]).read("x", 64)
    assert of(found, QUICK[0])["value"] == pytest.approx(sliced_wasserstein(kept, seen))
    with pytest.raises(ValueError, match="metrics = log_likelihood: is of held-out items: against = held_out"):
        evaluate(workdir, Options(metrics=("log_likelihood",), num=64, against="training"))


def test_workdirs_of_the_same_data_share_a_reference(
    workdir: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def counting(given: Any, *arguments: Any, **options: Any) -> Any:
        loads.append(str(arguments))
        return of_data(given, *arguments, **options)

    monkeypatch.setattr(bench, "of_data", counting)
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    shared: bench.Shared = {}
    found = evaluate([workdir, other], Options(metrics=QUICK, num=64), shared=shared)
    assert (len(found.records), len(loads), len(shared)) == (4, 1, 1)
    evaluate(workdir, Options(metrics=("two_sample",), num=64), shared=shared)
    assert len(loads) == 1
    evaluate(workdir, Options(metrics=("two_sample",), num=65), shared=shared)
    assert len(loads) == 2
    facts = json.loads((other / "data.json").read_text())
    (other / "data.json").write_text(json.dumps({**facts, "checksum": 1}))
    with pytest.raises(ValueError, match="was trained on other data"):
        bench._of_data(restore(other), other, Options(num=64), shared)


def refusals(folder: Path) -> list[tuple[Any, str]]:
    np.save(folder / "wide.npy", np.zeros((50, 5), np.float32))
    write_moments(folder / "moments.npz", Moments(np.zeros(3), np.eye(3)))
    return [
        (Options(step=30), r"no checkpoint of step 30"),
        (Options(sampler=("hein",)), "hein"),
        (Options(num_steps=(0,)), "num_steps = 0"),
        (Options(sampler=("tsit5",), num_steps=(4,)), "num_steps"),
        (Options(guidance=(2.0,), guidance_interval=(5.0, 9.0)), "interval"),
        (Options(metrics=("frechet",)), "metrics = frechet: is of images"),
        (Options(metrics=("bits_per_dim",)), "is of a data set of integers"),
        (Options(reference=folder / "wide.npy"), r"has shape \[50, 5\]; the config's data needs"),
        (Options(reference=folder / "none.npz"), "no such file or workdir"),
        (Options(reference=folder / "moments.npz", metrics=QUICK), "the reference has moments alone"),
        (Options(held_out="train"), "are points of the training split|needs the data set"),
    ]


@pytest.mark.parametrize("number", range(10))
def test_bad_input_is_refused_before_anything_is_sampled(
    number: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = drawn_numbers(monkeypatch)
    options, message = refusals(tmp_path)[number]
    with pytest.raises(ValueError, match=message):
        evaluate(trained, options)
    assert numbers == []
    assert not (trained / "evaluation").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": ("fid",)}, "metrics = 'fid': "),
        ({"metrics": ()}, "must be one or more of"),
        ({"num": 39}, "num = 39: must be an integer >= 40"),
        ({"step": "first"}, "step = 'first': must be an integer"),
        ({"params": "mean"}, "params = 'mean'"),
        ({"against": "test"}, "against = 'test': must be one of held_out, training"),
        ({"against": "training", "reference": Path("x.npy")}, "against = 'training': has no effect with reference"),
        ({"num_steps": (4, 4)}, "must not name anything twice"),
        ({"ema": (0.1,), "params": "raw"}, "params = 'raw': has no effect with ema"),
    ],
)
def test_options_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**given)


def test_a_workdir_without_a_checkpoint_or_twice_is_refused(trained: Path, tmp_path: Path) -> None:
    for name in ("config.json", "data.json"):
        shutil.copy(trained / name, tmp_path / name)
    with pytest.raises(ValueError, match="checkpoint"):
        evaluate(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        evaluate(tmp_path / "none")
    with pytest.raises(ValueError, match="none of them twice"):
        evaluate([trained, trained])


def test_the_command_prints_the_table_and_the_files(workdir: Path) -> None:
    words = ("--metrics=sliced_wasserstein,modes", "--num=64", "--sampler.num_steps=2,3")
    ended = run("evaluate", f"--workdir={workdir}", *words)
    assert ended.status == 0, ended.err
    assert ended.out.count("sliced_wasserstein ") >= 2
    assert ended.out.splitlines()[-1] == str(workdir / "evaluation" / "report.html")
    assert "sample run, step 60, heun 2: 64/64 samples (100%)" in ended.err
    ended = run("evaluate", f"--workdir={workdir}", "--metrics=fid")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("geonoise evaluate: metrics = 'fid': ")


def test_a_torn_last_record_is_dropped_and_made_again(workdir: Path) -> None:
    options = Options(metrics=QUICK, num=64)
    first = evaluate(workdir, options)
    path = workdir / "evaluation" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert [numbers_of(one) for one in evaluate(workdir, options).records] == [numbers_of(one) for one in first.records]
    assert len(records.read(path)) == 2
    path.write_text("no record\n" + path.read_text())
    with pytest.raises(ValueError, match=r"results.jsonl: line 1: is damaged"):
        evaluate(workdir, options)
