"""Finite sets of points, up to whole image data sets: exact fields of the empirical distribution."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from geonoise_jax.checks import integer
from geonoise_jax.errors import UserError
from geonoise_jax.exact import checks, sums
from geonoise_jax.exact.base import Anchor, Distribution, Level, Scores
from geonoise_jax.exact.projection import Far, Near, Projection, focus, project
from geonoise_jax.exact.pytrees import pytree
from geonoise_jax.process.keys import threefry

_SHARPER = 16
_DRAW_ROW, _DRAW_BATCH = 256, 4096
_WORKING_COPIES = 4  # arrays of one number per query and point that are alive at once


def _drawn(key: Key[Array, ""], weights: Float[Array, "N"], num: int) -> Int[Array, "num"]:
    """Return numbers of points drawn with replacement: a row of points, then one of its points.

    Two uniform numbers resolve probabilities that one of 24 bits would not, and nothing of size N num is made.
    """
    row_key, place_key = jax.random.split(key)
    rows = jnp.pad(weights, (0, -len(weights) % _DRAW_ROW)).reshape(-1, _DRAW_ROW)
    within = jnp.cumsum(rows, axis=1)
    up_to = jnp.cumsum(within[:, -1])
    # Never quite the total, to which numbers beyond the last point would belong.
    below_one = 1.0 - float(jnp.finfo(weights.dtype).eps)
    at = below_one * jax.random.uniform(row_key, (num,), weights.dtype) * up_to[-1]
    row = jnp.searchsorted(up_to, at, side="right")
    share = below_one * jax.random.uniform(place_key, (num,), weights.dtype)

    def place(draw: tuple[Array, Array]) -> Array:
        row, share = draw
        return jnp.searchsorted(within[row], share * within[row, -1], side="right")

    return row * _DRAW_ROW + jax.lax.map(place, (row, share), batch_size=_DRAW_BATCH)


@jax.jit
def _surprise(log_weight: Float[Array, "N"]) -> Float[Array, ""]:
    """Return the largest information that an observation can give on which point it is of."""
    return jnp.where(jnp.isfinite(log_weight), -log_weight, 0.0).max()


@pytree(
    data=("rows", "square", "log_weight"),
    static=("event_shape", "num_points", "num_near", "working_memory", "mesh", "axis", "query_axis"),
)
class FiniteSet(Distribution):
    """Points with probabilities: the empirical distribution of a data set.

    Attributes:
        rows: the points, flattened, [N, D] (padded to a multiple of the devices if sharded).
        square: their squared norms, [N].
        log_weight: the logarithms of their probabilities, [N].
        num_points: N.
        num_near: number of points per query that are compared by differences.
        working_memory: bytes that a computation may use beside the points.
        mesh: device mesh over which the points are sharded, or None.
        axis: the mesh axis of the points.
        query_axis: the mesh axis of the queries, or None if every device works on all of them.
    """

    rows: Float[Array, "N D"]
    square: Float[Array, "N"]
    log_weight: Float[Array, "N"]
    num_points: int
    num_near: int
    working_memory: int
    mesh: Mesh | None
    axis: str | None
    query_axis: str | None

    def __init__(
        self,
        points: Any,
        weights: Any = None,
        *,
        num_near: int = 32,
        working_memory: int = 2**30,
    ) -> None:
        """Build the law.

        Args:
            points: [N, *event]; kept as they are, in their own dtype.
            weights: [N], summing to one; None gives every point the same.
            num_near: number of nearest points per query that are compared by differences rather than by a matrix
                product, which makes float32 accurate near the data.
            working_memory: bytes that a computation may use beside the points; queries are taken in blocks that fit.

        Raises:
            ValueError: if there is no point, an entry is not finite, the weights are not N probabilities, or not even
                one query fits into ``working_memory``.
        """
        values = checks.array("FiniteSet.points", points, at_least=2)
        num_near = integer("FiniteSet.num_near", num_near, low=1)
        rows = values.reshape(len(values), -1)
        self._set(
            rows=rows,
            square=jnp.einsum("nd,nd->n", rows, rows, precision=jax.lax.Precision.HIGHEST),
            log_weight=jnp.log(checks.weights("FiniteSet.weights", weights, len(rows), rows.dtype)),
            event_shape=values.shape[1:],
            num_points=len(rows),
            num_near=min(num_near, len(rows)),
            working_memory=working_memory,
            mesh=None,
            axis=None,
            query_axis=None,
        )
        self.query_block(rows.dtype)

    @property
    def points(self) -> Float[Array, "N *event"]:
        """The points, [N, *event]."""
        return self.rows[: self.num_points].reshape(self.num_points, *self.event_shape)

    def shard(self, mesh: Mesh, axis: str, query_axis: str | None = None) -> FiniteSet:
        """Return the same law with its points divided over the devices of a mesh axis.

        Log-sum-exps and weighted sums are merged by collectives.

        Args:
            mesh: the devices.
            axis: mesh axis over which the points are divided.
            query_axis: mesh axis over which queries are divided, whose size must then divide their number.

        Raises:
            ValueError: if the mesh has no such axis.
        """
        for name in (axis, query_axis):
            if name is not None and name not in mesh.axis_names:
                raise UserError(f"axis = {name!r}: must be one of the mesh's {mesh.axis_names}")
        padding = -len(self.rows) % mesh.shape[axis]
        sharding = NamedSharding(mesh, P(axis))
        law = object.__new__(FiniteSet)
        law._set(
            **{name: getattr(self, name) for name in ("event_shape", "num_points", "num_near", "working_memory")},
            rows=jax.device_put(jnp.pad(self.rows, ((0, padding), (0, 0))), sharding),
            square=jax.device_put(jnp.pad(self.square, (0, padding)), sharding),
            log_weight=jax.device_put(jnp.pad(self.log_weight, (0, padding), constant_values=-jnp.inf), sharding),
            mesh=mesh,
            axis=axis,
            query_axis=query_axis,
        )
        return law

    @property
    def rounding_remedy(self) -> str:
        """What helps against rounding: also more points near a query, where there are more."""
        if self.num_near >= self.num_points:
            return super().rounding_remedy
        return "compute in float64 (jax_enable_x64), or give FiniteSet a larger num_near"

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num *event"]:
        index = _drawn(threefry(key), jnp.exp(self.log_weight), num)
        return self.rows[index].reshape(num, *self.event_shape)

    def project(self, u: Float[Array, "B D"], signal: float) -> Projection:
        local = len(self.rows) // self._devices
        near = min(self.num_near, local)

        def function(rows: Array, square: Array, log_weight: Array, u: Array) -> Projection:
            return project(rows, square, log_weight, u, signal, near, self.axis)

        data, queries = P(self.axis), P(self.query_axis)
        run = self._local(function, (data, data, data, queries), self._layout(near < local))
        return run(self.rows, self.square, self.log_weight, u)

    def anchor(self, projection: Projection) -> Anchor:
        return Anchor(projection.residual2, projection.cross, projection.centre2, _surprise(self.log_weight))

    def focus(self, projection: Projection, u: Float[Array, "B D"], level: Level, signal: float) -> Projection:
        data, queries, layout = P(self.axis), P(self.query_axis), self._layout(projection.far is not None)

        def function(rows: Array, square: Array, log_weight: Array, p: Projection, u: Array, at: Level) -> Projection:
            return focus(rows, square, log_weight, p, u, at, signal, self.axis)

        run = self._local(function, (data, data, data, layout, queries, queries), layout)
        return run(self.rows, self.square, self.log_weight, projection, u, level)

    def scores(self, projection: Projection, level: Level, used: Bool[Array, "B T"] | None = None) -> Scores:
        queries, layout = P(self.query_axis), self._layout(projection.far is not None)

        def function(p: Projection, at: Level, used: Array | None) -> Scores:
            return sums.scores(p, at, used, self.axis)

        return self._local(function, (layout, queries, queries), queries)(projection, level, used)

    def average(
        self,
        projection: Projection,
        level: Level,
        scores: Scores,
        alpha: Float[Array, "J B T"],
        beta: Float[Array, "J B T"],
    ) -> Float[Array, "J B D"]:
        layout, queries, rows = self._layout(projection.far is not None), P(self.query_axis), P(None, self.query_axis)
        function = self._local(
            lambda rows, p, at, norm, alpha, beta: sums.average(rows, p, at, norm, alpha, beta, self.axis),
            (P(self.axis), layout, queries, queries, rows, rows),
            rows,
        )
        return function(self.rows, projection, level, scores.cache, alpha, beta)

    def sharpened(self) -> FiniteSet | None:
        """Return the same law with more points compared by differences, or None if all are or memory forbids."""
        law = copy.copy(self)
        law._set(num_near=min(_SHARPER * self.num_near, self.num_points))
        if law.num_near == self.num_near or law._bytes_per_query(self.rows.dtype) > self.working_memory:
            return None
        return law

    def query_block(self, dtype: Any) -> int:
        """Return how many queries fit into the working memory.

        Raises:
            ValueError: if not even one does.
        """
        local, per_query = -(-len(self.rows) // self._devices), self._bytes_per_query(dtype)
        if per_query > self.working_memory:
            raise UserError(
                f"FiniteSet.working_memory = {self.working_memory}: one query on {local} points of {self.dim} entries "
                f"needs {per_query} bytes; raise it, or divide the points over more devices with shard()"
            )
        return self.working_memory // per_query

    def _bytes_per_query(self, dtype: Any) -> int:
        local = -(-len(self.rows) // self._devices)
        return int(jnp.dtype(dtype).itemsize * (_WORKING_COPIES * local + 3 * self.num_near * self.dim))

    @property
    def _devices(self) -> int:
        return 1 if self.mesh is None or self.axis is None else self.mesh.shape[self.axis]

    def _layout(self, has_far: bool) -> Projection:
        """How a projection lies on the mesh: each device holds its own near and far points of its queries."""
        one: Any = P(self.query_axis)
        both: Any = P(self.query_axis, self.axis)
        data: Any = P(self.axis)
        far = Far(both, data, data) if has_far else None
        return Projection(one, one, one, one, one, one, one, Near(both, both, both, both, both, both), far)

    def _local(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        """Run a function on every device's own points."""
        if self.mesh is None:
            return function
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
