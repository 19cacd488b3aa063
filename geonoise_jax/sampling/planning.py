"""What the arguments of sampling mean for a field: a sampler, its times, and where it starts and ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.grids import GRIDS
from geonoise_jax.process.process import check_start
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling.samplers import Sampler, find

# Steps and grid of a sampler that takes the steps of a grid, where they are not given.
NUM_STEPS = 100
GRID = "uniform"
# By how much times may lie beyond the schedule's range, which they are then set to: that of rounding to float32.
_SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class Request:
    """How samples are asked for; None means the default. See :func:`~geonoise_jax.sampling.generation.generate`."""

    sampler: str | Sampler = "heun"
    num_steps: int | None = None
    grid: str | None = None
    times: Any = None
    denoise: bool = False
    start_time: float | None = None
    end_time: float | None = None
    trajectory: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


ARGUMENTS = (
    *(each.name for each in dataclasses.fields(Request) if each.name != "options"),
    *("x", "noise", "labels", "first", "batch_size", "mesh", "on_batch"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is the same for every batch.

    Attributes:
        times: the grid; only its ends for a sampler without one.
        within: the schedule from the first to the last of them.
        sampler: the sampler.
        options: those that it is given.
        denoise: whether the last observation is replaced by the estimate of x.
        trajectory: whether the observations at all times are kept.
    """

    times: Float[Array, "times"]
    within: Schedule
    sampler: Sampler
    options: tuple[tuple[str, Any], ...]
    denoise: bool
    trajectory: bool

    @property
    def static(self) -> dict[str, Any]:
        """All but the times, which may change without a new trace."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "times"}


def planned(field: Field, request: Request) -> Plan:
    """Return what a request means for a field.

    Raises:
        ValueError: on an unknown sampler, grid or option, a value out of its range, or an argument without effect.
    """
    schedule, name = field.process.schedule, request.sampler
    options = {option: _plain(option, value) for option, value in request.options.items()}
    if request.times is None:
        within = sampled_range(schedule, request.start_time, request.end_time)
        chosen, times = plan(within, name, request.num_steps, request.grid, **options)
    else:
        chosen = find(name, options, ARGUMENTS)
        if not chosen.gridded:
            raise refused("times", request.times, f"None with {name}, which takes no grid")
        given = ("num_steps", "grid", "start_time", "end_time")
        _refuse_given("times", **{each: getattr(request, each) for each in given})
        within, times = own_grid(schedule, request.times)
    for option in ("denoise", "trajectory"):
        checks.truth(option, getattr(request, option))
    if request.denoise and not chosen.timed:
        raise refused("denoise", True, f"False with {name}, which already ends at an estimate of x")
    if request.trajectory and not chosen.gridded:
        raise refused("trajectory", True, f"False with {name}, which goes along no grid of times")
    if not chosen.timed:
        _refuse_given(f"{name}, which ends where it has converged", end_time=request.end_time)
    _check_interval(field, within)
    return Plan(times, within, chosen, tuple(sorted(options.items())), request.denoise, request.trajectory)


def plan(
    schedule: Schedule,
    sampler: str | Sampler,
    num_steps: int | None = None,
    grid: str | None = None,
    **options: Any,
) -> tuple[Sampler, Float[Array, "times"]]:
    """Return the sampler and the times that these options mean for a schedule; only the ends for one without a grid.

    Raises:
        ValueError: on an unknown sampler, grid or option, a number of steps that is not positive, or a grid or a number
            of steps for a sampler that takes none.
    """
    chosen = find(sampler, options, ARGUMENTS)
    if not chosen.gridded:
        _refuse_given(f"{sampler}, which takes no grid", num_steps=num_steps, grid=grid)
        return chosen, GRIDS[GRID](schedule, 1)
    name = checks.choice("grid", GRID if grid is None else grid, GRIDS)
    return chosen, GRIDS[name](schedule, NUM_STEPS if num_steps is None else num_steps)


def own_grid(schedule: Schedule, times: Float[ArrayLike, "times"]) -> tuple[Schedule, Float[Array, "times"]]:
    """Return the part of a schedule that a grid of one's own covers, and the grid as an array.

    Raises:
        ValueError: if they are not two or more decreasing times within the schedule's range.
    """
    try:
        grid = np.asarray(times, np.float64)
    except (TypeError, ValueError):
        grid = np.empty(0)
    if grid.ndim != 1 or len(grid) < 2:
        raise refused("times", times, "two or more decreasing times, [times]")
    low, high = schedule.t_min, schedule.t_max
    slack = _SLACK * (high - low)
    outside = ~((low - slack <= grid) & (grid <= high + slack))
    if outside.any():
        number = int(outside.argmax())
        raise refused(f"times[{number}]", float(grid[number]), f"in [{low:g}, {high:g}], the range of the schedule")
    rounded = np.clip(grid, low, high).astype(jnp.result_type(float))
    rising = np.flatnonzero(np.diff(rounded) >= 0.0)
    if len(rising):
        number = int(rising[0]) + 1
        raise refused(f"times[{number}]", float(grid[number]), f"smaller than the time before, {grid[number - 1]:g}")
    start, end = (float(time) for time in np.clip(grid[[0, -1]], low, high))
    return dataclasses.replace(schedule, t_min=end, t_max=start), jnp.asarray(rounded)


def sampled_range(schedule: Schedule, start_time: float | None, end_time: float | None) -> Schedule:
    """Return the part of a schedule that sampling from ``start_time`` to ``end_time`` covers.

    Raises:
        ValueError: if a time is not inside the schedule's range, or they are not in order.
    """
    low, high = schedule.t_min, schedule.t_max
    start, end = high, low
    if start_time is not None:
        start = checks.real("start_time", start_time, low=low, high=high, open_low=True)
    if end_time is not None:
        end = checks.real("end_time", end_time, low=low, high=start, open_high=True)
    return dataclasses.replace(schedule, t_min=end, t_max=start)


def check_begin(within: Schedule, request: Request, from_data: bool) -> None:
    """Refuse to start from pure noise where it is not, saying which time is to blame, and from data where they are.

    Raises:
        ValueError: if the signal is not negligible without data, or is nothing with them.
    """
    if from_data:
        with jax.ensure_compile_time_eval():
            kept = float(within.scales(jnp.asarray(within.t_max, jnp.result_type(float)))[0])
        if kept == 0.0:
            raise UserError(f"x: has no effect with a start at t = {within.t_max:g}, where a = 0; leave it out")
        return
    try:
        check_start(within)
    except UserError as error:
        blamed = "start_time" if request.times is None else "times[0]"
        if request.start_time is None and request.times is None:
            raise
        raise UserError(f"{blamed} = {within.t_max:g}: too early to start from noise alone ({error})") from error


def _check_interval(field: Field, within: Schedule) -> None:
    """Refuse guidance on an interval of noise levels of which none is sampled."""
    interval = getattr(field, "interval", None)
    if interval is not None and not (interval[0] <= within.t_max and within.t_min <= interval[1]):
        raise UserError(
            f"guidance interval = {interval}: has no effect, as sampling goes from t = {within.t_max:g} to "
            f"{within.t_min:g}; leave the guidance out"
        )


def _refuse_given(why: str, **unused: Any) -> None:
    """Refuse what is given (not None) although it has no effect."""
    checks.without_effect(why, {name: (value, None) for name, value in unused.items()})


def _plain(name: str, value: Any) -> Any:
    """Return an option as the number or word that compiled samplers are told apart by, also if it is an array of one.

    Raises:
        ValueError: if it is neither.
    """
    if getattr(value, "shape", None) == ():
        value = value.item()
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise refused(name, value, "a number, a word or a truth value, the same for all samples")
    return value
