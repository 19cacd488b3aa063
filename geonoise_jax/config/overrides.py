"""Changes of a config: overrides of the command line, and what another sampler has no use for."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Collection, Iterable
from typing import Any

from ml_collections import ConfigDict

from geonoise_jax.config.defaults import (
    AUTONOMOUS,
    FREE,
    GRIDLESS,
    UNSET_GRID,
    UNSET_STEPS,
    UNSET_TIME,
    keys,
    set_spec,
    spec,
)
from geonoise_jax.errors import UserError, nearest


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
        free = bool(parents) and parents[-1] == FREE
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


def literal(text: str) -> Any:
    """Return what a Python literal (or true, false) means if JSON can store it, and any other text as it is."""
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
        json.dumps(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return value


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
