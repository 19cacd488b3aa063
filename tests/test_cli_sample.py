"""``geonoise sample`` in process: what it draws and writes, and every refusal with nothing changed on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from geonoise_jax.drawing import animation
from geonoise_jax.drawing.pictures import sample_picture
from geonoise_jax.sampling.samplers import SAMPLERS
from tests.command_line import CONFIG, SMALL, run, snapshot


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "circles"
    overrides = [f"--config.{key}={value}" for key, value in {**SMALL, "data.data_dir": data_dir}.items()]
    ended = run("train", CONFIG, f"--workdir={folder}", *overrides)
    assert ended.status == 0, ended.err
    return folder


def samples_of(workdir: Path, out: Path, *options: str) -> dict[str, np.ndarray]:
    ended = run("sample", f"--workdir={workdir}", f"--out={out}", *options)
    assert ended.status == 0, ended.err
    assert ended.out.split() == [f"{out}.png", f"{out}.npz"]
    with np.load(f"{out}.npz") as arrays:
        return dict(arrays)


def test_sampling_a_workdir_alone(workdir: Path, data_dir: Path, tmp_path: Path) -> None:
    """Without the data, into the workdir's own folder, over all devices."""
    moved = shutil.copytree(workdir, tmp_path / "moved")
    kept = snapshot(moved / "checkpoints")
    hidden = data_dir.rename(data_dir.with_name("hidden"))
    try:
        ended = run("sample", f"--workdir={moved}", "--num=20", "--batch-size=8", "--seed=3")
    finally:
        hidden.rename(data_dir)
    assert ended.status == 0, ended.err
    assert ended.out.split() == [str(moved / "samples" / f"samples.{ending}") for ending in ("png", "npz")]
    assert "sample: 20/20 samples (100%)" in ended.err
    arrays = np.load(moved / "samples" / "samples.npz")
    assert (arrays["samples"].shape, arrays["samples"].dtype, int(arrays["step"])) == ((20, 3), np.float32, 6)
    assert np.isfinite(arrays["samples"]).all()
    assert len(np.unique(arrays["samples"], axis=0)) == 20
    np.testing.assert_array_equal(arrays["labels"], np.arange(20) % 2)
    assert Image.open(moved / "samples" / "samples.png").size == (750, 750)
    assert snapshot(moved / "checkpoints") == kept


def test_the_way_from_noise_to_samples_is_shown(workdir: Path, tmp_path: Path) -> None:
    ended = run("sample", f"--workdir={workdir}", f"--out={tmp_path / 'a'}", "--num=5", "--num-steps=3", "--animate")
    assert ended.status == 0, ended.err
    assert ended.out.split() == [str(tmp_path / f"a.{ending}") for ending in ("png", "npz", "gif")]
    film = ImageSequence.Iterator(Image.open(tmp_path / "a.gif"))
    assert [frame.info["duration"] for frame in film] == [80, 80, 80, 2000]


def test_frames_are_few_and_of_unit_scale() -> None:
    states = np.stack([np.full((70, 2, 2, 1), 80.0 - k, np.float32) for k in range(80)])
    shown = animation.frames(states, np.linspace(80, 1, 80), np.linspace(80, 1, 80), title="run")
    assert len(shown) == 48
    # All white, and of 64 samples, as large as the grid of the samples themselves.
    assert shown[0].size == shown[-1].size == sample_picture(states[0, :64], title="run").size
    assert np.asarray(shown[-1])[-40:].min() == 255


def test_samples_depend_on_the_seed_and_not_on_the_batch_size(workdir: Path, tmp_path: Path) -> None:
    first = samples_of(workdir, tmp_path / "a", "--num=20", "--seed=3", "--batch-size=8")
    again = samples_of(workdir, tmp_path / "b", "--num=20", "--seed=3", "--batch-size=8")
    np.testing.assert_array_equal(again["samples"], first["samples"])
    for batch_size in ("--batch-size=1", "--batch-size=17", "--batch-size=100"):
        other = samples_of(workdir, tmp_path / "b", "--num=20", "--seed=3", batch_size)
        np.testing.assert_allclose(other["samples"], first["samples"], rtol=1e-5, atol=1e-6)
    # Fewer samples are the first of more.
    fewer = samples_of(workdir, tmp_path / "b", "--num=5", "--seed=3", "--batch-size=8")
    np.testing.assert_allclose(fewer["samples"], first["samples"][:5], rtol=1e-5, atol=1e-6)
    other = samples_of(workdir, tmp_path / "b", "--num=20", "--seed=4", "--batch-size=8")
    assert not np.isclose(other["samples"], first["samples"]).any(axis=1).all()


def test_options_of_sample_replace_those_of_the_config(workdir: Path, tmp_path: Path) -> None:
    default = samples_of(workdir, tmp_path / "a", "--num=8")
    assert set(samples_of(workdir, tmp_path / "a", "--num=8", "--label=1")["labels"]) == {1}
    same = samples_of(workdir, tmp_path / "a", "--num=8", "--sampler=heun", "--num-steps=4", "--grid=uniform")
    np.testing.assert_array_equal(same["samples"], default["samples"])
    for option in ("--label=1", "--sampler=euler", "--num-steps=5", "--grid=log_snr", "--denoise"):
        other = samples_of(workdir, tmp_path / "a", "--num=8", option)
        assert np.abs(other["samples"] - default["samples"]).max() > 1e-4, option


@pytest.fixture
def points(tmp_path: Path) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    return values


def test_sampling_starts_from_given_data(workdir: Path, points: np.ndarray, tmp_path: Path) -> None:
    start = f"--x={tmp_path / 'x.npy'}"
    little = samples_of(workdir, tmp_path / "a", start, "--start-time=0.002", "--num-steps=1")
    np.testing.assert_allclose(little["samples"], points, atol=0.05)
    assert len(little["labels"]) == 12
    much = samples_of(workdir, tmp_path / "a", start, "--start-time=0.5", "--num=12")
    assert np.abs(much["samples"] - points).max() > 0.5
    again = samples_of(workdir, tmp_path / "a", start, "--start-time=0.5", "--batch-size=8")
    np.testing.assert_allclose(again["samples"], much["samples"], rtol=1e-5, atol=1e-6)


BAD_START = [
    (["--num=3"], "num = 3: must be left out or 12, the number of data to start from (x)"),
    (["--start-time=2"], "start_time = 2.0: must be a number in (0.001, 0.999]"),
]


@pytest.mark.parametrize(("words", "message"), BAD_START)
def test_bad_options_with_given_data(
    words: list[str], message: str, workdir: Path, points: np.ndarray, tmp_path: Path
) -> None:
    ended = run("sample", f"--workdir={workdir}", f"--x={tmp_path / 'x.npy'}", f"--out={tmp_path / 'a'}", *words)
    assert ended == (2, "", f"geonoise sample: {message}\n")
    assert len(points) == 12


def test_data_of_another_shape_are_refused(workdir: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 2)))
    ended = run("sample", f"--workdir={workdir}", f"--x={path}")
    assert ended == (2, "", f"geonoise sample: x = {str(path)!r}: has shape [4, 2]; the config's data needs [B, 3]\n")
    path.write_bytes(b"no array")
    ended = run("sample", f"--workdir={workdir}", f"--x={path}")
    assert (ended.status, ended.err.startswith(f"geonoise sample: x = {str(path)!r}: not a readable .npy")) == (2, True)


def test_guidance_may_be_limited_to_noise_levels(workdir: Path, tmp_path: Path) -> None:
    plain = samples_of(workdir, tmp_path / "a", "--num=8")
    guided = samples_of(workdir, tmp_path / "a", "--num=8", "--guidance=3")
    # Between the times of the four steps.
    nowhere = samples_of(workdir, tmp_path / "a", "--num=8", "--guidance=3", "--guidance-interval=0.3,0.4")
    partly = samples_of(workdir, tmp_path / "a", "--num=8", "--guidance=3", "--guidance-interval=0.4,0.7")
    np.testing.assert_allclose(nowhere["samples"], plain["samples"], atol=1e-5)
    for other in (plain, partly):
        assert np.abs(guided["samples"] - other["samples"]).max() > 1e-4


BAD_SAMPLE = [
    ("--num=0", "num = 0: must be an integer >= 1"),
    ("--batch-size=0", "batch_size = 0: must be an integer >= 1"),
    ("--batch-size=-3", "batch_size = -3: must be an integer >= 1"),
    ("--num-steps=0", "num_steps = 0: must be an integer >= 1"),
    ("--sampler=rk4", f"sampler = 'rk4': must be one of {', '.join(SAMPLERS)}"),
    ("--sampler=", f"sampler = '': must be one of {', '.join(SAMPLERS)}"),
    ("--option=eta=0.5", "eta = 0.5: no option of the sampler 'heun'; it has none"),
    (
        "--sampler=eqm_descent",
        "field.blind = False: must be True, as an autonomous sampler has no noise level to give",
    ),
    ("--start-time=2", "start_time = 2.0: must be a number in (0.001, 0.999]"),
    ("--end-time=0.9999", "end_time = 0.9999: must be a number in [0.001, 0.999)"),
    ("--grid=karras", "grid = 'karras': must be one of uniform, rho, log_snr"),
    ("--params=EMA", "params = 'EMA': must be one of ema, raw"),
    ("--label=2", "label = 2: must be in 0..1"),
    ("--label=-1", "label = -1: must be in 0..1"),
    ("--option=num_steps=3", "num_steps = 3: no option of the sampler 'heun'; it has none"),
    (
        "--guidance-interval=0.2,0.8",
        "sampling.guidance.interval = (0.2, 0.8): has no effect with sampling.guidance.scale = 1; leave it out",
    ),
    (
        "--guidance-interval=8,2",
        "sampling.guidance.interval = (8.0, 2.0): has no effect with sampling.guidance.scale = 1; leave it out",
    ),
    (
        "--guidance=3 --guidance-interval=0.0,0.0005",
        "guidance interval = (0.0, 0.0005): has no effect, as sampling goes from t = 0.999 to 0.001; "
        "leave the guidance out",
    ),
    (
        "--sampler=tsit5 --num-steps=3",
        "num_steps = 3: has no effect with tsit5, which takes no grid; leave it out",
    ),
    ("--sampler=tsit5 --grid=rho", "grid = 'rho': has no effect with tsit5, which takes no grid; leave it out"),
    (
        "--sampler=eqm_descent --end-time=0.1",
        "end_time = 0.1: has no effect with eqm_descent, which ends where it has converged; leave it out",
    ),
    ("--sampler=ddim --option=eta=0 --option=eta=1", "--option=eta: is given more than once"),
]


@pytest.mark.parametrize(("option", "message"), BAD_SAMPLE)
def test_a_bad_sampling_option_is_refused(option: str, message: str, workdir: Path, tmp_path: Path) -> None:
    before = snapshot(workdir, tmp_path)
    ended = run("sample", f"--workdir={workdir}", f"--out={tmp_path / 'new' / 'a'}", *option.split())
    assert ended == (2, "", f"geonoise sample: {message}\n")
    assert snapshot(workdir, tmp_path) == before


def test_only_a_trained_workdir_can_be_sampled(workdir: Path, tmp_path: Path) -> None:
    for name in ("empty", "claimed", "without facts", "file"):
        (tmp_path / name).mkdir() if name != "file" else (tmp_path / name).touch()
    shutil.copy(workdir / "config.json", tmp_path / "without facts")
    for name in ("config.json", "data.json"):
        shutil.copy(workdir / name, tmp_path / "claimed")
    not_one = "not the workdir of a training run"
    problems = {
        "missing": "no such folder",
        "empty": f"no config.json in it: {not_one}",
        "file": f"no config.json in it: {not_one}",
        "without facts": f"no data.json in it: {not_one}",
        "claimed": "has no checkpoint yet",
    }
    before = snapshot(tmp_path)
    for name, problem in problems.items():
        ended = run("sample", f"--workdir={tmp_path / name}")
        assert ended == (2, "", f"geonoise sample: workdir = {str(tmp_path / name)!r}: {problem}\n")
    assert snapshot(tmp_path) == before


def test_samples_of_an_earlier_step_and_of_the_raw_parameters(workdir: Path, tmp_path: Path) -> None:
    latest = samples_of(workdir, tmp_path / "a", "--num=4")
    np.testing.assert_array_equal(
        samples_of(workdir, tmp_path / "a", "--num=4", "--step=6")["samples"], latest["samples"]
    )
    for words, step in ((("--step=3",), 3), (("--params=raw",), 6), (("--params=raw", "--step=3"), 3)):
        other = samples_of(workdir, tmp_path / "a", "--num=4", *words)
        assert other["step"] == step
        assert np.abs(other["samples"] - latest["samples"]).max() > 1e-4, words


def test_a_sampler_with_options_is_recorded_with_the_samples(workdir: Path, tmp_path: Path) -> None:
    for eta in ("0.0", "1.0"):
        words = ("--sampler=ddim", f"--option=eta={eta}", "--num=4", "--num-steps=3", f"--out={tmp_path / eta}")
        assert run("sample", f"--workdir={workdir}", *words).status == 0
    plain, noisy = (np.load(tmp_path / f"{eta}.npz") for eta in ("0.0", "1.0"))
    np.testing.assert_array_equal(plain["evaluations"], 3)
    assert np.abs(plain["samples"] - noisy["samples"]).max() > 1e-3
    guided = run("sample", f"--workdir={workdir}", "--guidance=3", "--num=4", f"--out={tmp_path / 'guided'}")
    assert guided.status == 0
    assert not np.array_equal(np.load(tmp_path / "guided.npz")["samples"], plain["samples"])
