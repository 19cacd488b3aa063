"""The named systems: every variant of every config builds, and trains and samples through its own sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.evaluation import draw
from geonoise_jax.process.weights import Preconditioned
from geonoise_jax.sampling.samplers import SAMPLERS
from geonoise_jax.systems import SYSTEMS, variants
from geonoise_jax.training import ema

FILES = sorted(path.name for path in (Path(config.__file__).parents[2] / "configs").glob("*.py"))
VARIANTS = variants()
# Trained and sampled by default: one of every kind of sampler.
QUICK = ("ddpm,conditional", "eqm,blind")
CHANNELS = {"cifar10.py": 3, "svhn.py": 3, "imagenet64.py": 3}
TINY_NET = {"base_channels": 4, "blocks_per_level": 1, "channel_multipliers": "(1, 2)", "attention_resolutions": "(4,)"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("file", FILES)
def test_every_variant_of_every_config_builds(file: str, variant: str) -> None:
    choice = config.load(f"configs/{file}:{variant}")
    schedule, law = build.schedule(choice), build.time_law(choice)
    assert (law.lo, law.hi) == (schedule.t_min, schedule.t_max)
    build.loss_weight(choice)
    build.optimizer(choice)
    build.from_spec("ema", choice.ema, ema.EMAS)
    net = build.network(choice, num_classes=10)
    field = build.network_field(choice, net, None, (8, 8, 1))
    assert field.blind == variant.endswith("blind")
    assert field.process == build.process(choice)
    assert net.conditional != field.blind


def tiny(file: str, variant: str, folder: Path, **more: Any) -> ConfigDict:
    """A config with a network and a budget for two steps."""
    net = TINY_NET if file != "circles.py" else {"width": 8, "depth": 1}
    changes = {
        **{f"model.kwargs.{name}": value for name, value in net.items()},
        "data.data_dir": folder,
        "training.num_steps": 2,
        "training.batch_size": 8,
        "sampling.num": 8,
        "sampling.every": 2,
        **more,
    }
    if file == "circles.py":
        changes |= {"data.kwargs.num_train": 64, "data.kwargs.num_test": 8, "data.kwargs.dim": 3}
    choice = config.load(f"configs/{file}:{variant}")
    if "max_steps" in choice.sampling.sampler["kwargs"]:
        changes["sampling.sampler.kwargs.max_steps"] = 3
    else:
        changes["sampling.num_steps"] = 2
    return config.override(choice, [(key, str(value)) for key, value in changes.items()])


@pytest.mark.parametrize(
    "variant", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in VARIANTS]
)
def test_every_variant_trains_and_samples_through_its_own_sampler(variant: str, tmp_path: Path) -> None:
    choice = tiny("circles.py", variant, tmp_path / "data")
    assert train(choice, tmp_path / "run").step == 2
    assert (tmp_path / "run" / "samples" / "00000002.png").is_file()
    _, arrays = draw.draw(tmp_path / "run", tmp_path / "drawn", draw.Options(num=4))
    with np.load(arrays) as drawn:
        assert drawn["samples"].shape == (4, 3)
        assert np.isfinite(drawn["samples"]).all()
        assert (drawn["evaluations"] >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in FILES if file != "circles.py"])
def test_every_config_trains_and_samples(file: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (32, 8, 8, CHANNELS.get(file, 1)), dtype=np.uint8)
    labels = (np.arange(32) % 10).astype(np.int32)
    data = Arrays(events=pixels, labels=labels, center=127.5, scale=2 / 255, num_classes=10)
    choice = tiny(file, "flow_matching,conditional,class_conditional", tmp_path, **{"model.kwargs.num_heads": 1})
    config.override(choice, [("sampling.guidance.scale", "2.0"), ("sampling.guidance.interval", "(0.2, 0.8)")])
    assert train(choice, tmp_path / "run", data=data).step == 2
    assert (tmp_path / "run" / "samples" / "00000002.png").is_file()


def test_systems_differ_in_what_they_are_and_nothing_else() -> None:
    flow_matching, ddpm, twin = (
        config.load(f"configs/digits.py:{name}") for name in ("flow_matching,blind", "ddpm,blind", "ddpm,conditional")
    )
    assert config.differences(ddpm, twin) == {"model.blind": (True, False)}
    assert config.differences(flow_matching, ddpm) == {
        "schedule.name": ("Linear", "VPDiscrete"),
        "target.name": ("Velocity", "Noise"),
        "time_law.name": ("Uniform", "Discrete"),
        "sampling.sampler.name": ("heun", "ddim"),
        "sampling.sampler.kwargs.clip": ("<not set>", 1.0),
        "sampling.num_steps": (50, 100),
    }


def test_samplers_of_the_published_settings() -> None:
    """EDM's 18 levels and 35 evaluations, EqM's 249, and x clipped for pixels alone in both DDPMs."""
    for variant in ("edm,blind", "edm,conditional", "uedm,blind"):
        options = build.sampling_options(config.load(f"configs/cifar10.py:{variant}"))
        used = SAMPLERS[options["sampler"]]
        assert (options["num_steps"], options["grid"], options["denoise"]) == (17, "rho", True)
        assert used.evaluations(17) == 2 * 18 - 2
    for name in ("eqm_descent", "eqm_nesterov", "eqm_nesterov_released"):
        assert SAMPLERS[name].options["max_steps"] == 249
    assert build.sampling_options(config.load("configs/cifar10.py:eqm,blind"))["max_steps"] == 249
    for variant in ("ddpm,blind", "iddpm,conditional"):
        for file, clip in (("digits", 1.0), ("cifar10", 1.0), ("circles", None)):
            assert build.sampling_options(config.load(f"configs/{file}.py:{variant}")).get("clip") == clip
    kinds = [config.load(f"configs/cifar10.py:{name}").model.noise_feature for name in ("edm,conditional", "edm,blind")]
    assert kinds == ["c_noise", "time"]


@pytest.mark.parametrize("words", ["blind,ddpm", " ddpm , blind ", "ddpm,,blind", "ddpm"])
def test_words_of_a_variant_come_in_any_order_and_default(words: str) -> None:
    want = config.load("configs/circles.py:ddpm,blind")
    assert config.differences(config.load(f"configs/circles.py:{words}"), want) == {}
    assert config.differences(config.load("configs/circles.py:"), config.load("configs/circles.py")) == {}


BAD_VARIANTS = [
    ("ddmp,blind", "variant = 'ddmp,blind': unknown word 'ddmp'; did you mean"),
    ("DDPM", "unknown word 'DDPM'; must be one of bddm, blind, class_conditional, conditional, ddpm, dual_score, edm"),
    ("ddpm,flow_matching", "names more than one system: ddpm, flow_matching"),
    ("blind,conditional", "names more than one conditioning: blind, conditional"),
    ("bddm,conditional", "bddm is a blind denoiser, so that it can only be blind, not conditional"),
    ("dual_score,blind", "dual_score is a density at every noise level, so that it can only be conditional, not blind"),
]


@pytest.mark.parametrize(("variant", "message"), BAD_VARIANTS)
def test_bad_variant_is_named(variant: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.load(f"configs/digits.py:{variant}")


def test_recipes_of_a_data_set() -> None:
    paper = config.load("configs/cifar10.py:ddpm,blind,paper")
    assert (paper.training.num_steps, paper.training.batch_size) == (10_000, 128)
    assert build.from_spec("ema", paper.ema, ema.EMAS) == ema.Constant(rate=0.999)
    sun = config.load("configs/cifar10.py:edm,blind,sun")
    # 4000 epochs of 50,000 images by 512; a half-life of 500,000 images.
    assert (sun.training.num_steps, sun.training.batch_size) == (390_625, 512)
    assert sun.ema["kwargs"].half_life == pytest.approx(976.6, abs=0.1)
    with pytest.raises(ValueError, match="unknown word 'sun'"):
        config.load("configs/cifar10.py:eqm,sun")
    with pytest.raises(ValueError, match="unknown word 'sun'"):
        config.load("configs/svhn.py:edm,sun")


def test_half_life_of_the_ramped_average() -> None:
    rule = ema.Ramped(half_life=100.0, ramp=0.1)
    decay = jax.vmap(rule.decay)(jnp.arange(1, 5001))
    np.testing.assert_allclose(np.prod(np.asarray(decay[1000:1100], np.float64)), 0.5, rtol=1e-4)
    np.testing.assert_allclose(decay[99] ** 10, 0.5, rtol=1e-5)
    np.testing.assert_allclose(ema.Ramped(half_life=7.0, ramp=0.0).decay(jnp.int32(1)) ** 7, 0.5, rtol=1e-5)


def test_a_blind_network_cannot_be_shown_t_by_a_wrapper() -> None:
    for key, value in (("model.preconditioner.name", "edm"), ("model.reads_as.name", "Signal")):
        choice = config.override(config.load("configs/circles.py:flow_matching,blind"), [(key, value)])
        with pytest.raises(ValueError, match="must be None for a blind network, as it depends on t"):
            build.network_field(choice, build.network(choice, None), None, (8,))


def test_weight_of_the_preconditioned_loss_knows_the_target() -> None:
    choice = config.override(
        config.load("configs/circles.py:flow_matching,conditional"),
        [("loss_weight.name", "Preconditioned"), ("loss_weight.kwargs.sigma_data", "0.7")],
    )
    process = build.process(choice)
    assert build.loss_weight(choice) == Preconditioned(process.schedule, process.parameterization, 0.7)


def test_guidance_needs_classes() -> None:
    choice = config.override(config.load("configs/circles.py"), [("sampling.guidance.scale", "2.0")])
    field = build.network_field(choice, build.network(choice, None), None, (8,))
    with pytest.raises(ValueError, match="sampling.guidance.scale = 2.0: must be 1 for a model without classes"):
        build.sampling(choice).field(field)
    config.override(choice, [("model.class_conditional", "True"), ("model.label_dropout", "0.0")])
    with pytest.raises(ValueError, match="must be 1 for a model trained with model.label_dropout = 0"):
        build.sampling(choice).field(field)


def test_systems_hold_nothing_that_a_config_could_change() -> None:
    before = repr(SYSTEMS)
    choice = config.load("configs/circles.py:eqm,blind")
    config.override(choice, [("target.kwargs.decay", "linear"), ("sampling.sampler.kwargs.step_size", "0.1")])
    assert repr(SYSTEMS) == before
