"""The peers, imported without what the compared parts do not use, and brought to float64 where they insist on less.

k-diffusion's package imports its training code, and its modules import torchvision, torchsde and dctorch; torchcfm
imports POT; pytorch-fid and torch-fidelity import their networks. None of these takes part in what is compared, and
stand-ins serve.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

_UNUSED = ("torchvision", "torchvision.transforms", "torchsde", "dctorch", "ot")
# Modules of peers that only their networks need, and packages whose own code imports more than is compared.
_NETWORKS = ("torch_fidelity.utils", "pytorch_fid.inception")
_BARE = ("k_diffusion", "torch_fidelity")


class _Placeholder(types.ModuleType):
    """A module whose every attribute is another one, and which holds nothing."""

    def __getattr__(self, name: str) -> _Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name)

    def __iter__(self) -> Iterator[object]:
        return iter(())


def _import(name: str) -> Any:
    """Import a module of a peer beside stand-ins for what it does not use, and forget those."""
    package = name.partition(".")[0]
    absent = [each for each in _UNUSED if importlib.util.find_spec(each.partition(".")[0]) is None]
    with pytest.MonkeyPatch.context() as patch:
        for each in (*absent, *_NETWORKS):
            patch.setitem(sys.modules, each, _Placeholder(each))
        if package in _BARE and package not in sys.modules:
            sys.modules[package] = _bare_package(package)
        return importlib.import_module(name)


def _bare_package(name: str) -> types.ModuleType:
    """A package whose submodules can be imported, but whose own code has not run."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ())
    return package


k_sampling = _import("k_diffusion.sampling")
k_layers = _import("k_diffusion.layers")
torchcfm = _import("torchcfm.conditional_flow_matching")
fid_score = _import("pytorch_fid.fid_score")
fidelity_kid = _import("torch_fidelity.metric_kid")
fidelity_isc = _import("torch_fidelity.metric_isc")
fidelity_prc = _import("torch_fidelity.metric_prc")
prdc = _import("prdc")


class _Instead:
    """A module with some of its attributes replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module, self._replaced = module, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced[name] if name in self._replaced else getattr(self._module, name)


def in_float64(patch: pytest.MonkeyPatch, scheduler: type) -> type:
    """Make a scheduler of diffusers compute in float64.

    It builds its tables in float32 and casts samples to it, whatever the default type; its formulas stay as they are.
    """
    module: Any = sys.modules[scheduler.__module__]
    for name, wide in (("torch", "float64"), ("np", "float64")):
        if hasattr(module, name) and not isinstance(getattr(module, name), _Instead):
            library = getattr(module, name)
            patch.setattr(module, name, _Instead(library, float32=getattr(library, wide)))
    return scheduler


def draw_from(patch: pytest.MonkeyPatch, module: Any, noise: Iterable[Any]) -> None:
    """Make a module of a peer take its standard normal noise from a sequence of tensors."""
    remaining = iter(noise)
    if hasattr(module, "randn_tensor"):
        patch.setattr(module, "randn_tensor", lambda *_, **__: next(remaining))
    else:
        patch.setattr(module, "torch", _Instead(module.torch, randn_like=lambda _: next(remaining)))
