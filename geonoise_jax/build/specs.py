"""From a spec ``{name, kwargs}`` of a config to the object that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from geonoise_jax.errors import UserError, nearest


def by_name(classes: tuple[type, ...]) -> dict[str, Callable[..., Any]]:
    """Return the table of classes by their names."""
    return {cls.__name__: cls for cls in classes}


def named(key: str, spec: Mapping[str, Any], table: Mapping[str, Any]) -> Any:
    """Return the class or function that a spec names.

    Raises:
        ValueError: on an unknown name, naming the nearest known.
    """
    if spec["name"] not in table:
        raise UserError(f"{key}.name = {spec['name']!r}: unknown{nearest(spec['name'], table)}")
    return table[spec["name"]]


def from_spec(
    key: str,
    spec: Mapping[str, Any],
    table: Mapping[str, Callable[..., Any]],
    *,
    defaults: Mapping[str, Any] | None = None,
    **given: Any,
) -> Any:
    """Call the object that a spec names.

    Args:
        key: dotted key of the spec, for errors.
        spec: ``{name, kwargs}``.
        table: known names.
        defaults: arguments for an object that has them; the spec may override them.
        **given: arguments that the spec may not name, since other keys of the config decide them.

    Returns:
        ``table[name](**{**defaults, **kwargs, **given})``; lists become tuples.

    Raises:
        ValueError: on an unknown name or argument, naming the nearest known, or anything but a truth value or number
            where the default is one; or whatever the object itself refuses.
    """
    made, name, kwargs = named(key, spec, table), spec["name"], spec["kwargs"]
    # Linen adds the module's own name and parent to every signature.
    parameters = inspect.signature(made).parameters
    known = set(parameters) - {"name", "parent"} - set(given)
    for argument, value in kwargs.items():
        if argument not in known:
            raise UserError(f"{key}.kwargs.{argument}: not an argument of {name}{nearest(argument, known)}")
        _check_kind(f"{key}.kwargs.{argument}", value, parameters[argument].default)
    possible = {argument: value for argument, value in (defaults or {}).items() if argument in known}
    arguments = {**possible, **kwargs, **given}
    return made(**{argument: frozen(value) for argument, value in arguments.items()})


def frozen(value: Any) -> Any:
    """Return a value whose lists are tuples, which hash."""
    return tuple(frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse what would be taken for true, such as "no", or fail only inside a traced program."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{key} = {value!r}: must be True or False")
    elif isinstance(default, (int, float)) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise UserError(f"{key} = {value!r}: must be a number, such as {default!r}")
