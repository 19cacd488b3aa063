"""The classifier of the data at hand: what it learns, that it is trained once, and what its protocol says."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.in_memory import from_numpy
from geonoise_jax.evaluation.features import Settings, classifier, extract, train_classifier
from geonoise_jax.nets.classifier import Classifier

RNG = np.random.default_rng
SETTINGS = Settings(width=4, num_steps=60, batch_size=32)
TOP = 16


def bars(num: int, split: str, seed: int) -> Arrays:
    """Noisy 8x8 images of a bar that stands or lies, in 17 grey levels; one image in ten has no class."""
    rng = RNG(seed)
    labels = rng.integers(0, 2, num)
    images = rng.integers(0, 6, (num, 8, 8, 1))
    for image, label, place in zip(images, labels, rng.integers(0, 8, num), strict=True):
        (image.swapaxes(0, 1) if label else image)[place] = 16
    unknown = np.where(np.arange(num) % 10 == 9, -1, labels)
    events = images.astype(np.uint8)
    return from_numpy(events, unknown, value_range=(0, TOP), num_classes=2, name="bars", split=split)


TRAIN, HELD_OUT = bars(300, "train", 0), bars(100, "test", 1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def network(cache: Path) -> Any:
    return train_classifier(TRAIN, HELD_OUT, SETTINGS, cache=cache)


def test_it_learns_and_says_how_well(network: Any) -> None:
    found = extract(network, HELD_OUT.to_model(HELD_OUT.events))
    assert found.features.shape == (100, network.dimension) == (100, 128)
    assert (found.features >= 0).all()
    assert found.logits is not None
    assert HELD_OUT.labels is not None
    known = HELD_OUT.labels >= 0
    right = int((found.logits.argmax(axis=1) == HELD_OUT.labels)[known].sum())
    assert right > 80
    interval = stats.binomtest(right, 90).proportion_ci(method="wilson")
    assert re.fullmatch(
        r"classifier of bars/train \(300 images; width 4, num_steps 60, batch_size 32, learning_rate 0.006, seed 0\), "
        rf"weights [0-9a-f]{{8}}, held-out accuracy {right / 90:.3f} \[{interval.low:.3f}, {interval.high:.3f}\] on 90 "
        "of bars/test, layer before the last; model space, not rounded",
        network.protocol,
    )


def test_it_is_trained_once(network: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_trained", lambda *_: pytest.fail("it was trained again"))
    kept = train_classifier(TRAIN, HELD_OUT, SETTINGS, cache=cache)
    assert kept.protocol == network.protocol
    assert jax.tree.all(jax.tree.map(lambda one, other: np.array_equal(one, other), kept.params, network.params))


CHANGED: dict[str, Callable[[], Any]] = {
    "settings": lambda: (TRAIN, HELD_OUT, dataclasses.replace(SETTINGS, seed=1)),
    "images": lambda: (bars(300, "train", 2), HELD_OUT, SETTINGS),
    "held-out images": lambda: (TRAIN, bars(100, "test", 2), SETTINGS),
}


@pytest.mark.parametrize("name", CHANGED)
def test_other_data_or_settings_are_another_one(
    network: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(classifier, "_trained", lambda *_: pytest.fail("trained"))
    with pytest.raises(pytest.fail.Exception, match="trained"):
        train_classifier(*CHANGED[name](), cache=cache)


@pytest.mark.parametrize("content", [b"", b"not an archive", None])
def test_a_damaged_file_is_made_anew(
    network: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    (file,) = cache.iterdir()
    damaged = tmp_path / file.name
    damaged.write_bytes(file.read_bytes()[:-300] if content is None else content)
    trained = iter([network.params])
    monkeypatch.setattr(classifier, "_trained", lambda *_: next(trained))
    for _ in range(2):
        assert train_classifier(TRAIN, HELD_OUT, SETTINGS, cache=tmp_path).protocol == network.protocol
    assert list(trained) == []


def test_pixels_are_seen_as_model_space(network: Any) -> None:
    pixels = RNG(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    floats = (pixels.astype(np.float32) - 127.5) / 127.5
    np.testing.assert_allclose(extract(network, pixels).features, extract(network, floats).features, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (28, 28, 1)])
def test_the_network_takes_images_of_any_size(shape: tuple[int, ...]) -> None:
    net = Classifier(num_classes=7, width=4, dimension=9)
    outputs = jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((2, *shape)))[0]
    assert [each.shape for each in outputs] == [(2, 9), (2, 7)]


def without_classes() -> Arrays:
    return dataclasses.replace(TRAIN, labels=None, num_classes=None)


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: train_classifier(without_classes(), HELD_OUT), "train = bars/train: must be images .* with classes"),
    (lambda: train_classifier(TRAIN, without_classes()), "held_out = bars/train: must be images .* with classes"),
    (lambda: train_classifier(TRAIN, dataclasses.replace(HELD_OUT, scale=0.1)), "held_out: has shape, center, scale"),
    (lambda: Settings(num_steps=0), "Settings.num_steps = 0: must be an integer >= 1"),
    (lambda: Settings(learning_rate=0.0), "Settings.learning_rate = 0.0"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_another_shape_are_refused(network: Any) -> None:
    with pytest.raises(ValueError, match=r"images.shape = \[2, 9, 8, 1\]: must be \[N, 8, 8, 1\]"):
        extract(network, np.zeros((2, 9, 8, 1), np.float32))
