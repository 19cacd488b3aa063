"""Communication between devices, read off the text of a compiled program."""

from __future__ import annotations

import collections
import math
import re

from geonoise_jax.planning.facts import Collective

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# `%name = TYPE kind(` or `kind-start(`; the operation that only waits, `kind-done`, is no second one.
_LINE = re.compile(rf"= (?P<type>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"\b(?P<dtype>pred|bf16|[a-z]+\d+(?:e\w+)?)\[(?P<shape>[\d,]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")


def collectives(text: str) -> tuple[Collective, ...]:
    """Return what a program communicates, by kind and dtype, the largest first.

    Args:
        text: of ``jax.stages.Compiled.as_text``, of one device's program.
    """
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    sizes: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in text.splitlines():
        if not any(kind in line for kind in KINDS):
            continue
        found = _LINE.search(_COMMENT.sub("", line))
        if found is None:
            continue
        result = found["type"]
        # What begins an asynchronous one, but of a reduction, returns its operands and then its results.
        if found["start"] and found["kind"] != "all-reduce":
            result = _second(result)
        by_dtype: collections.Counter[str] = collections.Counter()
        for array in _ARRAY.finditer(result):
            by_dtype[array["dtype"]] += _bytes(array["dtype"], array["shape"])
        for dtype, size in by_dtype.items():
            counts[found["kind"], dtype] += 1
            sizes[found["kind"], dtype] += size
    return tuple(Collective(*key, counts[key], size) for key, size in sizes.most_common())


def _second(text: str) -> str:
    """Return the second entry of a tuple's text, or the text if it has none."""
    depth, starts = 0, []
    for place, letter in enumerate(text):
        depth += letter in "([{"
        depth -= letter in ")]}"
        if letter == "," and depth == 1:
            starts.append(place)
    return text[starts[0] + 1 : starts[1] if len(starts) > 1 else None] if starts else text


def _bytes(dtype: str, shape: str) -> int:
    bits = re.search(r"\d+", dtype)
    size = 1 if dtype == "pred" or bits is None else max(int(bits[0]) // 8, 1)
    return size * math.prod(int(length) for length in shape.split(",") if length)
