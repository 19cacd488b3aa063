"""Options of a study that is only tried out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def replace_defaults(options: Any, values: Mapping[str, Any]) -> None:
    """Give fields of a frozen dataclass that have their defaults other values, from its ``__post_init__``."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name, value in values.items():
        if getattr(options, name) == defaults[name]:
            object.__setattr__(options, name, value)
