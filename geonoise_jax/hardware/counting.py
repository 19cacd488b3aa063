"""The multiplications and additions of a traced program's matrix products and convolutions, counted in its jaxpr.

Of a product of [m, k] and [k, n] there are 2 m k n. Of a convolution only those are counted whose input is inside the
image, and not in the padding or between the entries of a dilated one, as XLA's own count does:

    2 x batch x features in x features out / groups x prod over spatial axes of (pairs of an output and a tap inside).

Everything else (activations, norms, the optimizer) is left out: it is bound by memory, and few per cent of a network's
arithmetic.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core


class Format(NamedTuple):
    """In which arithmetic a product is done.

    Attributes:
        dtype: of the factors, the wider of the two.
        precision: jax's, ``default``, ``high`` or ``highest``.
    """

    dtype: str
    precision: str


@dataclasses.dataclass(frozen=True)
class Count:
    """What a program multiplies and adds, over all devices.

    Attributes:
        flops: multiplications and additions of its products by their format.
        unbounded: number of loops whose length the program itself decides; their bodies are counted once.
    """

    flops: Mapping[Format, float]
    unbounded: int = 0

    @property
    def total(self) -> float:
        """Return the sum over all formats."""
        return sum(self.flops.values())


def count(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Count:
    """Count the products of a program.

    Args:
        jaxpr: of ``jax.make_jaxpr`` or ``jitted.trace(...).jaxpr``; the length of a ``scan`` multiplies its body, and
            of the branches of a ``cond`` the largest counts.
    """
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    flops: dict[Format, float] = collections.defaultdict(float)
    unbounded = 0
    for equation in inner.eqns:
        name = equation.primitive.name
        if name in _PRODUCTS:
            flops[_format(equation)] += _PRODUCTS[name](equation)
            continue
        parts = [count(each) for each in _inside(equation)]
        if name == "cond":
            parts = [max(parts, key=lambda part: part.total)]
        times = equation.params["length"] if name == "scan" else 1
        unbounded += (name == "while") + sum(part.unbounded for part in parts)
        for part in parts:
            for kind, number in part.flops.items():
                flops[kind] += times * number
    return Count(dict(flops), unbounded)


def _inside(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, (core.Jaxpr, core.ClosedJaxpr)):
                yield each


def _format(equation: Any) -> Format:
    factors = [variable.aval.dtype for variable in equation.invars[:2]]
    asked = equation.params.get("precision")
    asked = asked[0] if isinstance(asked, tuple) else asked
    name = getattr(asked, "name", str(asked or "default")).lower()
    return Format(max(factors, key=lambda dtype: dtype.itemsize).name, name)


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    length = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 2.0 * equation.outvars[0].aval.size * length


def _convolution(equation: Any) -> float:
    params = equation.params
    numbers: jax.lax.ConvDimensionNumbers = params["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars[:2])
    out = equation.outvars[0].aval.shape
    pairs = 1
    for axis in range(len(numbers.lhs_spec) - 2):
        pairs *= _pairs(
            left[numbers.lhs_spec[2 + axis]],
            right[numbers.rhs_spec[2 + axis]],
            out[numbers.out_spec[2 + axis]],
            stride=params["window_strides"][axis],
            before=params["padding"][axis][0],
            between=params["lhs_dilation"][axis],
            apart=params["rhs_dilation"][axis],
        )
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return 2.0 * pairs * batch * features * right[numbers.rhs_spec[1]]


def _pairs(size: int, taps: int, out: int, *, stride: int, before: int, between: int, apart: int) -> int:
    """Number of pairs of an output and a tap of the window whose input is there, along one axis."""
    last = (size - 1) * between
    places = (start * stride - before + tap * apart for start in range(out) for tap in range(taps))
    return sum(0 <= place <= last and place % between == 0 for place in places)


_PRODUCTS: dict[str, Callable[[Any], float]] = {"dot_general": _dot, "conv_general_dilated": _convolution}
