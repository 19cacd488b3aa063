"""From a spec ``{name, kwargs}`` of a config to the object that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from geonoise_jax import imports
from geonoise_jax.errors import UserError, nearest


def by_name(classes: tuple[type, ...]) -> dict[str, Callable[..., Any]]:
    """Return the table of classes by their names."""
    return {cls.__name__: cls for cls in classes}


def named(key: str, spec: Mapping[str, Any], table: Mapping[str, Any], kind: type | None = None) -> Any:
    """Return the class or function that a spec names, of a table or imported.

    Args:
        key: dotted key of the spec, for errors.
        spec: ``{name, kwargs}``.
        table: known names.
        kind: what an imported class must be a subclass of.

    Raises:
        ValueError: on an unknown name, naming the nearest known, or an import that fails or is of another kind.
    """
    name = spec["name"]
    if not imports.is_import(name):
        if name not in table:
            raise UserError(f"{key}.name = {name!r}: unknown{nearest(name, table)}")
        return table[name]
    made = imports.load(key, name)
    if not callable(made) or (isinstance(made, type) and kind is not None and not issubclass(made, kind)):
        raise UserError(f"{key}.name = {name!r}: must be {_a(kind)}, not {text_of(made)}")
    return made


def from_spec(
    key: str,
    spec: Mapping[str, Any],
    table: Mapping[str, Callable[..., Any]],
    *,
    defaults: Mapping[str, Any] | None = None,
    kind: type | None = None,
    **given: Any,
) -> Any:
    """Call the object that a spec names.

    Args:
        key: dotted key of the spec, for errors.
        spec: ``{name, kwargs}``; the name is one of the table, or of code to be imported, see ``imports``.
        table: known names.
        defaults: arguments for an object that has them; the spec may override them.
        kind: what an imported object must be an instance of.
        **given: arguments that the spec may not name, since other keys of the config decide them; an imported object
            may do without them.

    Returns:
        ``table[name](**{**defaults, **kwargs, **given})``; lists become tuples.

    Raises:
        ValueError: on an unknown name or argument, naming the nearest known, or anything but a truth value or number
            where the default is one; on an import that fails or is of another kind; or whatever the object itself
            refuses.
    """
    made, name, kwargs = named(key, spec, table, kind), spec["name"], spec["kwargs"]
    own = imports.is_import(name)
    # Linen adds the module's own name and parent to every signature.
    parameters = inspect.signature(made).parameters
    known = set(parameters) - {"name", "parent"} - set(given)
    for argument, value in kwargs.items():
        if argument not in known:
            raise UserError(f"{key}.kwargs.{argument}: not an argument of {name}{nearest(argument, known)}")
        _check_kind(f"{key}.kwargs.{argument}", value, parameters[argument].default)
    possible = {argument: value for argument, value in (defaults or {}).items() if argument in known}
    if own:
        given = {argument: value for argument, value in given.items() if argument in parameters}
    arguments = {argument: frozen(value) for argument, value in {**possible, **kwargs, **given}.items()}
    return _call_own(key, name, made, arguments, kind) if own else made(**arguments)


def check_own(key: str, spec: Mapping[str, Any], call: Callable[[Any], Any], count: int, what: str) -> None:
    """Refuse an imported function of the noise level that does not map times to arrays of their shape.

    Args:
        key: dotted key of the spec.
        spec: ``{name, kwargs}``; nothing is checked unless its name is an import.
        call: the function of times [3].
        count: number of arrays that it must return.
        what: how it is called, for errors.
    """
    if not imports.is_import(spec["name"]):
        return
    label = f"{key}.name = {spec['name']!r}: {what}"
    try:
        found = jax.tree.leaves(jax.eval_shape(call, jax.ShapeDtypeStruct((3,), jnp.result_type(float))))
    except UserError:
        raise
    # Whatever code of the user raises is the user's to mend.
    except Exception as error:
        raise UserError(f"{label} fails ({imports.failure(error, None)})") from error
    shapes = [leaf.shape for leaf in found]
    if shapes != [(3,)] * count:
        raise UserError(f"{label} must return {count} arrays of the shape of t, (3,), not {shapes}")


def text_of(value: Any) -> str:
    """Return a value as errors call it."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def _call_own(key: str, name: str, made: Any, arguments: Mapping[str, Any], kind: type | None) -> Any:
    try:
        result = made(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{key}.name = {name!r}: cannot be made ({imports.failure(error, None)})") from error
    if kind is not None and not isinstance(result, kind):
        raise UserError(f"{key}.name = {name!r}: must make {_a(kind)}, not one {text_of(result)}")
    return result


def _a(kind: type | None) -> str:
    return "something that can be called" if kind is None else f"a {kind.__module__}.{kind.__name__}"


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
