"""Registration of immutable classes as pytrees whose constructors validate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

from geonoise_jax.checks import shown

T = TypeVar("T")


def pytree(*, data: tuple[str, ...], static: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """Register a class as a pytree: ``data`` attributes are leaves, ``static`` ones (hashable) are part of its type.

    A tree is rebuilt without calling the constructor, so that validation runs once, on the values that a user gave,
    and never on tracers.
    """

    def register(cls: type[T]) -> type[T]:
        def flatten(tree: Any) -> tuple[list[tuple[Any, Any]], Hashable]:
            leaves = [(jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in data]
            return leaves, tuple(getattr(tree, name) for name in static)

        def unflatten(aux: Any, leaves: Any) -> T:
            tree = object.__new__(cls)
            for name, value in zip((*data, *static), (*leaves, *aux), strict=True):
                object.__setattr__(tree, name, value)
            return tree

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        return cls

    return register


class Frozen:
    """A class whose attributes are set by its constructor, through :meth:`_set`, and never afterwards."""

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Return the arguments of the constructor that are kept and no defaults, arrays by type and shape."""
        kept = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            try:
                # A property may be an array that is made when it is asked for: its shape costs nothing.
                made = isinstance(getattr(type(self), name, None), property)
                value = jax.eval_shape(lambda self, name=name: getattr(self, name), self) if made else vars(self)[name]
            except (KeyError, TypeError):
                continue
            if shown(value) != shown(parameter.default):
                kept.append(f"{name}={shown(value)}")
        return f"{type(self).__name__}({', '.join(kept)})"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: build a new one instead of setting {name}")
