"""The command ``geonoise plan``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Add ``plan`` to the commands."""
    command = commands.add_parser(
        "plan",
        help="what a config needs of devices that you do not have: memory, work, time at best",
        description="Compile the training step and the sampler of a config for a TPU slice, a GPU node or this "
        "machine's CPU, from shapes alone; print memory, arithmetic, communication and bounds on time. What the "
        "compiler said is kept in the cache folder.",
        epilog="Any key of the config can be changed: --config.training.batch_size=512",
    )
    command.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="e.g. configs/cifar10.py")
    command.add_argument(
        "--topology", required=True, metavar="CHIP:SHAPE", help="e.g. v5e:4x4, v5p:2x2x1, v6e:2x4, h100:8, cpu:2"
    )
    command.add_argument(
        "--quick", action="store_true", help="do not compile: count the arithmetic, estimate the memory by formula"
    )
    command.add_argument(
        "--two-sizes", action="store_true", help="compile the step at half the batch too, for the largest that fits"
    )
    command.add_argument("--no-sampler", action="store_true", help="plan the training step alone")
    command.add_argument("--out", type=Path, metavar="FILE.json", help="also write all figures as JSON")
    command.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from geonoise_jax import config, files
    from geonoise_jax.planning import report, run

    if arguments.quick and arguments.two_sizes:
        from geonoise_jax.errors import UserError

        raise UserError("--two-sizes: has no effect with --quick, which compiles nothing; leave it out")
    choice = config.override(config.load(arguments.config), overrides)
    found = run.survey(
        choice,
        arguments.config,
        arguments.topology,
        quick=arguments.quick,
        two_sizes=arguments.two_sizes,
        sampler=not arguments.no_sampler,
    )
    print(report.text(found))
    if arguments.out is not None:
        files.write_json(arguments.out, report.data(found))
        print(arguments.out)
    return 0
