"""Import torchvision also where it was built for another build of torch, such as one of CUDA beside one for CPUs.

Its compiled operators are missing then. Nothing that is compared uses them, but its import wants two to be known.
"""

from __future__ import annotations

import functools
from typing import Any

_OPERATORS = ("nms", "qnms")
# The definitions end with the library that has them.
_LIBRARIES: list[Any] = []


@functools.cache
def import_torchvision() -> None:
    """Import torchvision, with definitions for the operators that it lacks."""
    import torch

    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        _LIBRARIES.append(library)
        for name in _OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
