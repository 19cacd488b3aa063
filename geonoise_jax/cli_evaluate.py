"""The command ``geonoise evaluate``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from geonoise_jax.cli_options import (
    Anywhere,
    add_allow_import,
    add_options,
    add_processes,
    add_span,
    numbers,
    options_of,
    step,
)
from geonoise_jax.evaluation.metrics.table import METRICS

_SEVERAL = "several, separated by commas, are swept over"


def add(commands: argparse._SubParsersAction) -> None:
    """Add ``evaluate`` to the commands."""
    command = commands.add_parser(
        "evaluate",
        help="measure trained workdirs against data: numbers that can be compared, kept in the workdir",
        description="Sample a workdir, measure the samples and append the numbers to WORKDIR/evaluation/results.jsonl; "
        "print a table; write pictures and report.html. What is there already is not made again.",
        epilog="Metrics: " + "; ".join(f"{name}: {entry.about}" for name, entry in METRICS.items()),
    )
    command.add_argument(
        "--workdir", required=True, type=Anywhere, action="append", help="workdir of a training run; may be repeated"
    )
    command.add_argument(
        "--step", type=step, default="last", help="step of the checkpoint, last, best or all (default: last)"
    )
    command.add_argument(
        "--metrics", type=_words, metavar="NAME[,NAME...]", help="default: the quick ones for the data"
    )
    command.add_argument(
        "--features",
        type=_words,
        metavar="NETWORK[,...]",
        help="efficientnet_lite0[:SIZE], inception[:PROTOCOL], classifier (default: efficientnet_lite0:112)",
    )
    command.add_argument("--num", type=int, help="number of samples (default: 1000)")
    command.add_argument(
        "--reference",
        type=Anywhere,
        metavar="WORKDIR|FILE",
        help="compare with samples of another workdir, points of a .npy or .npz, or moments of a .npz (mu, sigma) "
        "(default: the run's data set)",
    )
    command.add_argument("--held-out", metavar="SPLIT", help="split that training did not see (default: test)")
    command.add_argument(
        "--against",
        metavar="SET",
        help="held_out, or training: compare with training items, as most published FIDs do (default: held_out)",
    )
    command.add_argument(
        "--num-reference", type=int, metavar="NUM", help="items to compare with that are used (default: all)"
    )
    command.add_argument("--num-likelihood", type=int, metavar="NUM", help="of likelihoods (default: 256)")
    command.add_argument("--out", type=Anywhere, help="folder of the page and curves (default: WORKDIR/evaluation)")
    _add_sampling(command)
    add_allow_import(command)
    add_processes(command)
    command.set_defaults(run=_evaluate)


def _add_sampling(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, help="seed of the start noise (default: 0)")
    command.add_argument("--params", help="ema, the averaged parameters, or raw (default: ema)")
    command.add_argument("--ema", type=numbers, metavar="WIDTH[,...]", help=f"widths of rebuilt averages; {_SEVERAL}")
    command.add_argument("--sampler", type=_words, metavar="NAME[,...]", help=f"samplers; {_SEVERAL}")
    add_options(command, "option of the sampler, e.g. eta=0.5; may be repeated")
    command.add_argument(
        "--num-steps", "--sampler.num_steps", type=_integers, metavar="N[,...]", help=f"steps; {_SEVERAL}"
    )
    add_span(command)
    command.add_argument("--guidance", type=numbers, metavar="SCALE[,...]", help=f"scales of guidance; {_SEVERAL}")
    command.add_argument("--guidance-interval", type=numbers, metavar="LO,HI", help="noise levels of the guidance")


def _evaluate(arguments: argparse.Namespace, _: list[tuple[str, str]]) -> int:
    from geonoise_jax import files, processes
    from geonoise_jax.evaluation.evaluator.options import Options
    from geonoise_jax.evaluation.evaluator.run import evaluate

    names = [field.name for field in dataclasses.fields(Options) if field.name != "sampler_options"]
    given: dict[str, Any] = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    options = Options(**given, sampler_options=options_of(arguments.option))
    found = evaluate([files.location(each, "--workdir") for each in arguments.workdir], options, out=arguments.out)
    if not processes.is_lead():
        return 0
    print(found.table)
    print()
    for path in found.files:
        print(path)
    return 0


def _words(text: str) -> tuple[str, ...]:
    """Read words separated by commas."""
    return tuple(word for word in text.split(",") if word)


def _integers(text: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: must be whole numbers separated by commas") from error
