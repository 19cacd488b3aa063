"""The precision of a network's products: one key of the config, wherever the network is evaluated."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from geonoise_jax import build, config
from geonoise_jax.config import ConfigDict
from geonoise_jax.evaluation.restore import fresh_field
from geonoise_jax.fields import GuidedField
from geonoise_jax.process.keys import root_key
from geonoise_jax.training import train as training
from geonoise_jax.training.losses import Draws
from geonoise_jax.training.sharding import sampling_mesh
from geonoise_jax.training.state import init_params
from tests.training_runs import circles, prepare

# MLP and U-Net, direct, energy and density: all that differs in what is differentiated.
VARIANTS: dict[str, dict[str, Any]] = {
    "circles.py:flow_matching,conditional": {"model.kwargs.width": 8, "model.kwargs.depth": 1},
    "digits.py:eqm_energy,blind": {"model.kwargs.base_channels": 4, "model.kwargs.channel_multipliers": "(1,)"},
    "digits.py:dual_score,conditional": {"model.kwargs.base_channels": 4, "model.kwargs.channel_multipliers": "(1,)"},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def chosen(variant: str, precision: str, data_dir: Path) -> ConfigDict:
    keys = {**VARIANTS[variant], "data.data_dir": data_dir, "matmul_precision": precision, "training.batch_size": 16}
    choice = config.load(f"configs/{variant}")
    return config.override(choice, [(key, str(value)) for key, value in keys.items()])


def precisions(traced: Any) -> set[str]:
    """The precisions of all products and convolutions of a traced program."""
    return set(re.findall(r"precision=(None|\(?Precision\.\w+)", str(traced)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_product_of_a_field_and_of_its_loss_has_it(variant: str, data_dir: Path) -> None:
    """Forward and backward, and whatever the caller's own default is."""
    choice = chosen(variant, "highest", data_dir)
    shape = (8, 8, 1) if "digits" in variant else (2,)
    module = build.network(choice, 10)
    params = jax.eval_shape(lambda: init_params(module, shape, root_key(0)))
    x, t = jnp.zeros((2, *shape)), jnp.full(2, 0.5)

    def predict(params: Any) -> jax.Array:
        return build.network_field(choice, module, params, shape)(x, t)

    def loss(params: Any) -> jax.Array:
        field = build.network_field(choice, module, params, shape)
        return build.objective(choice, module).loss(field, Draws(x, x, t, None))

    with jax.default_matmul_precision("high"):
        for function in (predict, jax.grad(loss)):
            assert precisions(jax.make_jaxpr(function)(params)) == {"(Precision.HIGHEST"}


def test_training_logs_and_stores_it_and_what_is_restored_has_it(
    data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = circles(data_dir, training__num_steps=1, matmul_precision="high")
    setup = prepare(choice, tmp_path)
    step = jax.make_jaxpr(setup.step)(setup.abstract, setup.batch(0), setup.resident)
    assert precisions(step) == {"(Precision.HIGH"}

    def stop(*_: Any, **__: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(training, "Progress", stop)
    with caplog.at_level(logging.INFO), pytest.raises(InterruptedError):
        build.train(choice, tmp_path)
    assert "matmul_precision of the network: high" in caplog.text
    assert '"matmul_precision": "high"' in (tmp_path / "config.json").read_text()
    field = GuidedField(fresh_field(tmp_path, sampling_mesh()).field, 2.0).with_labels(jnp.zeros(8, jnp.int32))
    assert precisions(jax.make_jaxpr(lambda u: field(u, u[:, 0]))(jnp.zeros((8, 3)))) == {"(Precision.HIGH"}
    with pytest.raises(ValueError, match="matmul_precision: 'high' there, 'highest' now"):
        build.train(circles(data_dir, training__num_steps=1), tmp_path)


def test_an_unknown_precision_is_refused(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="matmul_precision = 'hihest': unknown; did you mean highest"):
        prepare(circles(data_dir, matmul_precision="hihest"), tmp_path)
    made = prepare(circles(data_dir), tmp_path).run.field(None)
    with pytest.raises(ValueError, match="NetworkField.matmul_precision = 'fp32': must be one of default, high, high"):
        type(made)(None, made.module, made.process, (3,), made.blind, matmul_precision="fp32")
