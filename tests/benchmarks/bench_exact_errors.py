"""Errors of the exact field on sets that are hard for it, against brute force in float64.

    python tests/benchmarks/bench_exact_errors.py            # 2,240 cases of set, schedule, dimension and noise level
    python tests/benchmarks/bench_exact_errors.py --x64
    python tests/benchmarks/bench_exact_errors.py --count=2000 --dims=64

A *miss* is a quantity off by more than the accuracy of which the call that returned it did not warn; a *false alarm* a
warning about a query whose quantities are all within it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geonoise_jax.exact import FiniteSet, Marginal
from tests.exact_judge import Judged, judge
from tests.exact_sets import PROCESSES, SETS, levels, observations

try:
    from geonoise_jax.exact.delivery import listening
except ImportError:  # versions that cannot be listened to

    @contextlib.contextmanager
    def listening(_: Any) -> Iterator[None]:  # type: ignore[misc]
        """Hear nothing."""
        yield


QUANTITIES = ("log_density", "mean", "std", "field", "energy_grad")


def total(report: Any) -> np.ndarray:
    """Both parts of a reported error together."""
    return report.error.sum(axis=0)


def relative(value: Any, exact: np.ndarray, at_least: Any = 0.0) -> np.ndarray:
    """Max-norm relative error of every query."""
    size = np.maximum(np.abs(exact).reshape(len(exact), -1).max(axis=1), at_least)
    return np.abs(np.asarray(value, np.float64) - exact).reshape(len(exact), -1).max(axis=1) / size


def measured(marginal: Marginal, u: jax.Array, exact: Judged) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return errors, and the errors that the calls spoke of, by quantity."""
    errors, said = {}, {}

    def heard(calls: tuple[str, ...], call: Any) -> Any:
        worst = np.zeros(len(u))
        with warnings.catch_warnings(), listening(lambda report: np.maximum(worst, total(report), out=worst)):
            warnings.simplefilter("ignore")
            value = call()
        said.update(dict.fromkeys(calls, worst))
        return value

    posterior = heard(("mean", "std"), lambda: marginal.posterior(u))
    if not hasattr(listening, "__wrapped__") or "delivery" not in listening.__module__:
        said["mean"] = said["std"] = np.asarray(posterior.error)
    values = {"mean": posterior.mean, "std": jnp.sqrt(posterior.var)}
    for name in ("log_density", "field", "energy_grad"):
        values[name] = heard((name,), lambda name=name: getattr(marginal, name)(u))
    # A posterior of one discrete level has no width.
    least = {"log_density": 1.0, "std": 1e-5 * exact.mean}
    for name in QUANTITIES:
        errors[name] = relative(values[name], getattr(exact, name), least.get(name, 0.0))
    return errors, said


def main() -> None:
    """Print a table by set and one by quantity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--x64", action="store_true")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 64, 784, 3072])
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", arguments.x64)
    dtype = np.float64 if arguments.x64 else np.float32
    began, cases = time.time(), 0
    rows: dict[tuple[str, str], list[Any]] = {}
    for kind, (name, (process, law)), dim in itertools.product(SETS, PROCESSES.items(), arguments.dims):
        points, weights = SETS[kind](np.random.default_rng(dim), arguments.count, dim)
        points = points.astype(np.float32)
        t = levels(law, arguments.levels)
        u = observations(points, weights, process, t).astype(np.float32)
        marginal = Marginal(FiniteSet(points.astype(dtype), weights), process, law)
        errors, said = measured(marginal, jnp.asarray(u, dtype), judge(points, weights, process, law, u))
        accuracy = marginal.accuracy_in(dtype)
        cases += len(t)
        for quantity in QUANTITIES:
            bad, told = ~(errors[quantity] <= accuracy), ~(said[quantity] <= accuracy)
            rows.setdefault((kind, quantity), []).append((errors[quantity], bad & ~told, told & ~bad))
            if arguments.verbose:
                for i in np.flatnonzero(bad | told):
                    what = "miss" if bad[i] and not told[i] else "said" if bad[i] else "false alarm"
                    print(
                        f"{what:12} {kind:10} {name:13} D={dim:<5} t={t[i]:<9.4g} {quantity:12} "
                        f"error {errors[quantity][i]:.1e} said {said[quantity][i]:.1e}",
                        flush=True,
                    )
    print(f"{cases} cases, accuracy {accuracy:.0e}, {np.dtype(dtype).name}, {time.time() - began:.0f} s")
    print(f"{'':12}{'':13}{'median':>9}{'99%':>9}{'worst':>9}{'beyond':>8}{'missed':>8}{'false alarms':>14}")
    for kind, quantity in itertools.product((*SETS, "all"), QUANTITIES):
        parts = [part for key, each in rows.items() if key[1] == quantity and kind in (key[0], "all") for part in each]
        error, missed, alarm = (np.concatenate(values) for values in zip(*parts, strict=True))
        print(
            f"{kind:12}{quantity:13}{np.median(error):9.1e}{np.quantile(error, 0.99):9.1e}{error.max():9.1e}"
            f"{(error > accuracy).sum():8}{missed.sum():8}{alarm.sum():14}"
        )


if __name__ == "__main__":
    main()
