"""No option of sampling is ignored: what would have no effect is refused by name, in the library and in configs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from geonoise_jax import build, config
from geonoise_jax.evaluation.restore import adjusted
from geonoise_jax.fields import GuidedField
from geonoise_jax.process import schedules, targets
from geonoise_jax.sampling import SAMPLERS, denoise, energy_score, generate, sample
from geonoise_jax.sampling.generation import check
from geonoise_jax.sampling.planning import plan
from geonoise_jax.systems import variants
from geonoise_jax.training.run import Sampling
from tests.sampling_oracles import gaussian

SCHEDULE = schedules.Linear()
GRIDLESS = [name for name, each in SAMPLERS.items() if not each.gridded]
AUTONOMOUS = [name for name, each in SAMPLERS.items() if not each.timed]
UNUSED = [
    *((name, "num_steps", 4) for name in GRIDLESS),
    *((name, "grid", "uniform") for name in GRIDLESS),
    *((name, "end_time", 0.1) for name in AUTONOMOUS),
]


@pytest.mark.parametrize(("sampler", "option", "value"), UNUSED)
def test_what_a_sampler_does_not_use_is_refused(sampler: str, option: str, value: Any) -> None:
    """By everything that takes it; invalid values too."""
    field, key = gaussian(SCHEDULE, targets.Velocity()), jax.random.key(0)
    for each in (value, "nonsense" if option != "end_time" else 0.5):
        message = f"{option} = {each!r}: has no effect with {sampler}, which"
        options: dict[str, Any] = {option: each}
        for call in (
            lambda options=options: generate(field, key, 2, sampler, **options),
            lambda options=options: sample(field, key, 2, sampler, **options),
            lambda options=options: check(field, sampler, **options),
            *([lambda options=options: plan(SCHEDULE, sampler, **options)] if option != "end_time" else []),
        ):
            with pytest.raises(ValueError, match=message):
                call()


def test_the_defaults_of_a_grid() -> None:
    """100 uniform steps; the ends alone for a sampler without a grid."""
    chosen, times = plan(SCHEDULE, "heun")
    assert chosen is SAMPLERS["heun"]
    np.testing.assert_array_equal(times, plan(SCHEDULE, "heun", 100, "uniform")[1])
    np.testing.assert_allclose(plan(SCHEDULE, "tsit5")[1], [SCHEDULE.t_max, SCHEDULE.t_min])


def test_data_without_effect_are_refused() -> None:
    """Where a = 0 nothing of x is left."""
    field = gaussian(schedules.Linear(t_max=1.0), targets.Velocity())
    with pytest.raises(ValueError, match="x: has no effect with a start at t = 1, where a = 0"):
        sample(field, jax.random.key(0), 2, x=np.ones((2, 3), np.float32), num_steps=2)
    with pytest.raises(ValueError, match="x: has no effect"):
        check(field, x=True)


@pytest.mark.parametrize("values", [np.arange(256, dtype=np.uint8), jnp.arange(-2, 254), np.array([[True, False]])])
def test_data_that_are_no_floats_are_refused_with_their_range(values: Any) -> None:
    """Stored values of a data set are no values of model space."""
    field, data = gaussian(SCHEDULE, targets.Velocity()), values.reshape(2, -1)
    message = f"dtype = {values.dtype}, {values.min()}..{values.max()}: must be floats, values of model space"
    with pytest.raises(ValueError, match=f"x.{message}"):
        generate(field, jax.random.key(0), 2, num_steps=2, x=data)
    for inverse in (lambda u: denoise(field, u, 0.5), lambda u: energy_score(WithEnergy(), u)):
        with pytest.raises(ValueError, match=f"u.{message}"):
            inverse(data)
    with pytest.raises(ValueError, match=f"u.dtype = {values.dtype}: must be floats"):
        jax.jit(lambda u: denoise(field, u, 0.5))(data)


class WithEnergy:
    def energy(self, u: jax.Array) -> jax.Array:
        return jnp.zeros(len(u))


@pytest.mark.parametrize(
    ("interval", "end_time"), [((5.0, 6.0), None), ((0.0, 0.0005), None), ((0.1, 0.2), 0.5)], ids=str
)
def test_an_interval_that_is_not_sampled_is_refused(interval: tuple[float, float], end_time: float | None) -> None:
    field = gaussian(SCHEDULE, targets.Velocity())
    guided = GuidedField(field, 2.0, field, interval=interval)
    with pytest.raises(ValueError, match="guidance interval = .*: has no effect, as sampling goes from"):
        check(guided, num_steps=2, end_time=end_time)


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.6, 0.1), (0.1,), (0.1, 0.2, 0.3), ("a", "b"), (float("nan"), 1.0)])
def test_an_invalid_interval_is_refused_at_every_scale(interval: Any) -> None:
    field = gaussian(SCHEDULE, targets.Velocity())
    for scale in (1.0, 2.0):
        with pytest.raises(ValueError, match="GuidedField.interval = "):
            GuidedField(field, scale, field, interval=interval)


def test_an_interval_without_guidance_is_refused() -> None:
    field = gaussian(SCHEDULE, targets.Velocity())
    for scale in (1, 1.0):
        with pytest.raises(ValueError, match="interval = .*: has no effect with scale = 1"):
            GuidedField(field, scale, field, interval=(0.1, 0.5))
    # A scale that is a leaf may be any.
    assert GuidedField(field, jnp.ones(()), field, interval=(0.1, 0.5)).interval == (0.1, 0.5)


def choice(variant: str, **changes: Any) -> ConfigDict:
    pairs = [(f"sampling.{key.replace('__', '.')}", str(value)) for key, value in changes.items()]
    return config.override(config.load(f"configs/circles.py:{variant}"), pairs)


@pytest.mark.parametrize("variant", variants())
def test_no_system_has_what_its_sampler_does_not_use(variant: str) -> None:
    settings = config.load(f"configs/circles.py:{variant}")
    options = build.sampling_options(settings)
    used = SAMPLERS[options.pop("sampler")]
    assert used.gridded == ("num_steps" in options) == ("grid" in options)
    assert config.differences(settings, config.fit_sampling(config.loads(config.dumps(settings)), ())) == {}
    assert not settings.sampling.denoise or used.timed


def test_a_config_knows_the_samplers_without_a_grid() -> None:
    assert list(config.GRIDLESS) == GRIDLESS
    assert list(config.AUTONOMOUS) == AUTONOMOUS
    settings = choice("edm,conditional", sampler__name="tsit5")
    assert build.sampling_options(settings) == {"sampler": "tsit5", "denoise": True, "batch_size": 256}
    given = choice("edm,conditional", sampler__name="tsit5", num_steps=3)
    assert (given.sampling.num_steps, given.sampling.grid) == (3, "")


def test_unset_keys_are_not_passed_on() -> None:
    options = build.sampling_options(config.base_config())
    assert options == {"sampler": "heun", "denoise": False, "batch_size": 256}


@pytest.mark.parametrize("option", ["num_steps", "grid", "batch_size", "rtol", "x"])
def test_an_option_of_the_sampler_cannot_stand_for_another_argument(option: str) -> None:
    settings = choice("flow_matching,blind", **{f"sampler__kwargs__{option}": 3})
    with pytest.raises(ValueError, match=f"{option} = 3: no option of the sampler 'heun'; it has none"):
        build.sampling_options(settings)


def test_guidance_of_a_config() -> None:
    for interval in ("(0.2, 0.8)", "(0.8, 0.2)", "(1,)"):
        settings = choice("flow_matching,blind", guidance__interval=interval)
        field = build.network_field(settings, build.network(settings, None), None, (8,))
        with pytest.raises(ValueError, match="sampling.guidance.interval = .*: has no effect with .*scale = 1"):
            build.sampling(settings).field(field)


def test_another_sampler_leaves_out_what_it_does_not_use() -> None:
    """And keeps what it does; what is given by name stays, to be refused."""
    eqm = build.sampling(choice("eqm,blind"))
    assert adjusted(eqm, {"sampler": "heun"}).options == {"sampler": "heun", "denoise": False, "batch_size": 256}
    assert SAMPLERS["heun"].gridded
    edm = build.sampling(choice("edm,conditional", end_time=0.01))
    options = adjusted(edm, {"sampler": "tsit5"}).options
    assert options == {"sampler": "tsit5", "denoise": True, "end_time": 0.01, "batch_size": 256}
    assert adjusted(edm, {"sampler": "eqm_descent"}).options == {"sampler": "eqm_descent", "batch_size": 256}
    options = adjusted(edm, {"sampler": "dpmpp_2m"}).options
    assert (options["num_steps"], options["grid"]) == (17, "rho")
    kept = adjusted(edm, {"sampler": "tsit5", "num_steps": 3, "grid": "rho"}, interval=(0.1, 0.2))
    assert (kept.options["num_steps"], kept.options["grid"], kept.interval) == (3, "rho", (0.1, 0.2))


def test_guidance_keeps_the_interval_of_the_run_unless_it_is_turned_off() -> None:
    guided = Sampling(guidance=2.0, interval=(0.2, 0.8))
    assert adjusted(guided, {}) == guided
    for guidance, interval, expected in ((3.0, None, (0.2, 0.8)), (1.0, None, None), (None, (), None)):
        assert adjusted(guided, {}, guidance, interval).interval == expected


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [("noise_feature", "log_snr", "model.blind = True"), ("label_dropout", "0.2", "model.class_conditional = False")],
)
def test_keys_of_the_model_without_effect(key: str, value: str, why: str) -> None:
    settings = config.override(config.load("configs/circles.py:ddpm,blind"), [(f"model.{key}", value)])
    with pytest.raises(ValueError, match=f"model.{key} = .*: has no effect with {why}"):
        build.network_field(settings, build.network(settings, None), None, (8,))


def test_the_evaluation_of_the_last_estimate_is_counted() -> None:
    """EDM's 18 levels are 35 evaluations."""
    field = gaussian(schedules.VE(t_min=0.002, t_max=80.0), targets.Signal())
    drawn = generate(field, jax.random.key(0), 3, sampler="heun", num_steps=17, grid="rho", denoise=True)
    assert drawn.statistics["evaluations"].tolist() == [35.0] * 3
