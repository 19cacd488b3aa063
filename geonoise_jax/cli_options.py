"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.processes import joining
from geonoise_jax.processes.detection import detect


class Anywhere(str):
    """What is given for a path that may be local or in a bucket, see ``files.location``; a ``Path`` is local."""


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


def add_processes(command: argparse.ArgumentParser) -> None:
    """Let a command run in several processes, which :func:`join_processes` joins."""
    group = command.add_argument_group(
        "several processes",
        "The same command in each. Under srun, mpirun and on Cloud TPU and GKE nothing needs to be given.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is, and a free port there")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many processes there are")
    group.add_argument("--process-id", type=int, metavar="I", help="number of this one, 0..N-1")
    group.add_argument(
        "--initialize-timeout",
        type=int,
        metavar="SECONDS",
        default=joining.INITIALIZE_SECONDS,
        help="how long to wait for the others (default: %(default)s)",
    )
    group.add_argument(
        "--heartbeat-timeout",
        type=int,
        metavar="SECONDS",
        default=joining.HEARTBEAT_SECONDS,
        help="how long a process may be silent before the others end too (default: %(default)s)",
    )


def join_processes(arguments: argparse.Namespace) -> None:
    """Join the other processes of a command, if there are some.

    Raises:
        UserError: if they do not come together, or the command runs in one process only.
    """
    words = vars(arguments)
    cluster = detect(words.get("coordinator"), words.get("num_processes"), words.get("process_id"))
    if cluster is None:
        return
    name = f"geonoise {arguments.command}"
    if "coordinator" not in words:
        raise UserError(
            f"{arguments.command}: runs in one process, and this is one of several ({cluster.kind}); start it once"
        )
    joining.join(
        cluster,
        name,
        initialize_timeout=arguments.initialize_timeout,
        heartbeat_timeout=arguments.heartbeat_timeout,
        clean=files.discard_drafts,
    )


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
