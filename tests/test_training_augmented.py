"""Training on augmented images: the network is told, it resumes bit for bit, and is sampled as of plain images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict, override
from geonoise_jax.data.augmentation import EDMAugmentation
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.process.keys import root_key
from tests.own_run import own_run
from tests.training_runs import assert_same_run, circles, metrics_of, prepare


def of_images(folder: Path, variant: str = "flow_matching,blind", **overrides: Any) -> ConfigDict:
    """A run of 12 steps on images of 6x6 pixels, half of them changed in each way."""
    if not (folder / "x.npy").exists():
        np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 256, (96, 6, 6, 1)).astype(np.uint8))
    plain = {"model.class_conditional": False, "optimizer.decay": "constant", "checkpoint.every": 6}
    choice = circles(folder, variant, **plain, **{"training.num_steps": 12})
    words = {"data.name": "npy", "data.kwargs.path": folder / "x.npy", "data.data_dir": ""}
    words |= {key.replace("__", "."): value for key, value in overrides.items()}
    if "data.augment.name" not in words:
        words = {"data.augment.name": "edm", "data.augment.kwargs.probability": 0.5, **words}
    return override(choice, [(key, str(value)) for key, value in words.items()])


@pytest.mark.parametrize(
    "variant", ["flow_matching,blind", pytest.param("flow_matching,conditional", marks=pytest.mark.slow)]
)
def test_a_run_goes_on_bit_for_bit_and_samples_as_of_plain_images(variant: str, tmp_path: Path) -> None:
    choice = of_images(tmp_path, variant)
    train(choice, tmp_path / "whole")
    train(of_images(tmp_path, variant, training__num_steps=5), tmp_path / "parts")
    train(choice, tmp_path / "parts")
    assert_same_run(choice, tmp_path / "whole", tmp_path / "parts")
    restored = restore(tmp_path / "whole")
    names = [
        "/".join(str(key.key) for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(restored.field.params)
    ]
    assert "conditioning/augment_embed/kernel" in names
    assert any("time" in name for name in names) == ("conditional" in variant)
    u, t = jnp.ones((3, 6, 6, 1)), jnp.full(3, 0.5)
    np.testing.assert_array_equal(restored.field(u, t), restored.field.apply(u, t, augment=jnp.zeros((3, 9))))
    assert np.abs(restored.field(u, t) - restored.field.apply(u, t, augment=jnp.ones((3, 9)))).max() > 1e-6


@pytest.mark.slow
def test_losses_are_those_of_one_device(tmp_path: Path) -> None:
    choice = of_images(tmp_path)
    for name, devices in (("one", jax.devices()[:1]), ("eight", jax.devices())):
        train(choice, tmp_path / name, devices=devices)
    one, eight = (metrics_of(tmp_path / name)[-1] for name in ("one", "eight"))
    assert one["loss"] == pytest.approx(eight["loss"], rel=1e-4)


def test_the_network_is_told_what_was_done(tmp_path: Path) -> None:
    """What the loss sees are the images and labels of the pipeline, changed anew at every step."""
    setup = prepare(of_images(tmp_path), tmp_path, jax.devices()[:1])
    stream = setup.run.pipeline()
    pipe, seen = EDMAugmentation(0.5), []
    for step in range(2):
        batch, key = stream.batch(step), root_key(step)
        resident = jax.tree.map(jnp.asarray, stream.resident)
        found = stream.decode(batch, resident, key)
        plain = setup.run.data.to_model(setup.run.data.events[stream.index(step)])
        x, told = pipe(jnp.asarray(plain), jax.random.fold_in(key, 1))
        np.testing.assert_array_equal(found["augment"], told)
        np.testing.assert_array_equal(found["x"], x)
        seen.append(np.asarray(told))
    assert (seen[0] != seen[1]).any()


def test_another_augmentation_is_another_run(tmp_path: Path) -> None:
    train(of_images(tmp_path), tmp_path / "run")
    for other in (
        of_images(tmp_path, data__augment__name="none"),
        of_images(tmp_path, data__augment__kwargs__probability=0.4),
    ):
        with pytest.raises(UserError, match="belongs to another config .*data.augment"):
            train(other, tmp_path / "run")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.augment.name = 'edn': unknown; did you mean edm\?"):
        build.run(of_images(tmp_path, data__augment__name="edn"))
    with pytest.raises(UserError, match=r"data.augment.kwargs.probability = 2: must be"):
        build.run(of_images(tmp_path, data__augment__kwargs__probability=2))
    with pytest.raises(UserError, match="network.augment_dim = 0: must be 9, the labels of augmentation"):
        own_run(augment=EDMAugmentation())
    run = build.run(of_images(tmp_path))
    with pytest.raises(UserError, match="network.augment_dim = 9: must be 0"):
        dataclasses.replace(run, augment=None)


OWN = """
import jax.numpy as jnp

class Darker:
    labels = 1

    def __init__(self, by=0.5):
        self.by = by

    def __call__(self, x, key):
        return x - self.by, jnp.full((len(x), 1), self.by)
"""


def test_an_augmentation_of_ones_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    name = f"{tmp_path / 'mine.py'}:Darker"
    choice = override(of_images(tmp_path, data__augment__name=name), [("data.augment.kwargs.by", "0.25")])
    run = build.run(choice)
    stream = run.pipeline()
    found = stream.decode(stream.batch(0), jax.tree.map(jnp.asarray, stream.resident), root_key(0))
    plain = run.data.to_model(run.data.events[stream.index(0)])
    np.testing.assert_allclose(found["x"], plain - 0.25, atol=1e-6)
    np.testing.assert_array_equal(found["augment"], np.full((32, 1), 0.25, np.float32))
    assert run.network.augment_dim == 1
