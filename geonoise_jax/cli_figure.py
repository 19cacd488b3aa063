"""The command ``geonoise figure``."""

from __future__ import annotations

import argparse
from pathlib import Path

from geonoise_jax.cli_options import Anywhere, add_allow_import, add_options, options_of
from geonoise_jax.studies.table import NONE, STUDIES


def add(commands: argparse._SubParsersAction) -> None:
    """Add ``figure`` to the commands."""
    command = commands.add_parser(
        "figure",
        help="a study with a picture: exact fields against samplers and trained networks",
        description="Run a study; write OUT.png and OUT.npz and print its table.",
    )
    meanings = "; ".join(f"{name}: {entry.about}" for name, entry in STUDIES.items())
    command.add_argument("name", choices=tuple(STUDIES), metavar="|".join(STUDIES), help=meanings)
    command.add_argument("--out", type=Anywhere, help="file name without ending (default: NAME)")
    without = ", ".join(name for name, entry in STUDIES.items() if entry.workdir == NONE)
    command.add_argument("--workdir", type=Anywhere, help=f"workdir of a training run; {without} takes none")
    command.add_argument(
        "--quick", action="store_true", help="try out a study that trains, at a size that shows nothing"
    )
    add_options(command, "option of the study, e.g. num=4096; may be repeated")
    add_allow_import(command)
    command.set_defaults(run=_figure)


def _figure(arguments: argparse.Namespace, _: list[tuple[str, str]]) -> int:
    from geonoise_jax.studies import runner

    out = arguments.out or Path(arguments.name)
    given = options_of(arguments.option) | ({"quick": True} if arguments.quick else {})
    options = runner.options(arguments.name, arguments.workdir, given, out)
    print(runner.run(arguments.name, out, options))
    print(out.with_name(out.name + ".png"))
    return 0
