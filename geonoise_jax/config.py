"""Configurations: the defaults, and how a config is loaded, overridden and stored.

A config is a locked ``ConfigDict``. What is an object in the code is a *spec* ``{name, kwargs}`` in the config; the
kwargs of a spec are free here and are checked against the object's own signature when ``build`` makes it.
"""

from __future__ import annotations

import ast
import copy
import difflib
import inspect
import json
import logging
import runpy
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict as ConfigDict

from geonoise_jax import imports
from geonoise_jax.errors import UserError, nearest

# Levels of a config.json; far fewer are ever needed, and Python's stack holds far more.
_DEPTH = 32
_LOG = logging.getLogger(__name__)
_FREE = "kwargs"
# What the absence of a key means in the config.json of a version that did not have it, where it is not today's default.
_ABSENT: dict[str, Any] = {"matmul_precision": "default", "data.range": ()}
# What no default may stand for: it says which model it is, and every version stored it.
_ESSENTIAL = ("data", "schedule", "target", "time_law", "loss_weight", "model")
# What is not set in the section of sampling: a time, the number of steps, the grid.
UNSET_TIME = -1.0
UNSET_STEPS = -1
UNSET_GRID = ""
# Samplers without a clock, and all that do not take the steps of a grid: those too, and the adaptive ones.
AUTONOMOUS = ("eqm_descent", "eqm_nesterov", "eqm_nesterov_released", "bddm")
GRIDLESS = ("tsit5", "kvaerno5", *AUTONOMOUS)


def spec(name: str, **kwargs: Any) -> dict[str, Any]:
    """Return the spec of an object: its name in ``build`` and its keyword arguments."""
    return {"name": name, _FREE: kwargs}


def base_config() -> ConfigDict:
    """Return the defaults that every config of the project starts from."""
    config = ConfigDict(
        {
            "seed": 0,
            # jax's default_matmul_precision for the network: "highest", so that float32 means float32 on every device.
            # jax's own "default" rounds the factors of products and convolutions to 10 bits (tensorfloat32) on NVIDIA
            # GPUs since Ampere and to 8 (bfloat16) on TPUs, which is faster and must be asked for by name here. CPUs
            # do not distinguish.
            "matmul_precision": "highest",
            # kwargs go to the TFDS builder; data_dir "" is TFDS's own default; placement: auto, host or device.
            # range: the stored values that become -1 and 1 in model space; () for 0 and 255 where images are uint8,
            # and for values that are left as they are where they are floats.
            # sigma_data: standard deviation of the entries in model space, told to whatever has such an argument.
            "data": {
                **spec("digits"),
                "split": "train",
                "data_dir": "",
                "placement": "auto",
                "range": (),
                "flip": False,
                "sigma_data": 0.5,
            },
            "schedule": spec("Linear"),
            "target": spec("Velocity"),
            # lo and hi default to the schedule's t_min and t_max.
            "time_law": {**spec("Uniform"), "stratified": True},
            "loss_weight": spec("Unit"),
            # regression, or dual_score for an energy network whose derivatives in u and t are both learnt.
            "loss": spec("regression"),
            "model": {
                **spec("UNet"),
                "blind": True,
                "noise_feature": "time",
                # direct, or the energy (dot, l2, affine) of which the prediction is the gradient.
                "output": "direct",
                # none or edm; conditional networks only.
                "preconditioner": spec("none"),
                # What the network predicts if not the target itself: another target, converted; conditional only.
                "reads_as": spec("same"),
                "class_conditional": False,
                # Probability of hiding a label from a class-conditional network, for classifier-free guidance.
                "label_dropout": 0.1,
            },
            # decay: constant or cosine; clip_norm 0 turns clipping off.
            "optimizer": {
                **spec("adam"),
                "learning_rate": 1e-3,
                "warmup_steps": 100,
                "decay": "constant",
                "clip_norm": 1.0,
            },
            "ema": spec("power", sigma_rel=0.1),
            "training": {"num_steps": 10_000, "batch_size": 128, "accumulate": 1, "log_every": 100},
            # -1: all devices that the other axis leaves. parameters: replicated or fsdp, or rules [[regex, axes], ...].
            "mesh": {"data": -1, "model": 1},
            "sharding": {"parameters": "replicated", "rules": ()},
            "checkpoint": {"every": 1000, "keep": 3},
            # every: steps between sample grids while training, 0 for none; num: samples of a grid.
            "sampling": {
                "sampler": spec("heun"),
                # For samplers that take the steps of a grid; -1 and "": 100 steps on the uniform grid.
                "num_steps": UNSET_STEPS,
                "grid": UNSET_GRID,
                "denoise": False,
                # Times at which sampling starts and ends; -1: the schedule's t_max and t_min, as in training.
                "start_time": UNSET_TIME,
                "end_time": UNSET_TIME,
                # Classifier-free guidance of a class-conditional model; interval: () for all times, or (lo, hi).
                "guidance": {"scale": 1.0, "interval": ()},
                "every": 1000,
                "num": 64,
                "batch_size": 256,
            },
        }
    )
    return config.lock()


def set_spec(node: ConfigDict, new: Mapping[str, Any]) -> None:
    """Replace the name and all keyword arguments of a spec in place."""
    with node.unlocked():
        node.name = new["name"]
        node[_FREE] = ConfigDict(dict(new[_FREE]))


def load(path_and_variant: str) -> ConfigDict:
    """Load ``PATH`` or ``PATH:VARIANT``: the result of ``get_config(variant)`` of a Python file.

    A path that does not exist in the working directory is looked for among the configs that ship with the package. The
    file may import modules beside it, and have a ``get_config()`` without variants.

    Raises:
        ValueError: if there is no such file, or it has no ``get_config``, fails, or returns anything but a config of
            the keys that are known here, or the variant is unknown.
    """
    path, variant = _split(path_and_variant)
    file = _find(path).resolve()
    label = f"config = {path!r}"
    try:
        with imports.neighbours(file.parent):
            get_config = runpy.run_path(str(file)).get("get_config")
            if not callable(get_config):
                raise UserError(f"{label}: must define get_config(variant)")
            if variant and not inspect.signature(get_config).parameters:
                raise UserError(f"{label}: its get_config takes no variant, {variant!r}")
            config = get_config(variant) if variant else get_config()
    except UserError:
        raise
    # Whatever a config of the user raises is the user's to mend.
    except Exception as error:
        raise UserError(f"{label}: {imports.failure(error, file)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{label}: get_config returned {type(config).__name__}; must be a ConfigDict of base_config()")
    _check_like(config.to_dict(), base_config().to_dict(), label=label)
    return absolute(config.lock(), file.parent)


def absolute(config: ConfigDict, *folders: Path) -> ConfigDict:
    """Return the config with whole paths of the files that it names as code, see ``imports``.

    Args:
        config: the config; it is not changed.
        *folders: where files with relative paths are looked for, before the working directory.
    """
    changes = [
        (key, imports.absolute(each["name"], (*folders, Path.cwd()))) for key, each in imports.specs(config.to_dict())
    ]
    if not changes:
        return config
    config = copy.deepcopy(config)
    for key, name in changes:
        node = config
        for part in key.split("."):
            node = node[part]
        node.name = name
    return config


def override(config: ConfigDict, assignments: Iterable[tuple[str, str]]) -> ConfigDict:
    """Apply command-line overrides such as ``("training.num_steps", "2000")`` in place.

    The text is read as the type that the key has now; keys below a spec's ``kwargs`` may be new, and are read as
    Python literals. Another name of a spec starts with no kwargs; names come first, in whatever order they are given.
    What another sampler has no use for is unset, see :func:`fit_sampling`.

    Raises:
        ValueError: on an unknown key, naming the nearest known ones, or text of another type.
    """
    assignments = sorted(assignments, key=lambda assignment: not assignment[0].endswith(".name"))
    for key, text in assignments:
        *parents, leaf = key.split(".")
        node = config
        for parent in parents:
            if not isinstance(node, ConfigDict) or parent not in node:
                raise _unknown(config, key)
            node = node[parent]
        free = bool(parents) and parents[-1] == _FREE
        if not isinstance(node, ConfigDict) or (leaf not in node and not free):
            raise _unknown(config, key)
        if leaf in node and isinstance(node[leaf], ConfigDict):
            raise UserError(f"--config.{key}: is a group of keys; give one of {', '.join(node[leaf]) or 'its kwargs'}")
        value = literal(text) if free else _parse(key, text, node[leaf])
        if leaf == "name" and not free and value != node.name:
            set_spec(node, spec(value))
        # What a kwarg may be is for build to say, not for the value that it has now.
        with node.unlocked(), node.ignore_type():
            node[leaf] = value
    return fit_sampling(config, {key.removeprefix("sampling.") for key, _ in assignments})


def fit_sampling(config: ConfigDict, given: Collection[str]) -> ConfigDict:
    """Unset in place what the sampler of a config has no use for, as where another is chosen than its system's.

    Args:
        config: the config.
        given: keys of the section of sampling that are asked for by name: they stay, to be refused by ``build``.

    Returns:
        The same config.
    """
    sampling = config.sampling
    unused: dict[str, Any] = {}
    if sampling.sampler.name in GRIDLESS:
        unused |= {"num_steps": UNSET_STEPS, "grid": UNSET_GRID}
    if sampling.sampler.name in AUTONOMOUS:
        unused |= {"end_time": UNSET_TIME, "denoise": False}
    for name in unused.keys() - set(given):
        sampling[name] = unused[name]
    if sampling.guidance.scale == 1.0 and "guidance.interval" not in given:
        sampling.guidance.interval = type(sampling.guidance.interval)()
    return config


def dumps(config: ConfigDict) -> str:
    """Return the config as JSON, stable and readable."""
    return json.dumps(_plain(config.to_dict()), indent=2, sort_keys=True) + "\n"


def loads(text: str) -> ConfigDict:
    """Return a locked config from :func:`dumps`, of this version or an older one.

    Keys that older versions did not have are taken to have their defaults, which is logged, and so are those that they
    stored although they had no effect.

    Raises:
        ValueError: if the text is no JSON object, has keys this version does not know or lacks some that every version
            had, or a value is of another type than its default.
    """
    try:
        stored = json.loads(text)
        if not isinstance(stored, dict):
            raise UserError("config.json: must hold a JSON object")
        if _deeper(stored, _DEPTH):
            raise UserError("config.json: nested too deep")
        added = _add_absent(stored, base_config().to_dict())
        _check_like(stored, base_config().to_dict())
        config = _drop_unused(ConfigDict(stored).lock())
    except json.JSONDecodeError as error:
        raise UserError(f"config.json: not valid JSON ({error})") from error
    except RecursionError as error:
        raise UserError("config.json: nested too deep") from error
    if added:
        _LOG.warning("config.json: of another version, without %s: taken to be the default", ", ".join(added))
    return config


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return ``{dotted key: (old value, new value)}`` for all keys in which two configs differ."""
    flat_old, flat_new = (dict(_leaves(_plain(config.to_dict()))) for config in (old, new))
    missing = "<not set>"
    return {
        key: (flat_old.get(key, missing), flat_new.get(key, missing))
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key, missing) != flat_new.get(key, missing)
    }


def keys(config: ConfigDict) -> list[str]:
    """Return the dotted keys of a config, those below a spec's kwargs left out."""
    return [key for key, _ in _leaves(config.to_dict()) if f".{_FREE}." not in f".{key}."]


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(each, levels - 1) for each in inner)


def _add_absent(stored: dict[str, Any], default: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Add in place what is absent, but for parts of a spec, and return what of it was given today's default."""
    added = []
    for key, value in default.items():
        path = f"{prefix}{key}"
        if key not in stored and path not in _ESSENTIAL and key not in ("name", _FREE):
            stored[key] = _ABSENT.get(path, value)
            added += [] if path in _ABSENT else [path]
        elif isinstance(value, Mapping) and isinstance(stored.get(key), dict) and key != _FREE:
            added += _add_absent(stored[key], value, f"{path}.")
    return added


def _drop_unused(config: ConfigDict) -> ConfigDict:
    """Unset in place what ``build`` would refuse as without effect."""
    defaults = base_config().model
    if config.model.blind:
        config.model.noise_feature = defaults.noise_feature
    if not config.model.class_conditional:
        config.model.label_dropout = defaults.label_dropout
    return fit_sampling(config, ())


def _check_like(
    found: Mapping[str, Any], default: Mapping[str, Any], prefix: str = "", label: str = "config.json"
) -> None:
    """Require the keys and types of the defaults; a spec's kwargs are any mapping."""
    for key in sorted(found.keys() ^ default.keys()):
        path, problem = f"{prefix}{key}", "unknown" if key in found else "missing"
        raise UserError(f"{label}: key {path!r} is {problem}{nearest(path, keys(base_config()))}")
    for key, value in found.items():
        if not _same_type(value, default[key]):
            expected = f"must be of type {type(default[key]).__name__}, such as {default[key]!r}"
            raise UserError(f"{label}: {prefix}{key} = {value!r}: {expected}")
        if isinstance(value, Mapping) and key != _FREE:
            _check_like(value, default[key], f"{prefix}{key}.", label)


def _same_type(value: Any, default: Any) -> bool:
    # JSON knows lists only, and other programs write 1.0 as 1.
    kinds: Any = {tuple: (tuple, list), float: (float, int)}.get(type(default), type(default))
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)


def _split(text: str) -> tuple[str, str]:
    """Return path and variant of ``PATH[:VARIANT]``; a path may have colons, and is then one that exists."""
    if Path(text).is_file():
        return text, ""
    colons = [index for index, letter in enumerate(text) if letter == ":"]
    # A drive letter is no path.
    whole = [index for index in reversed(colons) if Path(text[:index]).is_file()]
    shipped = [index for index in reversed(colons) if text[:index].endswith(".py")]
    cut = next(iter((*whole, *shipped, *colons)), len(text))
    return text[:cut], text[cut + 1 :]


def _find(path: str) -> Path:
    here = Path(__file__).resolve().parent
    # Installed wheels carry the configs inside the package; a source tree has them beside it.
    for candidate in (Path(path).expanduser(), here / path, here.parent / path):
        if candidate.is_file():
            return candidate
    shipped = sorted(file.name for root in (here, here.parent) for file in (root / "configs").glob("*.py"))
    raise UserError(f"config = {path!r}: no such file; configs that ship with the package: {', '.join(shipped)}")


def _unknown(config: ConfigDict, key: str) -> UserError:
    known = keys(config)
    leaf = key.rsplit(".", maxsplit=1)[-1]
    same_leaf = [k for k in known if k.rsplit(".", maxsplit=1)[-1] == leaf]
    closest = difflib.get_close_matches(key, same_leaf, n=3, cutoff=0.0)
    hint = f"; did you mean {' or '.join(closest)}?" if closest else nearest(key, known)
    return UserError(f"--config.{key}: unknown config key{hint}")


def _parse(key: str, text: str, current: Any) -> Any:
    if isinstance(current, str):
        return text
    value = literal(text)
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if isinstance(current, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(current)(value)
    if type(value) is not type(current):
        raise UserError(f"--config.{key} = {text!r}: must be of type {type(current).__name__}, such as {current!r}")
    return value


def literal(text: str) -> Any:
    """Return what a Python literal (or true, false) means if JSON can store it, and any other text as it is."""
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
        json.dumps(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
