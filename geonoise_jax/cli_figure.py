"""The command ``geonoise figure``."""

from __future__ import annotations

import argparse
from pathlib import Path

from geonoise_jax.cli_options import Anywhere, add_allow_import, add_options, options_of
from geonoise_jax.errors import UserError
from geonoise_jax.studies.table import NONE, STUDIES

# In place of a study's name.
_ALL = "all"


def add(commands: argparse._SubParsersAction) -> None:
    """Add ``figure`` to the commands."""
    command = commands.add_parser(
        "figure",
        help="a study with a picture: exact fields against samplers and trained networks",
        description="Run a study; write OUT.png, OUT.svg, OUT.npz and OUT.json, and print its table and verdicts.",
    )
    meanings = "; ".join(f"{name}: {entry.about}" for name, entry in STUDIES.items())
    words = (*STUDIES, _ALL)
    command.add_argument(
        "name", choices=words, metavar="|".join(words), help=f"{meanings}; {_ALL}: all of them, on one page"
    )
    command.add_argument(
        "--out", type=Anywhere, help=f"file name without ending (default: NAME); of {_ALL}, a folder (default: figures)"
    )
    without = ", ".join(name for name, entry in STUDIES.items() if entry.workdir == NONE)
    command.add_argument("--workdir", type=Anywhere, help=f"workdir of a training run; {without} and {_ALL} take none")
    command.add_argument(
        "--quick", action="store_true", help="try out a study that takes long, at a size that shows little"
    )
    add_options(command, "option of the study, e.g. num=4096; may be repeated")
    add_allow_import(command)
    command.set_defaults(run=_figure)


def _figure(arguments: argparse.Namespace, _: list[tuple[str, str]]) -> int:
    if arguments.name == _ALL:
        return _all(arguments)
    from geonoise_jax.studies import runner

    out = arguments.out or Path(arguments.name)
    given = options_of(arguments.option)
    options = runner.options(arguments.name, arguments.workdir, given, out, quick=arguments.quick)
    print(runner.run(arguments.name, out, options))
    print(out.with_name(out.name + ".png"))
    return 0


def _all(arguments: argparse.Namespace) -> int:
    for name, given in (("--workdir", arguments.workdir), ("--option", arguments.option)):
        if given:
            raise UserError(f"{name}: is no argument of {_ALL}, whose studies have theirs")
    from geonoise_jax.studies import collection
    from geonoise_jax.studies.collection_page import sentence

    found = collection.make_all(arguments.out or Path("figures"), quick=arguments.quick)
    print(sentence([row for part in found.parts for row in part.rows]))
    for part in found.failed:
        print(f"{part.name} could not be made: {part.failure}")
    print(found.page)
    return 1 if found.failed else 0
