"""Configs from Python files: ``PATH[:VARIANT]``."""

from __future__ import annotations

import copy
import inspect
import runpy
from pathlib import Path

from ml_collections import ConfigDict

from geonoise_jax import imports
from geonoise_jax.config.defaults import base_config
from geonoise_jax.config.stored import check_like
from geonoise_jax.errors import UserError


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
    check_like(config.to_dict(), base_config().to_dict(), label=label)
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
    here = Path(__file__).resolve().parents[1]
    # Installed wheels carry the configs inside the package; a source tree has them beside it.
    for candidate in (Path(path).expanduser(), here / path, here.parent / path):
        if candidate.is_file():
            return candidate
    shipped = sorted(file.name for root in (here, here.parent) for file in (root / "configs").glob("*.py"))
    raise UserError(f"config = {path!r}: no such file; configs that ship with the package: {', '.join(shipped)}")
