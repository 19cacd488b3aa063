"""Configs as ``config.json``: written, and read from this version or an older one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from geonoise_jax.config.defaults import FREE, base_config, keys, plain
from geonoise_jax.config.overrides import fit_sampling
from geonoise_jax.errors import UserError, nearest

# Levels of a config.json; far fewer are ever needed, and Python's stack holds far more.
_DEPTH = 32
_LOG = logging.getLogger(__name__)
# What the absence of a key means in the config.json of a version that did not have it, where it is not today's default.
_ABSENT: dict[str, Any] = {"matmul_precision": "default", "data.range": ()}
# What no default may stand for: it says which model it is, and every version stored it.
_ESSENTIAL = ("data", "schedule", "target", "time_law", "loss_weight", "model")


def dumps(config: ConfigDict) -> str:
    """Return the config as JSON, stable and readable."""
    return json.dumps(plain(config.to_dict()), indent=2, sort_keys=True) + "\n"


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
        check_like(stored, base_config().to_dict())
        config = _drop_unused(ConfigDict(stored).lock())
    except json.JSONDecodeError as error:
        raise UserError(f"config.json: not valid JSON ({error})") from error
    except RecursionError as error:
        raise UserError("config.json: nested too deep") from error
    if added:
        _LOG.warning("config.json: of another version, without %s: taken to be the default", ", ".join(added))
    return config


def check_like(
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
        if isinstance(value, Mapping) and key != FREE:
            check_like(value, default[key], f"{prefix}{key}.", label)


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(each, levels - 1) for each in inner)


def _add_absent(stored: dict[str, Any], default: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Add in place what is absent, but for parts of a spec, and return what of it was given today's default."""
    added = []
    for key, value in default.items():
        path = f"{prefix}{key}"
        if key not in stored and path not in _ESSENTIAL and key not in ("name", FREE):
            stored[key] = _ABSENT.get(path, value)
            added += [] if path in _ABSENT else [path]
        elif isinstance(value, Mapping) and isinstance(stored.get(key), dict) and key != FREE:
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


def _same_type(value: Any, default: Any) -> bool:
    # JSON knows lists only, and other programs write 1.0 as 1.
    kinds: Any = {tuple: (tuple, list), float: (float, int)}.get(type(default), type(default))
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
