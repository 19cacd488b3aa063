"""Configs: every shipped one builds and survives storage; overrides, errors, and where config files are found."""

from __future__ import annotations

import functools
import json
import operator
import shutil
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax import build, config
from geonoise_jax.config import ConfigDict, stored
from geonoise_jax.systems import SYSTEMS, variants
from geonoise_jax.training import ema

ROOT = Path(config.__file__).resolve().parents[2]
FILES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
VARIANTS = variants()
# Every file with one variant, and every variant with one file: all pairs share the code of both.
PAIRS = sorted({*((file, "edm,conditional") for file in FILES), *(("circles.py", variant) for variant in VARIANTS)})


def overridden(*assignments: tuple[str, str], base: str = "configs/digits.py") -> ConfigDict:
    return config.override(config.load(base), assignments)


@pytest.mark.parametrize(("file", "variant"), PAIRS)
def test_every_config_is_locked_and_survives_storage(file: str, variant: str) -> None:
    choice = config.load(f"configs/{file}:{variant}")
    restored = config.loads(config.dumps(choice))
    assert config.differences(choice, restored) == {}
    assert config.dumps(restored) == config.dumps(choice)
    for either in (choice, restored):
        assert either.is_locked
        assert either.model.kwargs.is_locked
        with pytest.raises(AttributeError, match="blnd"):
            either.model.blnd = True
        with pytest.raises(TypeError, match="blind"):
            either.model.blind = "False"
    assert build.network(restored, 10) == build.network(choice, 10)


def test_loading_twice_gives_configs_that_share_nothing() -> None:
    first, second = config.load("configs/digits.py:ddpm"), config.load("configs/digits.py:ddpm")
    config.override(first, [("schedule.kwargs.t_min", "2"), ("seed", "7")])
    assert config.differences(second, config.load("configs/digits.py:ddpm")) == {}
    assert SYSTEMS["ddpm"].common["schedule"]["kwargs"] == {}


@pytest.mark.parametrize(
    ("text", "value"), [("False", False), ("false", False), ("FALSE", False), ("True", True), ("true", True)]
)
def test_truth_values_are_read_as_such(text: str, value: bool) -> None:
    choice = overridden(("model.blind", text), ("ema.name", "constant"), ("ema.kwargs.warmup", text))
    assert choice.model.blind is value
    assert build.network(choice, None).conditional is not value
    assert build.from_spec("ema", choice.ema, ema.EMAS).warmup is value


@pytest.mark.parametrize("text", ["Yes", "no", "0", "1", "", "None"])
def test_anything_else_is_no_truth_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"--config.model.blind = '{text}': must be of type bool, such as True"):
        overridden(("model.blind", text))
    choice = overridden(("ema.name", "constant"), ("ema.kwargs.warmup", text))
    with pytest.raises(ValueError, match="ema.kwargs.warmup = .*: must be True or False"):
        build.from_spec("ema", choice.ema, ema.EMAS)


def test_values_are_read_as_the_type_of_their_key() -> None:
    rules = '[["kernel$", [None, "data"]]]'
    choice = overridden(
        ("training.num_steps", "12"),
        ("optimizer.learning_rate", "1"),
        ("data.name", "circles"),
        ("data.data_dir", "7"),
        ("sharding.rules", rules),
    )
    assert choice.training.num_steps == 12
    assert type(choice.optimizer.learning_rate) is float
    assert choice.data.data_dir == "7"
    assert choice.sharding.rules == (["kernel$", [None, "data"]],)
    again = config.override(config.loads(config.dumps(choice)), [("sharding.rules", rules)])
    assert config.differences(choice, again) == {}


BAD_OVERRIDES = [
    ("training.numsteps", "1", "--config.training.numsteps: unknown config key; did you mean training.num_steps"),
    ("trainin.num_steps", "1", "unknown config key; did you mean training.num_steps or sampling.num_steps?"),
    ("num_steps", "1", "--config.num_steps: unknown config key; did you mean training.num_steps"),
    ("modle.name", "UNet", "--config.modle.name: unknown config key; did you mean model.name"),
    ("training.num_steps.x", "1", "--config.training.num_steps.x: unknown config key"),
    ("model.width", "8", "--config.model.width: unknown config key"),
    ("model.kwargs.a.b", "8", "--config.model.kwargs.a.b: unknown config key"),
    ("", "8", "--config.: unknown config key; must be one of checkpoint.every"),
    (
        "training",
        "8",
        "--config.training: is a group of keys; give one of accumulate, batch_size, evaluate_every, log_every",
    ),
    ("target.kwargs", "8", "--config.target.kwargs: is a group of keys; give one of its kwargs"),
    ("training.num_steps", "1e3", "--config.training.num_steps = '1e3': must be of type int, such as \\d"),
    ("training.num_steps", "True", "--config.training.num_steps = 'True': must be of type int"),
    ("training.num_steps", "", "--config.training.num_steps = '': must be of type int"),
    ("optimizer.learning_rate", "nan", "--config.optimizer.learning_rate = 'nan': must be of type float"),
    ("sharding.rules", "kernel", r"--config.sharding.rules = 'kernel': must be of type tuple, such as \(\)"),
]


@pytest.mark.parametrize(("key", "text", "message"), BAD_OVERRIDES, ids=[f"{k}={v}" for k, v, _ in BAD_OVERRIDES])
def test_bad_override_is_named_and_changes_nothing(key: str, text: str, message: str) -> None:
    choice = config.load("configs/digits.py")
    with pytest.raises(ValueError, match=message):
        config.override(choice, [(key, text)])
    assert config.differences(choice, config.load("configs/digits.py")) == {}
    assert choice.is_locked


KWARGS: list[tuple[str, Any]] = [
    ("1", 1),
    ("2.5", 2.5),
    ("None", None),
    ("[1, 2]", [1, 2]),
    ("1,2", (1, 2)),
    ("false", False),
    ("bfloat16", "bfloat16"),
    ("'1'", "1"),
    # No Python literal that JSON can store: plain text.
    ("1e", "1e"),
    ("{1}", "{1}"),
    ("{[]: 1}", "{[]: 1}"),
    ("-" * 100_000 + "1", "-" * 100_000 + "1"),
]


@pytest.mark.parametrize(("text", "value"), KWARGS, ids=[text[:9] for text, _ in KWARGS])
@pytest.mark.parametrize("key", ["model.kwargs.blocks_per_level", "model.kwargs.new", "schedule.kwargs.t_max"])
def test_kwargs_take_any_value_and_survive_storage(key: str, text: str, value: Any) -> None:
    """Also a value of another type than the one that is there: what fits is for build to say."""
    choice = overridden((key, text))
    group, _, name = key.split(".")
    assert choice[group].kwargs[name] == value
    assert type(choice[group].kwargs[name]) is type(value)
    assert config.differences(choice, config.loads(config.dumps(choice))) == {}


def test_another_name_starts_with_no_kwargs_whatever_the_order() -> None:
    assignments = [("ema.kwargs.rate", "0.5"), ("ema.name", "constant")]
    for order in (assignments, assignments[::-1]):
        assert overridden(*order).ema.to_dict() == {"name": "constant", "kwargs": {"rate": 0.5}}
    # The same name keeps them, and other keys of the group stay.
    assert overridden(("model.name", "UNet")).model.kwargs == config.load("configs/digits.py").model.kwargs
    assert overridden(("model.name", "ResidualMLP"), ("model.blind", "False")).model.blind is False


def test_differences_name_every_changed_added_and_removed_key() -> None:
    old = overridden(("schedule.kwargs.t_max", "0.9"))
    new = overridden(("target.kwargs.decay", "truncated"), ("seed", "3"), ("model.kwargs.base_channels", "7"))
    assert config.differences(old, new) == {
        "model.kwargs.base_channels": (config.load("configs/digits.py").model.kwargs.base_channels, 7),
        "schedule.kwargs.t_max": (0.9, "<not set>"),
        "seed": (0, 3),
        "target.kwargs.decay": ("<not set>", "truncated"),
    }


def _stored(change: Any, choice: ConfigDict | None = None) -> str:
    tree = json.loads(config.dumps(choice or config.load("configs/digits.py")))
    change(tree)
    return json.dumps(tree)


BAD_FILES = [
    ("{", "config.json: not valid JSON"),
    ("[]", "config.json: must hold a JSON object"),
    (_stored(lambda tree: tree.pop("schedule")), "config.json: key 'schedule' is missing"),
    ("[" * 100_000, "config.json: nested too deep"),
    (_stored(lambda tree: tree.update(ema=json.loads('{"a":' * 40 + "1" + "}" * 40))), "config.json: nested too deep"),
    (_stored(lambda tree: tree.update(sede=1)), "config.json: key 'sede' is unknown; did you mean seed"),
    (_stored(lambda tree: tree["ema"].pop("kwargs")), "config.json: key 'ema.kwargs' is missing"),
    (_stored(lambda tree: tree["model"].update(blnd=True)), "key 'model.blnd' is unknown; did you mean model.blind"),
    (_stored(lambda tree: tree["model"].update(blind="False")), "model.blind = 'False': must be of type bool"),
    (_stored(lambda tree: tree["training"].update(num_steps=True)), "training.num_steps = True: must be of type int"),
    (_stored(lambda tree: tree["training"].update(num_steps=1.5)), "training.num_steps = 1.5: must be of type int"),
    (_stored(lambda tree: tree["model"].update(kwargs=[])), r"model.kwargs = \[\]: must be of type dict"),
    (_stored(lambda tree: tree.update(model="UNet")), "model = 'UNet': must be of type dict"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=[message[:60] for _, message in BAD_FILES])
def test_bad_stored_config_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.loads(text)


def test_numbers_written_by_other_programs_are_read() -> None:
    text = _stored(lambda tree: tree["optimizer"].update(clip_norm=1))
    assert config.differences(config.loads(text), config.load("configs/digits.py")) == {}


def test_any_key_but_an_essential_one_may_be_newer_than_a_stored_config(caplog: pytest.LogCaptureFixture) -> None:
    default = config.load("configs/digits.py")
    groups = [key for key in default if isinstance(default[key], ConfigDict) and key not in stored._ESSENTIAL]
    assert len(groups) >= 5
    for key in ["seed", *groups, "checkpoint.keep", "data.flip", "sampling.guidance.scale", "model.output"]:
        *parents, leaf = key.split(".")

        def older(tree: Any, parents: list[str] = parents, leaf: str = leaf) -> None:
            functools.reduce(operator.getitem, parents, tree).pop(leaf)

        read = config.loads(_stored(older, config.base_config()))
        assert config.differences(read, config.base_config()) == {}
        assert f"config.json: of another version, without {key}: taken to be the default" in caplog.text


def test_a_stored_config_without_newer_keys_means_what_it_meant() -> None:
    def older(tree: Any) -> None:
        tree.pop("matmul_precision")
        tree["data"].pop("range")

    default = config.load("configs/digits.py")
    assert config.differences(config.loads(_stored(older)), default) == {"matmul_precision": ("default", "highest")}
    with pytest.raises(ValueError, match="config.json: key 'data' is missing"):
        config.loads(_stored(lambda tree: tree.pop("data")))


@pytest.mark.parametrize("variant", ["uedm,blind", "eqm,blind", "flow_matching,conditional"])
def test_what_older_versions_stored_without_effect_is_not_refused(variant: str) -> None:
    """They had defaults for every sampler, and the features of a noise level for blind networks."""
    whole = config.load(f"configs/digits.py:{variant}")

    def older(tree: Any) -> None:
        tree["model"] |= {"noise_feature": "log_snr"} if whole.model.blind else {}
        tree["model"]["label_dropout"] = 0.2
        if whole.sampling.sampler.name not in config.AUTONOMOUS:
            tree["sampling"]["guidance"]["interval"] = [0.1, 0.5]
        else:
            tree["sampling"] |= {"num_steps": 50, "grid": "uniform"}

    assert config.differences(config.loads(_stored(older, whole)), whole) == {}


def test_shipped_configs_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = config.load("configs/digits.py:ddpm")
    monkeypatch.chdir(tmp_path)
    assert config.differences(config.load("configs/digits.py:ddpm"), here) == {}
    # A file of the working directory comes first.
    (tmp_path / "configs").mkdir()
    text = (
        (ROOT / "configs" / "digits.py")
        .read_text()
        .replace("return with_variant", "config.seed = 5\n    return with_variant")
    )
    (tmp_path / "configs" / "digits.py").write_text(text)
    assert config.load("configs/digits.py").seed == 5
    assert config.load(str(tmp_path / "configs" / "digits.py")).seed == 5


def test_shipped_configs_are_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel carries the configs inside the package, where pyproject.toml puts them."""
    assert '"configs" = "geonoise_jax/configs"' in (ROOT / "pyproject.toml").read_text()
    package = tmp_path / "site-packages" / "geonoise_jax"
    shutil.copytree(ROOT / "configs", package / "configs")
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    monkeypatch.chdir(tmp_path)
    assert config.load("configs/circles.py").data.name == "circles"
    with pytest.raises(ValueError, match=f"configs that ship with the package: {', '.join(FILES)}$"):
        config.load("configs/digit.py")


def test_a_path_that_is_no_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"config = 'configs/nope.py': no such file; .* {', '.join(FILES)}"):
        config.load("configs/nope.py")
    with pytest.raises(ValueError, match="no such file"):
        config.load(str(tmp_path))
    (tmp_path / "config.py").write_text("")
    with pytest.raises(ValueError, match=r"must define get_config\(variant\)"):
        config.load(str(tmp_path / "config.py"))
    # A user's folder is read, not written to.
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]
