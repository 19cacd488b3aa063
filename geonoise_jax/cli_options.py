"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from geonoise_jax.errors import UserError


def add_allow_import(command: argparse.ArgumentParser) -> None:
    """Let a command import what the config in a workdir names."""
    command.add_argument(
        "--allow-import",
        action="store_true",
        help="import code that the config in the workdir names, also if you did not train it there: look at it first",
    )


def add_options(command: argparse.ArgumentParser, meaning: str) -> None:
    """Let a command take ``--option NAME=VALUE``, which :func:`options_of` reads."""
    command.add_argument("--option", action="append", default=[], type=assignment, metavar="NAME=VALUE", help=meaning)


def add_span(command: argparse.ArgumentParser) -> None:
    """Let a command choose where sampling starts and ends, by which grid, and how many samples it computes at once."""
    command.add_argument("--grid", help="uniform, rho or log_snr, of samplers on a grid (default: the config's)")
    command.add_argument("--start-time", type=float, help="time at which sampling starts (default: the config's)")
    command.add_argument("--end-time", type=float, help="time at which sampling ends (default: the config's)")
    command.add_argument(
        "--denoise",
        action=argparse.BooleanOptionalAction,
        help="end with the estimate of the clean sample (default: the config's)",
    )
    command.add_argument("--batch-size", type=int, help="samples computed at once (default: the config's)")


def step(text: str) -> int | str:
    """Read the number of updates of a checkpoint, or the word for one."""
    return int(text) if text.isdigit() else text


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: must be numbers separated by commas") from error


def assignment(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``; the value is a Python literal where it is one."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: must be NAME=VALUE")
    from geonoise_jax.config import literal

    return name, literal(value)


def options_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the values of ``--option`` by name.

    Raises:
        ValueError: if a name is given twice.
    """
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--option={name}: is given more than once")
    return dict(pairs)
