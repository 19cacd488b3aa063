"""Stochastic samplers: their published formulas, and the law in which they end on the exact Gaussian field."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process import grids, schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.sampling import ancestral, ddim, edm_churn, euler, predictor_corrector, reverse_sde, stepping
from geonoise_jax.sampling.sde import DIFFUSIONS
from geonoise_jax.sampling.stepping import fresh_noise
from tests.sampling_oracles import MEAN, VAR, final_law, gaussian, marginal_law

Run = Callable[..., Any]
KEYS = jax.random.split(jax.random.key(1), 16)
# Sampler and weak order.
ORDERS: dict[str, tuple[Run, int]] = {
    "ancestral": (ancestral, 1),
    "reverse_sde": (reverse_sde, 1),
    "reverse_sde half": (functools.partial(reverse_sde, stochasticity=0.5), 1),
    "interpolant": (functools.partial(reverse_sde, diffusion="interpolant"), 1),
    "predictor": (functools.partial(predictor_corrector, corrector_steps=0), 1),
    "reverse diffusion": (
        functools.partial(predictor_corrector, corrector_steps=0, predictor="reverse_diffusion"),
        1,
    ),
    "fixed_large": (functools.partial(ancestral, variance="fixed_large"), 1),
    "edm_churn": (functools.partial(edm_churn, s_churn=10.0), 2),
}
STEPS = 12
TABLE = np.random.default_rng(0).standard_normal((2 * STEPS, 16, 3))
ALL_SCHEDULES = [pytest.param(schedule(), id=schedule.__name__) for schedule in SCHEDULES]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> jax.Array:
    """Noise known beforehand, by the number of the draw; a sampler with it compiles in half the time."""
    noise = jnp.asarray(TABLE)
    monkeypatch.setattr(stepping, "fresh_noise", lambda _keys, number, _like: noise[number])
    return noise


def start(schedule: Schedule) -> jax.Array:
    return Process(schedule, targets.Velocity()).start(jax.random.key(0), (16, 3))


def weak_errors(patch: pytest.MonkeyPatch, run: Run, schedule: Schedule, num_steps: int, draws: int = 1) -> np.ndarray:
    """Error of the mean in standard deviations, and of the variance relatively."""
    times = grids.log_snr(schedule, num_steps)
    mean, var = final_law(patch, run, schedule, targets.Velocity(), times, draws)
    want_mean, want_var = marginal_law(schedule, schedule.t_min)
    return np.stack([(mean - want_mean) / np.sqrt(want_var), var / want_var - 1.0])


@pytest.mark.parametrize("name", ORDERS)
def test_weak_order(name: str, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """Halving the step divides the errors of the mean and of the variance by 2^order."""
    run, order = ORDERS[name]
    coarse, fine = (np.abs(weak_errors(monkeypatch, run, schedules.VPLinear(), n)).max() for n in (200, 400))
    assert coarse < 0.4
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_final_law_on_every_schedule(schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, with as many steps as DDPM: what is left is the weak error of first order.

    That ancestral sampling and EDM's are the same on all schedules is tested by itself.
    """
    runs = (reverse_sde, ancestral) if isinstance(schedule, schedules.VPDiscrete) else (reverse_sde,)
    for run in runs:
        assert np.abs(weak_errors(monkeypatch, run, schedule, 1000)).max() < 0.06


def test_the_corrector_leaves_the_bias_of_langevin(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """With many steps the law is the stationary one of u <- u - e u / Var u + sqrt(2 e) z, e = (snr b)^2 times 2."""
    schedule, snr = schedules.VE(t_min=2.0), 0.3
    run = functools.partial(predictor_corrector, snr=snr)
    coarse, fine = (weak_errors(monkeypatch, run, schedule, n, 2) for n in (500, 1000))
    excess = (snr * schedule.t_min) ** 2 / marginal_law(schedule, schedule.t_min)[1]
    # Extrapolated to infinitely many steps.
    np.testing.assert_allclose((2.0 * fine - coarse)[1], excess / (1.0 - excess), rtol=0.02)


def ddpm_tables() -> tuple[np.ndarray, np.ndarray]:
    beta = np.linspace(1e-4, 0.02, 1000)
    return beta, np.cumprod(1.0 - beta)


@pytest.mark.parametrize("t", [2, 10, 500, 1000])
def test_ancestral_is_the_ddpm_posterior(t: int, x64: None, table: jax.Array) -> None:
    """Ho et al. 2020, equations 6, 7 and 11, on unit steps."""
    schedule = schedules.VPDiscrete()
    beta, alpha_bar = ddpm_tables()
    b, bar, bar_s = beta[t - 1], alpha_bar[t - 1], alpha_bar[t - 2]
    field, u = gaussian(schedule, targets.Noise()), start(schedule)
    mean = (u - b / math.sqrt(1.0 - bar) * field(u, jnp.full(16, float(t)))) / math.sqrt(1.0 - b)
    want = mean + math.sqrt(b * (1.0 - bar_s) / (1.0 - bar)) * table[0]
    np.testing.assert_allclose(ancestral(field, u, jnp.array([t, t - 1.0]), KEYS), want, rtol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_with_noise_is_the_published_step(eta: float, x64: None, table: jax.Array) -> None:
    """Song, Meng & Ermon 2021, equations 12 and 16, over a step of any length."""
    schedule, (_, alpha_bar) = schedules.VPDiscrete(), ddpm_tables()
    field, u, t, s = gaussian(schedule, targets.Noise()), start(schedule), 700, 300
    bar, bar_s = alpha_bar[t - 1], alpha_bar[s - 1]
    eps = field(u, jnp.full(16, float(t)))
    sigma = eta * math.sqrt((1.0 - bar_s) / (1.0 - bar)) * math.sqrt(1.0 - bar / bar_s)
    x = (u - math.sqrt(1.0 - bar) * eps) / math.sqrt(bar)
    want = math.sqrt(bar_s) * x + math.sqrt(1.0 - bar_s - sigma**2) * eps
    want += sigma * table[0]
    np.testing.assert_allclose(ddim(field, u, jnp.array([t, s], float), KEYS, eta=eta), want, rtol=1e-9)


def edm_algorithm_2(denoise: Run, x: Any, sigma: np.ndarray, noise: Any, churn: float, low: float, high: float) -> Any:
    """Karras et al. 2022, Algorithm 2, line by line but for the step to 0; ``noise`` includes S_noise."""
    for i in range(len(sigma) - 1):
        gamma = min(churn / len(sigma), math.sqrt(2.0) - 1.0) if low <= sigma[i] <= high else 0.0
        hat = min(sigma[i] * (1.0 + gamma), sigma[0])
        x_hat = x + math.sqrt(hat**2 - sigma[i] ** 2) * noise[i]
        slope = (x_hat - denoise(x_hat, hat)) / hat
        x = x_hat + (sigma[i + 1] - hat) * slope
        slope_next = (x - denoise(x, sigma[i + 1])) / sigma[i + 1]
        x = x_hat + (sigma[i + 1] - hat) * 0.5 * (slope + slope_next)
    return x


@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_edm_churn_is_algorithm_2_on_every_schedule(schedule: Schedule, x64: None, table: jax.Array) -> None:
    """Once u is divided by a, a schedule is of no account; the level is not raised beyond t_max."""
    times = grids.log_snr(schedule, STEPS)
    sigma, scale = np.exp(np.asarray(schedule.eta(times))), np.asarray(schedule.scales(times)[0])
    low, high = float(sigma[9]) * 0.999, float(sigma[0]) * 1.001
    u, field = start(schedule), gaussian(schedules.VE(t_min=1e-9, t_max=1e9), targets.Signal())
    denoise = jax.jit(lambda x, level: field(x, jnp.full(16, level)))
    want = edm_algorithm_2(denoise, u / scale[0], sigma, 1.01 * table, 3.0, low, high)
    options = {"s_churn": 3.0, "s_tmin": low, "s_tmax": high, "s_noise": 1.01}
    end = edm_churn(gaussian(schedule, targets.Velocity()), u, times, KEYS, **options)
    np.testing.assert_allclose(end / scale[-1], want, rtol=1e-6, atol=1e-8)


def test_without_noise_they_are_ordinary_solvers(x64: None, table: jax.Array) -> None:
    schedule = schedules.VPLinear()
    field, u, times = gaussian(schedule, targets.Noise()), start(schedule), grids.log_snr(schedule, 10)
    np.testing.assert_allclose(ddim(field, u, times, KEYS, eta=1e-9), ddim(field, u, times), rtol=1e-7)
    np.testing.assert_allclose(reverse_sde(field, u, times, KEYS, stochasticity=0.0), ddim(field, u, times), rtol=1e-12)
    np.testing.assert_allclose(reverse_sde(field, u, times, KEYS, stochasticity=1e-9), ddim(field, u, times), rtol=1e-7)


@pytest.mark.parametrize("schedule", [schedules.VE(), schedules.Linear()], ids=["VE", "Linear"])
def test_without_noise_the_reverse_sde_is_euler_where_the_scales_are_linear(schedule: Schedule, x64: None) -> None:
    field, u, times = gaussian(schedule, targets.Noise()), start(schedule), grids.rho(schedule, 10)
    np.testing.assert_allclose(reverse_sde(field, u, times, KEYS, stochasticity=0.0), euler(field, u, times), rtol=1e-9)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_ancestral_variances_in_closed_form(
    schedule: Schedule, variance: str, monkeypatch: pytest.MonkeyPatch, x64: None
) -> None:
    """Two steps on the Gaussian: E[x | u], the mean of q(u_s | u, x), and beta-tilde or beta."""
    times = grids.log_snr(schedule, 2)
    run = functools.partial(ancestral, variance=variance)
    mean, var = final_law(monkeypatch, run, schedule, targets.Velocity(), times)
    want_mean, want = marginal_law(schedule, schedule.t_max)
    for t, s in itertools.pairwise(times):
        (a, b), (a_s, b_s) = ([float(each) for each in schedule.scales(at)] for at in (t, s))
        alpha = a / a_s
        beta = b**2 - alpha**2 * b_s**2
        by_x, by_u = a_s * beta / b**2, alpha * b_s**2 / b**2
        gain = a * VAR / (a**2 * VAR + b**2)
        fresh = beta if variance == "fixed_large" else beta * b_s**2 / b**2
        want_mean = by_x * (MEAN + gain * (want_mean - a * MEAN)) + by_u * want_mean
        want = (by_x * gain + by_u) ** 2 * want + fresh
    np.testing.assert_allclose(mean, want_mean, rtol=1e-7)
    np.testing.assert_allclose(var, want, rtol=1e-7)


def test_ddpm_of_the_published_code(x64: None, table: jax.Array) -> None:
    """Ho et al. 2020 for CIFAR-10: x clipped to [-1, 1], beta as variance; one unit step."""
    schedule, t, (beta, bars) = schedules.VPDiscrete(), 600, ddpm_tables()
    field, u, bar, bar_s = gaussian(schedule, targets.Noise()), 3.0 * start(schedule), bars[t - 1], bars[t - 2]
    eps = field(u, jnp.full(16, float(t)))
    x = np.clip((u - math.sqrt(1.0 - bar) * eps) / math.sqrt(bar), -1.0, 1.0)
    assert (np.abs(x) == 1.0).any()
    b = beta[t - 1]
    want = math.sqrt(bar_s) * b / (1.0 - bar) * x + math.sqrt(1.0 - b) * (1.0 - bar_s) / (1.0 - bar) * u
    end = ancestral(field, u, jnp.array([t, t - 1.0]), KEYS, variance="fixed_large", clip=1.0)
    np.testing.assert_allclose(end, want + math.sqrt(b) * table[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_clipping_recomputes_the_noise(schedule: Schedule, eta: float, x64: None, table: jax.Array) -> None:
    """The step of the released code of DDIM on every schedule, whatever the target."""
    u, times = start(schedule), grids.log_snr(schedule, 4)[1:3]
    (a, b), (a_s, b_s) = ([float(each) for each in schedule.scales(at)] for at in times)
    ends = []
    for target in (targets.Signal(), targets.EDMNetwork()):
        ends.append(ddim(gaussian(schedule, target), u, times, KEYS, eta=eta, clip=0.4))
    x = np.clip(gaussian(schedule, targets.Signal())(u, jnp.full(16, times[0])), -0.4, 0.4)
    eps, sigma = (u - a * x) / b, eta * b_s * math.sqrt(1.0 - (a * b_s / (a_s * b)) ** 2)
    want = a_s * x + math.sqrt(b_s**2 - sigma**2) * eps + sigma * table[0]
    for end in ends:
        np.testing.assert_allclose(end, want, rtol=1e-7, atol=1e-9)


def test_clipped_samples_end_within_the_limit(x64: None) -> None:
    schedule = schedules.Linear(t_min=0.0)
    field, u, times = gaussian(schedule, targets.Velocity()), start(schedule), grids.uniform(schedule, 8)
    ends = [run(field, u, times, KEYS, clip=0.5) for run in (ddim, ancestral)]
    for end in ends:
        assert np.abs(end).max() <= 0.5 + 1e-12
        assert (np.abs(end) > 0.4999).any()


def test_a_short_step_of_the_reverse_sde_is_the_published_one(x64: None, table: jax.Array) -> None:
    """Song et al. 2021, equation 6 with f = -beta u / 2 and g^2 = beta: Euler-Maruyama up to h^1.5."""
    schedule, t = schedules.VPLinear(), 0.6
    field, u, beta = gaussian(schedule, targets.Score()), start(schedule), 0.1 + t * 19.9
    drift, errors = -0.5 * beta * u - beta * field(u, jnp.full(16, t)), []
    for h in (1e-4, 0.5e-4):
        want = u - h * drift + math.sqrt(beta * h) * table[0]
        errors.append(np.abs(reverse_sde(field, u, jnp.array([t, t - h]), KEYS) - want).max())
    assert errors[1] < 2e-5
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
@pytest.mark.parametrize("schedule", [schedules.Linear(), schedules.Linear(t_max=1.0), schedules.Trigonometric()])
def test_a_uniform_grid_from_where_the_signal_vanishes(
    schedule: Schedule, diffusion: str, monkeypatch: pytest.MonkeyPatch, x64: None
) -> None:
    """The first step is long in log-SNR, and at t = 1 infinitely so."""
    run = functools.partial(reverse_sde, diffusion=diffusion)
    errors = []
    for num_steps in (50, 100):
        times = grids.uniform(schedule, num_steps)
        mean, var = final_law(monkeypatch, run, schedule, targets.Velocity(), times, 1)
        want_mean, want_var = marginal_law(schedule, schedule.t_min)
        errors.append(np.abs([(mean - want_mean) / np.sqrt(want_var), var / want_var - 1.0]).max())
    assert errors[1] < 0.6 * errors[0] < 0.1


def test_the_interpolant_diffusion_is_that_of_the_reverse_sde_on_ve(x64: None, table: jax.Array) -> None:
    schedule = schedules.VE()
    field, u, times = gaussian(schedule, targets.Noise()), start(schedule), grids.rho(schedule, 10)
    ends = [reverse_sde(field, u, times, KEYS, diffusion=name) for name in ("reverse", "interpolant")]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)


@pytest.mark.parametrize("schedule", [schedules.VPDiscrete(), schedules.VE()], ids=["VP", "VE"])
def test_a_predictor_step_is_the_published_one(schedule: Schedule, x64: None, table: jax.Array) -> None:
    """Song et al. 2021, Algorithms 2 and 3: reverse diffusion for VE and for VP, then one Langevin step."""
    t, s, snr = (500.0, 499.0, 0.2) if isinstance(schedule, schedules.VPDiscrete) else (2.0, 1.5, 0.2)
    u, field = start(schedule), gaussian(schedule, targets.Score())
    score = lambda u, t: field(u, jnp.full(16, t))  # noqa: E731
    z = table[:2]
    if isinstance(schedule, schedules.VPDiscrete):
        beta = ddpm_tables()[0][499]
        predicted = (2.0 - math.sqrt(1.0 - beta)) * u + beta * score(u, t) + math.sqrt(beta) * z[0]
        step = 2.0 * (1.0 - beta) * (snr * float(schedule.scales(jnp.asarray(s))[1])) ** 2
    else:
        predicted = u + (t**2 - s**2) * score(u, t) + math.sqrt(t**2 - s**2) * z[0]
        step = 2.0 * (snr * s) ** 2
    want = predicted + step * score(predicted, s) + math.sqrt(2.0 * step) * z[1]
    run = functools.partial(predictor_corrector, snr=snr, predictor="reverse_diffusion")
    np.testing.assert_allclose(run(field, u, jnp.array([t, s]), KEYS), want, rtol=1e-8)


def test_the_released_predictor_and_corrector(x64: None, table: jax.Array) -> None:
    """The VE default of Song et al.'s code, with norms of each sample: Langevin at t, then reverse diffusion."""
    t, s, snr = 2.0, 1.5, 0.16
    schedule = schedules.VE()
    u, field = start(schedule), gaussian(schedule, targets.Score())
    norm = lambda v: np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    want = np.asarray(u)
    for draw in (0, 1):
        score = np.asarray(field(jnp.asarray(want), jnp.full(16, t)))
        step = 2.0 * (snr * norm(table[draw]) / norm(score)) ** 2
        want = want + step * score + np.sqrt(2.0 * step) * table[draw]
    score = np.asarray(field(jnp.asarray(want), jnp.full(16, t)))
    want = want + (t**2 - s**2) * score + math.sqrt(t**2 - s**2) * table[2]
    options: dict[str, Any] = {"predictor": "reverse_diffusion", "corrector": "langevin", "order": "corrector_first"}
    end = predictor_corrector(field, u, jnp.array([t, s]), KEYS, corrector_steps=2, **options)
    np.testing.assert_allclose(end, want, rtol=1e-8)


def test_langevin_steps_of_a_sample_do_not_depend_on_the_batch(x64: None) -> None:
    schedule, run = schedules.VE(), functools.partial(predictor_corrector, corrector="langevin")
    u, field, times = start(schedule), gaussian(schedule, targets.Score()), grids.log_snr(schedule, 3)
    whole, part = run(field, u, times, KEYS), run(field, u[2:5], times, KEYS[2:5])
    np.testing.assert_allclose(part, whole[2:5], rtol=1e-9)


def test_noise_belongs_to_the_sample_and_the_draw() -> None:
    like = jnp.zeros((16, 3))
    noise = np.stack([fresh_noise(KEYS, jnp.asarray(i), like) for i in range(50)])
    assert len(np.unique(noise)) == noise.size
    # To rounding: how many samples are computed at once may change the last bit.
    np.testing.assert_allclose(fresh_noise(KEYS[3:5], jnp.asarray(7), like[3:5]), noise[7, 3:5], rtol=1e-6)
    assert abs(noise.std() - 1.0) < 0.05


@pytest.mark.parametrize("name", ["ancestral", "interpolant", "edm_churn", "predictor"])
def test_ends_without_signal_and_without_noise(name: str) -> None:
    """At a = 0 and at b = 0 the log-SNR is infinite; nothing may become infinite or undefined by it."""
    schedule = schedules.Linear(t_min=0.0, t_max=1.0)
    times = jnp.concatenate([jnp.ones(1), grids.log_snr(schedules.Linear(), 20), jnp.zeros(1)])

    class Still:
        process = Process(schedule, targets.Velocity())

        def __call__(self, u: jax.Array, _: jax.Array) -> jax.Array:
            return 0.1 * u

    assert np.isfinite(ORDERS[name][0](Still(), start(schedule), times, KEYS)).all()


BAD: list[tuple[Run, dict[str, Any], str]] = [
    (ddim, {"eta": 1.5}, r"eta = 1.5: must be a number in \[0, 1\]"),
    (ddim, {"eta": "1"}, "eta = '1': must be a number"),
    (edm_churn, {"s_churn": -1.0}, r"s_churn = -1.0: must be a number in \[0, inf\)"),
    (reverse_sde, {"stochasticity": math.nan}, "stochasticity = nan"),
    (reverse_sde, {"diffusion": "vp"}, "diffusion = 'vp': must be one of reverse, interpolant"),
    (predictor_corrector, {"snr": 0.0}, r"snr = 0.0: must be a number in \(0, 1\]"),
    (predictor_corrector, {"corrector_steps": 1.5}, "corrector_steps = 1.5: must be an integer >= 0"),
    (predictor_corrector, {"predictor": "em"}, "predictor = 'em': must be one of ancestral, reverse_diffusion"),
    (predictor_corrector, {"corrector": "none"}, "corrector = 'none': must be one of ald, langevin"),
    (predictor_corrector, {"order": "first"}, "order = 'first': must be one of predictor_first, corrector_first"),
    (ancestral, {"variance": "learned"}, "variance = 'learned': must be one of fixed_small, fixed_large"),
    (ancestral, {"clip": 0.0}, r"clip = 0.0: must be a number in \(0, inf\]"),
    (ddim, {"clip": True}, "clip = True: must be a number"),
    (edm_churn, {"s_tmin": 2.0, "s_tmax": 1.0}, "s_tmin = 2.0: must be at most s_tmax = 1.0"),
    (edm_churn, {"s_churn": 0.0, "s_noise": 1.003}, "s_noise = 1.003: has no effect with s_churn = 0"),
    (edm_churn, {"s_churn": 0, "s_tmin": 0.05}, "s_tmin = 0.05: has no effect with s_churn = 0"),
    (
        reverse_sde,
        {"stochasticity": 0.0, "diffusion": "interpolant"},
        "diffusion = 'interpolant': has no effect with stochasticity = 0",
    ),
    (predictor_corrector, {"corrector_steps": 0, "snr": 0.3}, "snr = 0.3: has no effect with corrector_steps = 0"),
    (
        predictor_corrector,
        {"corrector_steps": 0, "order": "corrector_first"},
        "order = 'corrector_first': has no effect with corrector_steps = 0",
    ),
]


@pytest.mark.parametrize(("run", "options", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_options(run: Run, options: dict[str, Any], message: str) -> None:
    schedule = schedules.VE()
    with pytest.raises(ValueError, match=message):
        run(gaussian(schedule, targets.Noise()), start(schedule), grids.rho(schedule, 2), KEYS, **options)
