"""The commands ``geonoise data ...``."""

from __future__ import annotations

import argparse
from pathlib import Path

from geonoise_jax.errors import UserError


def add(commands: argparse._SubParsersAction) -> None:
    """Add ``data`` to the commands."""
    data = commands.add_parser("data", help="prepare data sets, and look at them")
    actions = data.add_subparsers(dest="action", required=True, metavar="info|prepare")
    _add_info(actions)
    _add_prepare(actions)


def _add_info(actions: argparse._SubParsersAction) -> None:
    info = actions.add_parser(
        "info",
        help="what a config would train on: items, classes, ranges, statistics, memory",
        epilog="Any key of the config can be changed: --config.data.kwargs.path=photos",
    )
    which = info.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="a data set, such as fashion_mnist or cifar10")
    which.add_argument("--config", metavar="FILE.py[:VARIANT]", help="e.g. configs/images.py")
    _add_data_dir(info)
    info.add_argument("--split", help="another split than the config's, e.g. test or train[90%%:]")
    info.add_argument("--out", type=Path, metavar="FILE.png", help="also write a picture of some items")
    info.set_defaults(run=_info)


def _add_prepare(actions: argparse._SubParsersAction) -> None:
    prepare = actions.add_parser(
        "prepare",
        help="download a public image set and write it as training reads it, once (needs the extra tfds)",
        epilog="Files fetched by hand replace the network; those of Debian's package dataset-fashion-mnist are found.",
    )
    prepare.add_argument(
        "name", metavar="NAME", help="fashion_mnist, svhn_cropped, cifar10, imagenet_resized/64x64 or another of TFDS"
    )
    _add_data_dir(prepare)
    prepare.add_argument(
        "--manual-dir", type=Path, help="folder of files fetched by hand (default: DATA_DIR/downloads/manual)"
    )
    prepare.set_defaults(run=_prepare)


def _add_data_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data-dir", type=Path, help="folder of data sets (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)"
    )


def _info(arguments: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from geonoise_jax import config, data
    from geonoise_jax.evaluation import data_info

    if arguments.config:
        choice = config.load(arguments.config)
    else:
        choice = config.base_config()
        choice.data.name = arguments.name
    if arguments.data_dir:
        choice.data.data_dir = str(arguments.data_dir)
    if not arguments.config:
        prepared, needs = data.described(arguments.name, data_dir=arguments.data_dir)
        if needs and not prepared:
            _print({"data set": f"{arguments.name}, not prepared: geonoise data prepare {arguments.name}", **needs})
            return 0
    choice = config.override(choice, overrides)
    print(data_info.describe(choice, split=arguments.split, out=arguments.out))
    return 0


def _prepare(arguments: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from geonoise_jax import data

    if overrides:
        raise UserError(f"--config.{overrides[0][0]}: prepare takes the name of a data set, and no config")
    builder = data.prepare(arguments.name, data_dir=arguments.data_dir, manual_dir=arguments.manual_dir)
    sizes = ", ".join(f"{name} ({split.num_examples} items)" for name, split in builder.info.splits.items())
    _print({"data set": arguments.name, "folder": str(builder.data_dir), "splits": sizes})
    return 0


def _print(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
