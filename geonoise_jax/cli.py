"""The command line: ``geonoise demo|train|sample|evaluate|exact|figure|data|plan``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geonoise_jax import cli_data, cli_evaluate, cli_figure, cli_plan, files, imports, processes, runtime, signals
from geonoise_jax.cli_options import (
    Anywhere,
    add_allow_import,
    add_options,
    add_processes,
    add_span,
    join_processes,
    numbers,
    options_of,
    step,
)
from geonoise_jax.errors import UserError
from geonoise_jax.progress import Output

_OVERRIDE = "--config."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status.

    Bad input, a file that cannot be read or written, too little memory and a device that jax does not have end with
    status 2 and one line on standard error; a signal with its own status, and one line, a training run's after saving
    its state.
    """
    runtime.configure()
    arguments, overrides = _parse(sys.argv[1:] if argv is None else list(argv))

    def run() -> int:
        for name, value in vars(arguments).items():
            if isinstance(value, Anywhere):
                setattr(arguments, name, files.location(value, f"--{name}"))
            elif isinstance(value, Path):
                setattr(arguments, name, files.local(value, f"--{name}"))
        join_processes(arguments)
        with imports.allow(getattr(arguments, "allow_import", False)):
            return arguments.run(arguments, overrides)

    return runtime.status_of(run, f"geonoise {arguments.command}", debug=arguments.debug)


class _Version(argparse.Action):
    """The version, looked up when it is asked for."""

    def __call__(self, root: argparse.ArgumentParser, *_: object) -> None:
        print(f"geonoise {importlib.metadata.version('geonoise_jax')}")
        root.exit()


def parser() -> argparse.ArgumentParser:
    """Return the argument parser of all subcommands."""
    root = argparse.ArgumentParser(prog="geonoise", description="Noise-conditional and noise-blind generative models.")
    root.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    root.add_argument("--debug", action="store_true", help="print the traceback of an error too; may stand anywhere")
    commands = root.add_subparsers(
        dest="command", required=True, metavar="demo|train|sample|evaluate|exact|figure|data|plan"
    )
    _add_demo(commands)
    _add_train(commands)
    _add_sample(commands)
    cli_evaluate.add(commands)
    _add_exact(commands)
    cli_figure.add(commands)
    cli_data.add(commands)
    cli_plan.add(commands)
    return root


def _parse(words: list[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """Split ``--config.KEY=VALUE`` overrides from the arguments that argparse knows."""
    known: list[str] = []
    overrides: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        if word == "--debug":
            known.insert(0, word)
            continue
        if not word.startswith(_OVERRIDE):
            known.append(word)
            continue
        key, equals, value = word.removeprefix(_OVERRIDE).partition("=")
        following = value if equals else next(rest, None)
        if following is None:
            parser().error(f"{word}: needs a value")
        overrides.append((key, following))
    arguments = parser().parse_args(known)
    if overrides and arguments.command not in ("train", "exact", "data", "plan"):
        parser().error(f"{_OVERRIDE}{overrides[0][0]}: only train, exact, data and plan take overrides of the config")
    return arguments, overrides


def _add_demo(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("demo", help="train, sample and compare four models on real digits, in minutes")
    command.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results (default: demo)")
    extent = command.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick", action="store_true", help="a try-out in under 2 minutes on 2 cores: too short for DDPM to learn"
    )
    extent.add_argument("--all", action="store_true", help="every system, its own sampler: 45 minutes on 2 cores")
    command.set_defaults(run=_demo)


def _add_train(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "train",
        help="train the model of a config, or resume it",
        epilog="Any key of the config can be changed: --config.training.num_steps=2000",
    )
    command.add_argument(
        "--config",
        metavar="FILE.py[:VARIANT]",
        help="e.g. configs/digits.py:ddpm,blind (default: the config in the workdir, to go on with its run)",
    )
    command.add_argument("--workdir", required=True, type=Anywhere, help="folder of the run; resumed if it holds one")
    command.add_argument(
        "--init-from",
        metavar="WORKDIR[:STEP]",
        help="begin with the averaged parameters of another run, of its latest checkpoint or this one, wherever name "
        "and shape agree; --config.init_from.params=raw takes those of the step itself",
    )
    add_allow_import(command)
    add_processes(command)
    command.set_defaults(run=_train)


def _add_sample(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("sample", help="draw samples from a trained workdir")
    command.add_argument("--workdir", required=True, type=Anywhere, help="workdir of a training run")
    command.add_argument("--num", type=int, help="number of samples (default: 64, or as many as --x has)")
    command.add_argument(
        "--x",
        type=Path,
        metavar="PATH",
        help="data to start from, noised to --start-time: an image, a folder of images, or a .npy or .npz of floats in "
        "model space or of integers as the data set has them",
    )
    command.add_argument("--out", type=Anywhere, help="file name without ending (default: WORKDIR/samples/samples)")
    command.add_argument("--png", action="store_true", help="also write each sample as OUT/000000.png, ...")
    command.add_argument("--uint8", action="store_true", help="also write all samples as pixels 0..255, OUT.npy")
    command.add_argument("--animate", action="store_true", help="also write the way from noise to samples, OUT.gif")
    command.add_argument("--seed", type=int, default=0, help="seed of the start noise (default: 0)")
    command.add_argument("--sampler", help="e.g. heun, ddim, ancestral, dpmpp_2m, tsit5 (default: the config's)")
    add_options(command, "option of the sampler, e.g. eta=0.5; may be repeated")
    command.add_argument(
        "--num-steps", type=int, help="steps of the time grid, of samplers on one (default: the config's)"
    )
    add_span(command)
    command.add_argument("--guidance", type=float, help="scale of classifier-free guidance (default: the config's)")
    command.add_argument(
        "--guidance-interval",
        type=numbers,
        metavar="LO,HI",
        help="noise levels of the guidance (default: the config's)",
    )
    command.add_argument("--label", type=int, help="class of all samples, for a class-conditional model")
    command.add_argument("--step", type=step, help="step of the checkpoint, or best (default: the latest)")
    command.add_argument(
        "--params", default="ema", help="ema, the averaged parameters, or raw, those of the step itself (default: ema)"
    )
    add_allow_import(command)
    add_processes(command)
    command.set_defaults(run=_sample)


def _add_exact(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "exact",
        help="exact fields, energy and posterior of the noise level for a config",
        description="Compute the optimal fields of a config, in closed form for its data, at given or drawn points.",
        epilog="Any key of the config can be changed: --config.schedule.kwargs.t_max=0.99",
    )
    command.add_argument("--config", metavar="FILE.py[:VARIANT]", help="e.g. configs/circles.py:ddpm")
    origin = command.add_mutually_exclusive_group()
    origin.add_argument(
        "--points",
        type=Path,
        help="observations: an image, a folder of images, or a .npy or .npz, [B, *event] or [B, D], of floats in model "
        "space or of integers as in the data set",
    )
    origin.add_argument("--num", type=int, help="number of observations to draw: data plus noise")
    command.add_argument(
        "--t",
        type=numbers,
        metavar="T[,T...]",
        help="noise levels, which take turns (default: drawn from the time law; unknown for --points)",
    )
    command.add_argument("--seed", type=int, help="seed of what is drawn, with --num (default: 0)")
    command.add_argument("--out", type=Anywhere, help="file of the results; .npz is added where it is missing")
    command.add_argument(
        "--selfcheck", action="store_true", help="compare with the reference cases instead (about a minute)"
    )
    _add_exact_computation(command)
    command.set_defaults(run=_exact)


def _add_exact_computation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--split",
        help="take the points of this split as the law of the data "
        "(default: the law they were drawn from where it is known, else the config's split)",
    )
    command.add_argument("--accuracy", type=float, help="of integrals over t (default: 1e-5; 1e-11 in float64)")
    command.add_argument(
        "--x64", action="store_true", default=None, help="compute in float64: slower, accurate to 1e-11"
    )
    command.add_argument("--batch-size", type=int, help="points computed at once (default: 256)")
    command.add_argument(
        "--working-memory",
        type=float,
        metavar="GIB",
        help="memory to use beside the points of a data set, in GiB (default: 1)",
    )


def _demo(arguments: argparse.Namespace, _: list[tuple[str, str]]) -> int:
    from geonoise_jax import demo
    from geonoise_jax.systems import variants

    try:
        if arguments.all:
            print(demo.run(arguments.out, demo.OWN_SAMPLERS, variants()))
        else:
            print(demo.run(arguments.out, demo.QUICK if arguments.quick else demo.FULL))
    except demo.InterruptedDemoError as error:
        message, stopped_by = error.args
        Output().write(f"{message}\n")
        return signals.status(signal.Signals[stopped_by])
    return 0


def _train(arguments: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from geonoise_jax import config
    from geonoise_jax.evaluation import train
    from geonoise_jax.training import workdir

    if arguments.config is None and not any(
        files.exists(arguments.workdir / name) for name in ("config.json", "run.json")
    ):
        raise UserError(f"--config: must be given to begin a run; workdir = {str(arguments.workdir)!r} holds none yet")
    start = workdir.read_config(arguments.workdir) if arguments.config is None else config.load(arguments.config)
    result = train(config.override(start, _initial(arguments.init_from) + overrides), arguments.workdir)
    if result.stopped_by:
        if processes.is_lead():
            Output().write(f"{result.stopped_by}: saved step {result.step}; the same command resumes there\n")
        return signals.status(signal.Signals[result.stopped_by])
    if not processes.is_lead():
        return 0
    done = (
        f"already at step {result.step}, nothing to do"
        if result.first == result.step
        else f"trained to step {result.step}"
    )
    # No result: that is in the workdir.
    Output(sys.stdout).write(f"{done}: {arguments.workdir}\n")
    runtime.flushed(sys.stdout)
    return 0


def _initial(text: str | None) -> list[tuple[str, str]]:
    """Return the overrides of ``WORKDIR[:STEP]``; a path may have colons, and is then one that exists."""
    if text is None:
        return []
    folder, colon, step = text.rpartition(":")
    if not colon or not step.isdecimal() or files.is_folder(files.location(text, "--init-from")):
        folder, step = text, "-1"
    return [("init_from.workdir", str(files.absolute(files.location(folder, "--init-from")))), ("init_from.step", step)]


def _sample(arguments: argparse.Namespace, _: list[tuple[str, str]]) -> int:
    from geonoise_jax.evaluation import draw

    names = (field.name for field in dataclasses.fields(draw.Options) if field.name != "sampler_options")
    given = {name: getattr(arguments, name) for name in names}
    options = draw.Options(**given, sampler_options=options_of(arguments.option))
    out = arguments.out or arguments.workdir / "samples" / "samples"
    paths = draw.draw(arguments.workdir, out, options)
    if processes.is_lead():
        for path in paths:
            print(path)
    return 0


def _exact(arguments: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    names = ("points", "num", "t", "split", "accuracy", "x64", "seed", "batch_size", "working_memory")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.selfcheck:
        return _selfcheck(arguments, given, overrides)
    _print_exact(arguments, given, overrides)
    return 0


def _print_exact(arguments: argparse.Namespace, given: dict[str, Any], overrides: list[tuple[str, str]]) -> None:
    missing = [f"--{name}" for name in ("config", "out") if getattr(arguments, name) is None]
    if not {"points", "num"} & set(given):
        missing.append("--points or --num")
    if missing:
        raise UserError(f"missing {', '.join(missing)} (or --selfcheck)")
    from geonoise_jax import config
    from geonoise_jax.evaluation import exact_points

    options = exact_points.Options(**given)
    out = arguments.out if arguments.out.suffix == ".npz" else arguments.out.with_name(arguments.out.name + ".npz")
    print(exact_points.evaluate(config.override(config.load(arguments.config), overrides), out, options))
    print(out)


def _selfcheck(arguments: argparse.Namespace, given: dict[str, Any], overrides: list[tuple[str, str]]) -> int:
    others = sorted(set(given) - {"accuracy"} | {name for name in ("config", "out") if getattr(arguments, name)})
    if others or overrides:
        raise UserError(f"--selfcheck takes only --accuracy, not {', '.join(others) or 'overrides of a config'}")
    from geonoise_jax.evaluation.exact_selfcheck import selfcheck

    passed, text = selfcheck(arguments.accuracy)
    print(text)
    return 0 if passed else 1
