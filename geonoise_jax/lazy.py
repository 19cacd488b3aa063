"""Public names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(
    package: str,
    homes: Mapping[str, Sequence[str]],
    modules: Mapping[str, str] | None = None,
    advice: Mapping[str, str] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package whose names lie in other modules.

    Args:
        package: name of the package.
        homes: public names by the module that defines them.
        modules: modules by the name under which they are seen in the package.
        advice: what to say of names that are not there, for those that somebody may well look for.
    """
    home = {name: module for module, names in homes.items() for name in names}
    modules, advice = modules or {}, advice or {}

    def find(name: str) -> Any:
        if name in modules:
            value: Any = importlib.import_module(modules[name])
        elif name in home:
            value = getattr(importlib.import_module(home[name]), name)
        else:
            raise AttributeError(_missing(package, name, [*home, *modules], advice))
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        own = [name for name in vars(sys.modules[package]) if name.startswith("__")]
        return sorted({*own, *home, *modules})

    return find, names


def _missing(package: str, name: str, known: Sequence[str], advice: Mapping[str, str]) -> str:
    import difflib  # imported only for a message

    near = difflib.get_close_matches(name, known, n=1)
    hint = advice.get(name) or (f"did you mean {near[0]!r}?" if near else "")
    return f"module {package!r} has no attribute {name!r}" + (f"; {hint}" if hint else "")
