r"""Averages of parameters of any length, chosen after training (Karras et al. 2024, section 3.2 and appendix C).

The power-function average of width sigma at step t weighs the parameters of step s by

(1)  p_{t,gamma}(s) = (gamma + 1) s^gamma / t^(gamma + 1),   0 < s <= t,   gamma of sigma as in ``ema.Power``

integrated over (s - 1, s]. Training keeps several widths and stores them at several steps; the average of another width
or step is approached by the combination of the stored ones whose profile is nearest in the mean square,

(2)  A x = b,   A_ij = <p_i, p_j>,   b_i = <p_i, p>
(3)  <p_a, p_b> = (gamma_a + 1)(gamma_b + 1) (t_a / t_b)^(gamma_b if t_a < t_b else -gamma_a)
                  / ((gamma_a + gamma_b + 1) max(t_a, t_b))

with x scaled to sum 1, so that parameters that did not move stay as they are. The distance of the profiles in total
variation, half the sum of |difference| over the steps, is what the combination may be off by, in units of the range
over which a parameter moved in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from geonoise_jax import checks, files, processes
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.training.ema import Power
from geonoise_jax.training.sharding import path_name

FOLDER = "posthoc_ema"
SIGMA_REL = (0.05, 0.10)
# Parts of the training that profiles are compared over, if there are more steps.
_BINS = 2**16


@dataclasses.dataclass(frozen=True)
class PosthocEMA:
    """Which averages are kept during training, and how often they are stored.

    Attributes:
        every: updates between snapshots; the last step has one too.
        sigma_rel: widths of the averages, see ``ema.Power``.

    Raises:
        ValueError: if ``every`` is not positive, there are no widths, two are the same, or one is out of its range.
    """

    every: int = 1000
    sigma_rel: tuple[float, ...] = SIGMA_REL

    def __post_init__(self) -> None:
        """Validate, by the names that they have in a config."""
        checks.integer("posthoc_ema.every", self.every, low=1)
        if not self.sigma_rel or len(set(self.sigma_rel)) < len(self.sigma_rel):
            raise refused("posthoc_ema.sigma_rel", self.sigma_rel, "one or more different widths")
        _ = self.rules

    @property
    def rules(self) -> tuple[Power, ...]:
        """The averages that training keeps."""
        return tuple(Power(width) for width in self.sigma_rel)

    def due(self, step: int, last: int) -> bool:
        """Return whether a step has a snapshot, in a run of ``last`` steps."""
        return step > 0 and (step % self.every == 0 or step == last)


class Snapshots:
    """The stored averages of one workdir, ``posthoc_ema/STEP.npz``.

    A snapshot is there whole or not at all. It is written before the checkpoint of its step: a run that goes on from a
    checkpoint has all that came before, and writes what comes after anew.
    """

    def __init__(self, workdir: str | PurePath) -> None:
        """Name the folder; it is made with the first snapshot."""
        self._folder = files.location(workdir, "workdir") / FOLDER

    @property
    def steps(self) -> list[int]:
        """Steps that have a snapshot, ascending."""
        return sorted(
            int(path.stem) for path in files.listed(self._folder) if path.suffix == ".npz" and path.stem.isdigit()
        )

    def save(self, step: int, sigma_rel: Sequence[float], averages: Sequence[PyTree[Array]]) -> None:
        """Store the averages of these widths at a step, in place of what may be there."""
        arrays: dict[str, Any] = {"step": step, "sigma_rel": np.asarray(sigma_rel, np.float64)}
        for number, average in enumerate(averages):
            leaves, _ = jax.tree_util.tree_flatten_with_path(processes.to_host(average))
            # A .npz has no types of machine learning; float32 holds bfloat16.
            arrays |= {f"{number}/{path_name(path)}": _native(leaf) for path, leaf in leaves}
        files.write_arrays(self._path(step), arrays)

    def rewind(self, step: int) -> None:
        """Remove the snapshots after a step."""
        for later in self.steps:
            if later > step:
                files.remove(self._path(later))

    def widths(self, step: int) -> Float[np.ndarray, "k"]:
        """Return the widths of the averages of a snapshot.

        Raises:
            UserError: if it cannot be read.
        """
        return self._read(step, lambda name: name == "sigma_rel")["sigma_rel"]

    def read(self, step: int) -> list[dict[str, np.ndarray]]:
        """Return the averages of a snapshot, each its arrays by their paths.

        Raises:
            UserError: if it cannot be read.
        """
        found = self._read(step, lambda _: True)
        trees: list[dict[str, np.ndarray]] = [{} for _ in found["sigma_rel"]]
        for name, value in found.items():
            number, slash, leaf = name.partition("/")
            if slash:
                trees[int(number)][leaf] = value
        return trees

    def _read(self, step: int, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
        path, remedy = self._path(step), "once it is removed, the others can be used"
        found = files.read_arrays(path, lambda name: name == "sigma_rel" or wanted(name), remedy=remedy)
        if "sigma_rel" not in found:
            raise UserError(f"{path}: is damaged or cannot be read (sigma_rel is missing); {remedy}")
        return found

    def _path(self, step: int) -> PurePath:
        return self._folder / f"{step:08d}.npz"


class Projection(NamedTuple):
    """The combination of stored averages that is nearest to another one.

    Attributes:
        weights: of the stored averages, summing to one.
        error: distance of the profiles in total variation, in 0..1 unless weights are negative.
    """

    weights: Float[np.ndarray, "n"]
    error: float


class Rebuilt(NamedTuple):
    """An average of chosen width.

    Attributes:
        step: the step that it is the average at.
        params: its parameters, nested dicts of arrays.
        error: see :class:`Projection`.
    """

    step: int
    params: dict[str, Any]
    error: float


def posthoc_ema(workdir: str | PurePath, sigma_rel: float, step: int | None = None) -> Rebuilt:
    """Return the power-function average of a width that need not have been stored.

    Args:
        workdir: of a run with ``posthoc_ema``.
        sigma_rel: width of the average, in (0, 0.28].
        step: number of updates after which it is taken; by default that of the last snapshot.

    Raises:
        ValueError: if there are no snapshots, none up to this step, the step is after the last, or the width is out of
            its range.
        UserError: if a snapshot cannot be read.
    """
    snapshots = Snapshots(workdir)
    wanted, steps = Power(sigma_rel), snapshots.steps
    if not steps:
        raise UserError(
            f"workdir = {str(workdir)!r}: has no snapshots of averages ({FOLDER}/); a run stores them with "
            "posthoc_ema.every = N in its config"
        )
    at = steps[-1] if step is None else checks.integer("step", step, low=1)
    if not steps[0] <= at <= steps[-1]:
        raise UserError(f"step = {at}: must be in {steps[0]}..{steps[-1]}, between the first snapshot and the last")
    used = [each for each in steps if each <= at]
    widths = [snapshots.widths(each) for each in used]
    times = np.repeat(used, [len(each) for each in widths])
    found = project(times, np.concatenate(widths), at, wanted.sigma_rel)
    return Rebuilt(at, _nested(_combined(snapshots, used, found.weights)), found.error)


def project(
    steps: Sequence[int] | Float[np.ndarray, "n"],
    sigma_rel: Sequence[float] | Float[np.ndarray, "n"],
    step: int,
    wanted: float,
) -> Projection:
    """Return the combination of stored averages nearest to the one of width ``wanted`` at ``step``, equation (2).

    Args:
        steps: step of each stored average.
        sigma_rel: width of each.
        step: step of the average that is wanted.
        wanted: its width.
    """
    times, powers = np.asarray(steps, np.float64), np.array([Power(float(each)).gamma for each in sigma_rel])
    at, power = float(step), Power(wanted).gamma
    gram = _products(times[:, None], powers[:, None], times[None], powers[None])
    scale = 1.0 / np.sqrt(np.diag(gram))
    right = _products(times, powers, np.full_like(times, at), np.full_like(powers, power))
    solved = scale * np.linalg.lstsq(scale[:, None] * gram * scale[None], scale * right, rcond=None)[0]
    weights = solved / solved.sum()
    return Projection(weights, _total_variation(times, powers, weights, at, power))


def _products(
    t_a: Float[np.ndarray, "*n"], a: Float[np.ndarray, "*n"], t_b: Float[np.ndarray, "*n"], b: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    """Return the inner products of profiles, equation (3)."""
    ratio = (t_a / t_b) ** np.where(t_a < t_b, b, -a)
    return (a + 1.0) * (b + 1.0) * ratio / ((a + b + 1.0) * np.maximum(t_a, t_b))


def _total_variation(
    times: Float[np.ndarray, "n"],
    powers: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"],
    at: float,
    power: float,
) -> float:
    last = max(at, times.max())
    edges = np.linspace(0.0, last, min(int(last), _BINS) + 1)
    difference = -np.diff(np.minimum(edges / at, 1.0) ** (power + 1.0))
    for t, own, weight in zip(times, powers, weights, strict=True):
        difference += weight * np.diff(np.minimum(edges / t, 1.0) ** (own + 1.0))
    return 0.5 * float(np.abs(difference).sum())


def _combined(snapshots: Snapshots, steps: Sequence[int], weights: Float[np.ndarray, "n"]) -> dict[str, np.ndarray]:
    """Return the weighted sum of stored averages, in float64 and rounded once; one snapshot is in memory at a time."""
    left, sums, kinds = list(weights), dict[str, Any](), dict[str, Any]()
    for step in steps:
        for tree in snapshots.read(step):
            weight = left.pop(0)
            for name, value in tree.items():
                sums[name] = sums.get(name, 0.0) + weight * value.astype(np.float64)
                kinds[name] = value.dtype
    return {name: np.asarray(value).astype(kinds[name]) for name, value in sums.items()}


def _nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _native(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array if array.dtype.kind in "fiu" else array.astype(np.float32)
