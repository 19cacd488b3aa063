"""The commands ``geonoise data ...``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Add ``data`` to the commands."""
    data = commands.add_parser("data", help="look at the data of a config")
    actions = data.add_subparsers(dest="action", required=True, metavar="info")
    info = actions.add_parser(
        "info",
        help="what a config would train on: items, classes, ranges, statistics, memory",
        epilog="Any key of the config can be changed: --config.data.kwargs.path=photos",
    )
    info.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="e.g. configs/images.py")
    info.add_argument("--split", help="another split than the config's, e.g. test or train[90%%:]")
    info.add_argument("--out", type=Path, metavar="FILE.png", help="also write a picture of some items")
    info.set_defaults(run=_info)


def _info(arguments: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from geonoise_jax import config
    from geonoise_jax.evaluation import data_info

    choice = config.override(config.load(arguments.config), overrides)
    print(data_info.describe(choice, split=arguments.split, out=arguments.out))
    return 0
