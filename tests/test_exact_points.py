"""The command ``geonoise exact``: stored values against the exact fields themselves, the self-check, and bad input."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.errors import UserError
from geonoise_jax.exact import FiniteSet, Marginal, QuadratureWarning, reference
from tests.command_line import Ended, run, snapshot

CIRCLES = "--config=configs/circles.py"
DIGITS = "--config=configs/digits.py:ddpm"
BLOCK = 4


def exact(*words: str | Path) -> dict[str, Any]:
    """What a command that ends well has stored."""
    ended = run("exact", *words)
    assert ended.status == 0, ended.err
    path = ended.out.splitlines()[-1]
    assert path.endswith(".npz")
    assert not list(Path(path).parent.glob("*.tmp"))
    with np.load(path) as arrays:
        return dict(arrays)


def refused(*words: str | Path) -> str:
    """The message of a command that is refused with one line."""
    ended = run("exact", *words)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("geonoise exact: ")
    assert ended.err.count("\n") == 1
    return ended.err.removeprefix("geonoise exact: ").rstrip("\n")


def one_by_one(marginal: Marginal, u: jax.Array, t: jax.Array | None) -> dict[str, Any]:
    """Every quantity by the method of its own."""
    posterior = marginal.posterior(u)
    result: dict[str, Any] = {
        "energy": marginal.energy(u),
        "log_density": marginal.log_density(u),
        "energy_grad": marginal.energy_grad(u),
        "field": marginal.field(u),
        "denoiser": marginal.posterior_denoiser(u),
        "inverse_noise": marginal.inverse_noise_moment(u, 1.0),
        "inverse_noise2": marginal.inverse_noise_moment(u, 2.0),
        **{f"posterior_{name}": value for name, value in posterior._asdict().items()},
    }
    if not marginal.mean_gain_problem():
        parts = marginal.decompose(u)._asdict()
        result |= {name: parts[name] for name in ("natural", "transport", "drift", "gain", "drift_scale")}
    if t is None:
        return result
    process, field = marginal.process, marginal.conditional_field(u, t)
    velocity, blind_velocity = process.velocity(u, field, t), process.velocity(u, result["field"], t)
    conditional = {
        "field": field,
        "denoiser": marginal.denoiser(u, t),
        "energy_grad": marginal.energy_grad_at(u, t),
        "estimation_error": marginal.estimation_error(u, t),
        "jensen_gap": marginal.jensen_gap(u, t),
        "velocity": velocity,
        "blind_velocity": blind_velocity,
        "velocity_error": jnp.sqrt(((velocity - blind_velocity).reshape(len(u), -1) ** 2).sum(-1)),
    }
    return result | {f"conditional_{name}": value for name, value in conditional.items()}


def assert_same(stored: dict[str, Any], expected: dict[str, Any], rtol: float) -> None:
    """Relative to the largest entry of every quantity."""
    for name, values in expected.items():
        assert stored[name].shape == values.shape, name
        np.testing.assert_allclose(stored[name], values, rtol=0, atol=rtol * np.abs(values).max(), err_msg=name)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two batches, the second of them not full."""
    out = tmp_path_factory.mktemp("drawn") / "new" / "circles"
    return exact(CIRCLES, "--num=6", f"--batch-size={BLOCK}", "--t=0.1,0.5", f"--out={out}", "--config.seed=5")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"--config.data.data_dir={tmp_path_factory.mktemp('data')}"


def test_stored_values_are_those_of_the_marginal(drawn: dict[str, Any]) -> None:
    choice = config.loads(str(drawn["config"]))
    assert (choice.seed, choice.data.name, float(drawn["accuracy"])) == (5, "circles", 1e-5)
    marginal = build.marginal(choice)
    np.testing.assert_array_equal(drawn["t"], np.asarray([0.1, 0.5] * 3, np.float32))
    terms = drawn["natural"] + drawn["transport"] + drawn["drift"]
    np.testing.assert_allclose(terms, drawn["field"], atol=1e-5 * np.abs(drawn["drift"]).max())
    for rows in (slice(0, BLOCK), slice(6 - BLOCK, 6)):
        u, t = (jnp.asarray(drawn[name][rows]) for name in ("u", "t"))
        expected = one_by_one(marginal, u, t)
        told = {name for name in drawn if name.startswith("error_")}
        assert set(expected) | told | {"u", "x", "t", "config", "split", "accuracy"} == set(drawn)
        assert {"error_field", "error_log_density", "error_posterior", "error_decomposition"} <= told
        assert_same({name: drawn[name][rows] for name in expected}, expected, 3e-5)


def test_drawn_observations_are_data_and_noise(drawn: dict[str, Any], tmp_path: Path) -> None:
    choice = config.load("configs/circles.py")
    radii = np.linalg.norm(drawn["x"], axis=1)
    np.testing.assert_allclose(np.minimum(np.abs(radii - 1), np.abs(radii - 2)), 0, atol=1e-5)
    k = build.process(choice).coeffs(drawn["t"])
    noise = (drawn["u"] - k.a[:, None] * drawn["x"]) / k.b[:, None]
    assert 0.6 < noise.std() < 1.4
    size = f"--batch-size={BLOCK}"
    first, again, other = (
        exact(CIRCLES, "--num=4", size, f"--out={tmp_path / 'a'}", f"--seed={seed}") for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["u"], again["u"])
    for name in ("x", "u", "t"):
        assert not np.isclose(first[name], other[name]).any(axis=-1).all(), name
    assert len(np.unique(first["t"])) == 4
    law = build.time_law(choice)
    assert np.all((first["t"] >= law.lo) & (first["t"] <= law.hi))


@pytest.mark.slow
def test_given_points_of_a_split_in_float64(data_dir: str, tmp_path: Path) -> None:
    """Flattened or not, with their noise level or without, for a discrete law on the points of the test split."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.normal(size=(2, 8, 8, 1)))
    np.save(tmp_path / "rows.npy", np.load(tmp_path / "images.npy").reshape(2, 64))
    words = (DIGITS, data_dir, "--split=test", "--x64", f"--out={tmp_path / 'out.npz'}")
    images = exact(*words, f"--points={tmp_path / 'images.npy'}", "--t=30")
    choice = config.loads(str(images["config"]))
    assert (str(images["split"]), choice.target.name, float(images["accuracy"])) == ("test", "Noise", 1e-11)
    assert "x" not in images
    data = build.arrays(choice, "test")
    points = data.to_model(data.events).astype(np.float64)
    with jax.enable_x64(True):
        marginal = build.marginal(choice, FiniteSet(points))
        expected = one_by_one(marginal, jnp.asarray(images["u"]), jnp.full(2, 30.0))
        assert_same(images, expected, 1e-12)
    assert images["field"].shape == (2, 8, 8, 1)
    rows = exact(*words, f"--points={tmp_path / 'rows.npy'}")
    assert set(images) - set(rows) == {"t", *(name for name in images if name.startswith("conditional_"))}
    for name, values in rows.items():
        np.testing.assert_array_equal(values, images[name], err_msg=name)


def test_the_table(tmp_path: Path, drawn: dict[str, Any]) -> None:
    np.save(tmp_path / "u.npy", drawn["u"][:BLOCK])
    ended = run("exact", CIRCLES, f"--points={tmp_path / 'u.npy'}", f"--out={tmp_path / 'v1.0'}")
    assert ended.status == 0
    assert "exact: 4/4 points (100%)" in ended.err
    table = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines()}
    assert set(table) >= {"|u|", "energy", "|energy_grad|", "|field|", "posterior_mean", "gain", "|transport|"}
    assert not {"t", "posterior_t", "|posterior_weights|", "|posterior_mean", "warning:"} & set(table)
    for name, values in (("energy", drawn["energy"]), ("|field|", np.linalg.norm(drawn["field"], axis=1))):
        block = values[:BLOCK]
        np.testing.assert_allclose(
            [float(word) for word in table[name]], [block.min(), np.median(block), block.max()], rtol=1e-3
        )
    assert ended.out.splitlines()[-1] == str(tmp_path / "v1.0.npz")


def test_what_is_inaccurate_or_not_finite_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "far.npy", np.concatenate([np.ones((3, 8)), np.full((1, 8), 1e30)]).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuadratureWarning)
        ended = run("exact", CIRCLES, f"--points={tmp_path / 'far.npy'}", f"--out={tmp_path / 'a'}", "--accuracy=1e-30")
    assert ended.status == 0, ended.err
    assert "asked for 1.0e-30\nwarning: 4 of 4 points miss it" in ended.out
    assert "warning: 1 of 4 points have a quantity that is not finite" in ended.out


def test_a_decomposition_that_does_not_exist_is_left_out(tmp_path: Path) -> None:
    ended = run("exact", CIRCLES, "--num=4", "--config.schedule.kwargs.t_max=1.0", f"--out={tmp_path / 'a.npz'}")
    assert ended.status == 0, ended.err
    assert (
        "left out the decomposition: the mean gain and the mean drift scale are infinite: a = 0 at t = 1" in ended.out
    )
    with np.load(tmp_path / "a.npz") as arrays:
        assert not {"natural", "transport", "drift", "gain", "drift_scale"} & set(arrays)
        assert np.isfinite(arrays["conditional_field"]).all()
        choice = config.loads(str(arrays["config"]))
        expected = one_by_one(build.marginal(choice), jnp.asarray(arrays["u"]), jnp.asarray(arrays["t"]))
        assert_same(dict(arrays), expected, 3e-5)


def test_an_interrupt_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("old")
    before = snapshot(tmp_path)[str(tmp_path / "a.npz")]
    drafts: list[Path] = []

    def interrupt(*_: Any) -> None:
        drafts.extend(tmp_path.glob("*.tmp"))
        drafts.extend(tmp_path.glob(".*.tmp"))
        raise KeyboardInterrupt

    monkeypatch.setattr(Marginal, "analyse", interrupt)
    ended = run("exact", CIRCLES, "--num=4", f"--out={tmp_path / 'a'}")
    assert ended == (130, "", "geonoise exact: stopped by SIGINT\n")
    assert drafts
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert snapshot(tmp_path)[str(tmp_path / "a.npz")] == before


NAN = np.ones((5, 8))
NAN[[2, 4], 3] = np.nan
POINTS: dict[str, tuple[Any, str]] = {
    "nan": (NAN, "2 of 5 points are not finite numbers, the first at index 2"),
    "too large for float32": (np.full((1, 8), 1e39), "1 of 1 points are not finite numbers, the first at index 0"),
    "another dimension": (np.ones((5, 7)), "has shape [5, 7]; the config's data needs [B, 8]"),
    "one point without a batch": (np.ones(8), "has shape [8]; must be one or more points, [B, *event] or [B, D]"),
    "no point": (np.ones((0, 8)), "has shape [0, 8]; must be one or more points"),
    "complex": (np.ones((1, 8), complex), "has dtype complex128; must be real numbers"),
    "words": (np.array([["a"] * 8]), "has dtype <U1; must be real numbers"),
    "objects": (np.array([[None] * 8]), "has dtype object; must be real numbers"),
    "empty": (b"", "not a readable .npy file of numbers"),
    "text": (b"1.0, 2.0\n3.0, 4.0\n", "not a readable .npy file of numbers"),
}


@pytest.mark.parametrize("name", POINTS)
def test_bad_points_are_refused(name: str, tmp_path: Path) -> None:
    content, message = POINTS[name]
    path = tmp_path / "u.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    before = snapshot(tmp_path)
    error = refused(CIRCLES, f"--points={path}", f"--out={tmp_path / 'new' / 'a'}")
    assert error.startswith(f"points = {str(path)!r}: ")
    assert message in error
    assert snapshot(tmp_path) == before


def test_cut_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", np.ones((4, 8)))
    np.savez(tmp_path / "u.npz", u=np.ones((4, 8)))
    for kind in (".npy", ".npz"):
        cut = tmp_path / f"cut{kind}"
        cut.write_bytes((tmp_path / f"u{kind}").read_bytes()[:-8])
        error = refused(CIRCLES, f"--points={cut}", f"--out={tmp_path / 'a'}")
        assert error.startswith(f"points = {str(cut)!r}: not a readable {kind} file of numbers (")


BAD = [
    (["--num=0"], "num = 0: must be an integer >= 1"),
    (["--num=3", "--batch-size=0"], "batch_size = 0: must be an integer >= 1"),
    (["--num=3", "--t=0.5,2"], "t = 2: must lie within the schedule's [t_min, t_max] = [0.001, 0.999]"),
    (["--num=3", "--t=nan"], "t = nan: must lie within the schedule's [t_min, t_max]"),
    (["--num=1", "--t=0.1,0.2"], "t = 0.1, 0.2: more noise levels than the 1 observations"),
    (["--num=3", "--accuracy=1"], "Marginal.accuracy = 1.0: must be a number in (0, 1)"),
    (["--num=3", "--working-memory=0"], "working_memory = 0.0 GiB: must be positive"),
    (["--points=u.npy", "--seed=0"], "seed = 0: has no effect with points, for which nothing is drawn; leave it out"),
    (
        ["--num=3", "--working-memory=2"],
        "working_memory = 2.0 GiB: has no effect on the law of the data, Circles, which holds no points; leave it out",
    ),
    (["--num=3", "--config.sede=1"], "--config.sede: unknown config key; did you mean seed?"),
    (["--num=3", "--config.schedule.name=Liner"], "schedule.name = 'Liner': unknown; did you mean Linear"),
    (["--points=missing.npy"], "No such file or directory: 'missing.npy'"),
    ([], "missing --points or --num (or --selfcheck)"),
    (["--selfcheck"], "--selfcheck takes only --accuracy, not config, out"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_bad_option_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused(CIRCLES, f"--out={tmp_path / 'new' / 'a'}", *words)
    assert not list(tmp_path.iterdir())


def test_too_little_memory_and_an_unknown_split_are_refused(data_dir: str, tmp_path: Path) -> None:
    words = ("--config=configs/digits.py", data_dir, "--num=3", f"--out={tmp_path / 'a'}")
    error = refused(*words, "--working-memory=1e-5")
    assert error.startswith("FiniteSet.working_memory = 10737: one query on ")
    assert "needs" in error
    assert "'tset'" in refused(*words, "--split=tset")
    assert not list(tmp_path.iterdir())


def test_bad_usage(tmp_path: Path) -> None:
    out = f"--out={tmp_path / 'a'}"
    assert "--num: not allowed with argument --points" in run("exact", CIRCLES, out, "--points=a", "--num=3").err
    assert "argument --t: '0.1;0.2': must be numbers" in run("exact", CIRCLES, out, "--num=3", "--t=0.1;0.2").err
    assert refused("--num=3") == "missing --config, --out (or --selfcheck)"
    assert "not seed" in refused("--selfcheck", "--seed=3")
    assert "not overrides of a config" in refused("--selfcheck", "--config.seed=3")
    (tmp_path / "a.npz").mkdir()
    assert (
        refused(CIRCLES, "--num=3", out)
        == f"out = {str(tmp_path / 'a.npz')!r}: is a folder; must be the name of a file"
    )


def reduced() -> list[reference.Case]:
    """Two quick cases."""
    with jax.enable_x64(True):
        return [case for case in reference.load() if case.name in ("24-eqm-d1-mid", "16-edm-d1-near")]


def test_selfcheck_passes_on_right_and_fails_on_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = reduced()

    def check(*chosen: reference.Case) -> Ended:
        monkeypatch.setattr(reference, "load", lambda **_: list(chosen))
        return run("exact", "--selfcheck")

    right = check(*cases)
    assert right.status == 0
    assert "selfcheck: 2/2 cases (100%)" in right.err
    rows = {line.split()[0]: line.split() for line in right.out.splitlines()}
    assert set(rows) - {"quantity", "pass:"} == set().union(*(case.expected for case in cases))
    assert all(float(rows[name][1]) <= 1e-10 for name in cases[0].expected)
    for change in (1.0 + 1e-7, np.nan):
        field = (np.asarray(cases[1].expected["f_star"]) * change).tolist()
        wrong = check(cases[0], cases[1]._replace(expected={**cases[1].expected, "f_star": field}))
        assert wrong.status == 1
        assert wrong.out.splitlines()[1].split()[::2] == ["f_star", cases[1].name]
        assert wrong.out.splitlines()[-1].startswith("FAIL: 2 cases, ")


def test_selfcheck_passes_the_accuracy_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(accuracy: float | None) -> list[reference.Case]:
        asked.append(accuracy)
        raise UserError("enough")

    monkeypatch.setattr(reference, "load", load)
    assert refused("--selfcheck", "--accuracy=1e-6") == "enough"
    assert asked == [1e-6]


@pytest.mark.slow
def test_full_selfcheck() -> None:
    ended = run("exact", "--selfcheck")
    assert ended.status == 0, ended.out
    cases = json.loads(reference.PATH.read_text())["cases"]
    assert ended.out.splitlines()[-1].startswith(f"pass: {len(cases)} cases, ")
