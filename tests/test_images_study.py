"""The study of models of images: ways of sampling, IDX files, options; tables and pages of made-up numbers; a run."""

from __future__ import annotations

import gzip
import html.parser
import re
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.data.idx import read_idx, read_splits
from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.sampling.samplers import find
from geonoise_jax.studies import images, runner, workdirs
from geonoise_jax.studies.images import models, report
from geonoise_jax.studies.images.models import Model
from geonoise_jax.studies.images.study import Options, Result, Study
from geonoise_jax.studies.verdicts import Outcome
from geonoise_jax.training.train import Result as Ended

DIGITS = models.models()


def config_of(model: Model, steps: int = 40, folder: Path = Path("runs")) -> Any:
    return models.config_of(model, "digits", steps, folder, None)


@pytest.mark.parametrize("model", DIGITS, ids=[each.name for each in DIGITS])
def test_a_way_takes_the_evaluations_that_are_asked_for(model: Model) -> None:
    chosen = config_of(model)
    sampling = chosen.sampling
    for wanted in (8, 9, 33):
        found = models.way(chosen, wanted)
        options = {**sampling.sampler.kwargs.to_dict(), **dict(found.options)}
        if found.num_steps:
            taken = find(sampling.sampler.name, options).evaluations(found.num_steps[0], **options)
            assert taken is not None
            assert taken + sampling.denoise in (wanted - 1, wanted)
        else:
            assert find(sampling.sampler.name, options).options.keys() >= options.keys()
            assert options["max_steps"] == wanted


def test_descent_takes_longer_steps_where_it_takes_fewer() -> None:
    chosen = config_of(Model("eqm", "blind"))
    one, other = (dict(models.way(chosen, each).options) for each in (10, 40))
    assert one["step_size"] * one["max_steps"] == pytest.approx(other["step_size"] * other["max_steps"])
    assert one["step_size"] * 10 == pytest.approx(0.0017 * 249)


def test_too_few_evaluations_and_unknown_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match="steps of heun with 1 evaluations = 0: must be an integer >= 1"):
        models.way(config_of(Model("flow_matching", "blind")), 1)
    with pytest.raises(ValueError, match="sampler = 'tsit5': must be one of heun, edm_churn, ddim, eqm_descent"):
        models.way(config.override(config_of(Model("flow_matching", "blind")), [("sampling.sampler.name", "tsit5")]), 8)


def test_more_steps_train_on() -> None:
    """Nothing of the config but what may change differs."""
    one, other = (config_of(Model("ddpm", "blind"), steps) for steps in (40, 4000))
    changed = config.differences(one, other)
    assert set(changed) == {"training.num_steps", "training.log_every", "checkpoint.every"}
    assert one.optimizer.decay == "constant"


def test_a_signal_is_passed_on_once_the_state_is_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workdirs.build, "train", lambda *_: Ended(3, "SIGINT", 1.0))
    with pytest.raises(KeyboardInterrupt):
        workdirs.train(config_of(DIGITS[0]), tmp_path)
    monkeypatch.setattr(workdirs.build, "train", lambda *_: Ended(3, "SIGTERM", 1.0))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(InterruptedError, match="stopped by SIGTERM"):
            workdirs.train(config_of(DIGITS[0]), tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)


def idx(path: Path, values: np.ndarray, kind: int = 8) -> None:
    head = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of a set of 60 and 30 images."""
    rng = np.random.default_rng(0)
    for name, num in (("train", 60), ("t10k", 30)):
        idx(tmp_path / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (num, 28, 28), np.uint8))
        idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", rng.integers(0, 10, num).astype(np.uint8))
    return tmp_path


def test_idx_files_become_a_data_set(folder: Path, tmp_path: Path) -> None:
    chosen = models.config_of(Model("edm", "blind"), "fashion_mnist", 40, tmp_path / "runs", folder)
    data = build.arrays(chosen, "test")
    assert (data.event_shape, len(data), data.num_classes) == ((28, 28, 1), 30, 10)
    np.testing.assert_array_equal(data.events[..., 0], read_idx(folder / "t10k-images-idx3-ubyte.gz"))
    # Kept, and taken from where it is.
    (folder / "train-images-idx3-ubyte.gz").unlink()
    models.config_of(Model("edm", "blind"), "fashion_mnist", 40, tmp_path / "runs", folder)
    given = tmp_path / "runs" / "fashion_mnist.npz"
    assert models.config_of(Model("edm", "blind"), "fashion_mnist", 40, tmp_path, given).data.kwargs.path == str(given)


def test_damaged_idx_files_are_named(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    for broken, message in (
        (b"no gzip", "is missing, damaged or cannot be read"),
        (content[:-9], "is missing, damaged or cannot be read"),
        (gzip.compress(b"\0\0\x08"), "is no IDX file of unsigned bytes"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd"), "is no IDX file of unsigned bytes"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"), "holds 3 bytes; must hold 5"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            read_splits(folder)
    idx(path, np.zeros(29, np.uint8))
    with pytest.raises(ValueError, match=r"t10k has shapes \[30, 28, 28\] and \[29\]"):
        read_splits(folder)
    with pytest.raises(ValueError, match="path = .*nowhere.* does not exist; must be a folder with the four files"):
        models.config_of(DIGITS[0], "fashion_mnist", 40, folder, folder / "nowhere")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "cifar10"}, "data = 'cifar10': must be one of digits, fashion_mnist"),
        ({"path": "x"}, "path = .*x.*: has no effect with data = digits"),
        ({"systems": ("dpm",)}, "systems = 'dpm': unknown; did you mean 'ddpm'"),
        ({"steps": 0}, "steps = 0: must be an integer >= 1"),
        ({"evaluations": (8, 4)}, r"evaluations = \(8, 4\): must be ascending"),
    ],
)
def test_options_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**given)


def test_quick_replaces_what_is_not_given() -> None:
    assert (Options(quick=True).steps, Options(quick=True, steps=7).steps, Options().steps) == (30, 7, 500)
    assert runner.options("images", None, {"quick": True}, Path("out")).runs == Path("out")
    assert runner.options("images", None, {"runs": "elsewhere"}, Path("out")).runs == Path("elsewhere")


def record(metric: str, network: str | None, value: float | None, **changes: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "better": "lower",
        "protocol": "as made up",
        "interval": "none",
        "note": "",
        "network_protocol": network,
    }
    about |= {"reference": "digits/test, 360 items", "not_finite": 0, "at_floor": False, "evaluations": 8.0}
    numbers: dict[str, Any] = {"value": value, "low": None, "high": None, "spread": None}
    if value is not None:
        numbers |= {"low": 0.9 * value, "high": 1.2 * value, "spread": 0.05 * value}
    floor = {"value": 0.1, "spread": 0.01, "draws": 20}
    return {"metric": metric, "network": network, "floor": floor, **about, **numbers, **changes}


@pytest.fixture
def study() -> Study:
    """All models, of which the first has samples that are not finite."""
    rng, results = np.random.default_rng(0), []
    for number, model in enumerate(models.models()):
        broken = number == 0
        value = None if broken else 0.1 + 0.1 * number
        ones = [record("frechet", name, value, not_finite=3 * broken) for name in ("net", "classifier")]
        ones += [record(name, "net", value, at_floor=number == 2) for name in ("precision", "recall")]
        ones.append(record("sliced_wasserstein", None, value, not_finite=3 * broken))
        curve = [
            record(name, network, value, evaluations=float(each))
            for each in (4, 8)
            for name, network in (("sliced_wasserstein", None), ("frechet", "classifier"))
        ]
        samples = rng.uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32)
        results.append(Result(model, 30, samples, tuple(ones), tuple(curve)))
    return Study(Options(evaluations=(4, 8)), tuple(results), samples)


def test_the_table_has_every_model_and_its_floor(study: Study) -> None:
    lines = report.table(study).splitlines()
    assert lines[0] == "Digits, 8 x 8: 30 updates of 64 images, 8 evaluations of the network a sample, 1,300 samples"
    heading = ["model", "noise level", "sliced Wasserstein", "Fréchet classifier", "Fréchet net", "precision net"]
    assert re.split(r"  +", lines[2])[:6] == heading
    titles = [line.split("  ")[0] for line in lines[4:12]]
    assert titles == ["DDPM", "DDPM", "flow matching", "flow matching", "EDM", "EDM", "EqM", "EqM"]
    assert (lines[4].count("3 not finite"), lines[4].count("none")) == (3, 2)
    (floor,) = [line for line in lines if line.startswith("training images  ")]
    assert floor.count("0.100 +- 0.010") == 5
    assert sum(line.count(" =") for line in lines[4:12]) == 2


def test_pages_hold_the_same_table(study: Study) -> None:
    pages = images.pages(study, rendered(images.picture(study)))
    assert set(pages) == {".html", ".md"}
    rows = [line for line in pages[".md"].splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 8 + 1
    assert len({row.count("|") for row in rows}) == 1
    numbers = images.numbers(study)
    assert (len(numbers["records"]), len(numbers["curves"])) == (40, 32)
    tags: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
            tags.append(tag)

    Parser().feed(pages[".html"])
    assert (tags.count("tr"), tags.count("img")) == (10, 1)


def test_verdicts_compare_each_blind_model_with_its_twin(study: Study) -> None:
    """The blind models of the fixture are 4 / 3, 6 / 5 and 8 / 7 times as far; DDPM's twin is not finite."""
    ddpm, *others = images.verdicts(study)
    assert ddpm.outcome is Outcome.UNTOLD
    assert [each.outcome for each in others] == [Outcome.HOLDS] * 3
    assert others[0].value == pytest.approx(0.4 / 0.3)
    blind, twin = study.results[1], study.results[0]
    broken = study.results[0]._replace(model=blind.model), study.results[1]._replace(model=twin.model)
    swapped = images.verdicts(study._replace(results=(*broken, *study.results[2:])))[0]
    assert (swapped.outcome, swapped.value) == (Outcome.HOLDS, np.inf)


def test_arrays_have_a_row_a_model(study: Study) -> None:
    found = images.arrays(study)
    assert found["value"].shape == found["floor"].shape == (8, 5)
    assert np.isnan(found["value"][0, 0])
    np.testing.assert_array_equal(found["floor"], 0.1)
    assert found["samples"].shape == (8, 16, 8, 8, 1)
    assert found["model"][1] == "ddpm-blind"


@pytest.mark.slow
def test_two_models_end_to_end_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained and evaluated; the second time nothing is trained or drawn, and the table is the same."""
    given = {"systems": ("flow_matching",), "steps": 4, "num": 140, "num_on_curves": 140, "evaluations": (2, 4)}
    options = runner.options("images", None, {**given, "features": ("classifier",)}, tmp_path / "out")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = runner.run("images", tmp_path / "out", options)
    assert first.count("\nflow matching ") == 2
    assert {path.suffix for path in tmp_path.glob("out.*")} == {".png", ".svg", ".npz", ".html", ".md", ".json"}
    log = tmp_path / "out" / "digits" / "flow_matching-blind" / "evaluation" / "results.jsonl"
    before = log.read_text()
    assert runner.run("images", tmp_path / "out", options) == first
    assert log.read_text() == before
