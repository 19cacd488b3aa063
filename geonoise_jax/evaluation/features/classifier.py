"""A small classifier of the labelled data set at hand, trained once and kept, whose features fit that data."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped
from scipy import stats

from geonoise_jax import checks, files
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.features.extraction import extract
from geonoise_jax.evaluation.features.network import FeatureNetwork, Outputs
from geonoise_jax.nets.classifier import Classifier
from geonoise_jax.process.keys import root_key
from geonoise_jax.training.optimizer import OPTIMIZERS, clipped, learning_rate

# Part of the name of what is kept: a new one whenever network or training change.
_VERSION = 1
_WARMUP = 100
_TEST_BATCH = 256

Params = Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the classifier is trained.

    Attributes:
        width: channels of its first level.
        num_steps: updates by Adam, with a cosine to zero.
        batch_size: images of an update.
        learning_rate: its peak.
        seed: of the first weights and of the order of the images.

    Raises:
        UserError: if a field is out of its range.
    """

    width: int = 16
    num_steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 6e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        for field in ("width", "num_steps", "batch_size"):
            checks.integer_field(self, field, low=1)
        checks.real_field(self, "learning_rate", low=0.0, open_low=True)
        checks.integer_field(self, "seed", low=0)


def train_classifier(
    train: Arrays, held_out: Arrays, settings: Settings | None = None, *, cache: str | Path | None = None
) -> FeatureNetwork:
    """Return a classifier of a data set, trained now or, for the same data and settings, read from the cache.

    The same seed gives the same weights on the same kind of machine; the protocol has their checksum, and the accuracy
    on the held-out images with its 95% interval (Wilson 1927).

    Args:
        train: labelled images to learn from; those without a class are left out.
        held_out: labelled images of the same shape and scale that it never sees.
        settings: how it is trained; None for the defaults.
        cache: folder in which it is kept; None for the user's cache.

    Raises:
        UserError: if these are no labelled images, or not of one kind.
    """
    settings = Settings() if settings is None else settings
    _check(train, held_out)
    net = Classifier(_num_classes(train), settings.width)
    file = (
        files.cache_folder() if cache is None else files.local(cache, "cache")
    ) / f"{_name(train, held_out, settings)}.npz"
    abstract = jax.eval_shape(net.init, root_key(0), jnp.zeros((1, *train.event_shape)))["params"]
    kept = _kept(file, abstract)
    if kept is None:
        params = _trained(net, train, settings)
        correct, count = _tested(_network(net, train, params), held_out)
        named = {f"{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(params))}
        files.write_arrays(file, {**named, "correct": correct, "count": count})
    else:
        params, correct, count = kept
    return dataclasses.replace(
        _network(net, train, params), protocol=_protocol(train, held_out, settings, params, correct, count)
    )


def _network(net: Classifier, like: Arrays, params: Params) -> FeatureNetwork:
    shape = like.event_shape

    def apply(params: Params, images: Shaped[Array, "b h w c"]) -> Outputs:
        if images.shape[1:] != shape:
            raise UserError(f"images.shape = {list(images.shape)}: must be [N, {', '.join(map(str, shape))}]")
        pixels = images.dtype == jnp.uint8
        seen = (images.astype(jnp.float32) - 127.5) / 127.5 if pixels else images
        outputs: Any = net.apply({"params": params}, seen)
        return outputs

    return FeatureNetwork(
        name="classifier",
        protocol="",
        dimension=net.dimension,
        num_classes=net.num_classes,
        params=params,
        apply=apply,
    )


def _trained(net: Classifier, train: Arrays, settings: Settings) -> Params:
    num = settings.num_steps
    rate = learning_rate(settings.learning_rate, warmup_steps=min(_WARMUP, num // 10), decay="cosine", num_steps=num)
    optimizer = clipped(OPTIMIZERS["adam"](rate))

    @jax.jit
    def step(
        params: Params, state: Any, images: Float[Array, "b h w c"], labels: Int[Array, "b"]
    ) -> tuple[Params, Any]:
        def loss(params: Params) -> Float[Array, ""]:
            logits: Any = net.apply({"params": params}, images)[1]
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            return -chosen.mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    with jax.default_matmul_precision("highest"):
        params = jax.jit(net.init)(root_key(settings.seed), jnp.zeros((1, *train.event_shape), jnp.float32))["params"]
        state = optimizer.init(params)
        for rows in _orders(_labelled(train), settings):
            labels = (train.labels if train.labels is not None else rows)[rows]
            params, state = step(params, state, train.to_model(train.events[rows]), labels)
    return params


def _orders(rows: Int[np.ndarray, "n"], settings: Settings) -> Iterator[Int[np.ndarray, "b"]]:
    """Yield the rows of each update: all images in random order, then in another; what is left over is dropped."""
    generator = np.random.default_rng(settings.seed)
    size, done = min(settings.batch_size, len(rows)), 0
    while True:
        order = generator.permutation(rows)
        for start in range(0, len(rows) - size + 1, size):
            if done == settings.num_steps:
                return
            yield order[start : start + size]
            done += 1


def _tested(network: FeatureNetwork, held_out: Arrays) -> tuple[int, int]:
    """Return how many held-out images get their class, and how many there are."""
    rows = _labelled(held_out)
    images = (held_out.to_model(held_out.events[part]) for part in np.array_split(rows, -(-len(rows) // _TEST_BATCH)))
    logits = extract(network, images, batch_size=_TEST_BATCH).logits
    if logits is None or held_out.labels is None:
        return 0, 0
    return int(np.sum(logits.argmax(axis=1) == held_out.labels[rows])), len(rows)


def _protocol(train: Arrays, held_out: Arrays, settings: Settings, params: Params, correct: int, count: int) -> str:
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(params)))
    interval = stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    trained = ", ".join(f"{field.name} {getattr(settings, field.name):g}" for field in dataclasses.fields(settings))
    return (
        f"classifier of {train.name}/{train.split} ({len(train)} images; {trained}), weights {digest.hexdigest()[:8]}, "
        f"held-out accuracy {correct / count:.3f} [{interval.low:.3f}, {interval.high:.3f}] on {count} of "
        f"{held_out.name}/{held_out.split}, layer before the last; model space, not rounded"
    )


def _kept(file: Path, abstract: PyTree[jax.ShapeDtypeStruct]) -> tuple[Params, int, int] | None:
    """Return what the cache has; what it has in another form is made anew."""
    leaves, tree = jax.tree.flatten(abstract)
    try:
        with np.load(file, allow_pickle=False) as stored:
            found = [stored[f"{number}"] for number in range(len(leaves))]
            correct, count = int(stored["correct"]), int(stored["count"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    if any(one.shape != other.shape for one, other in zip(found, leaves, strict=True)) or not 0 <= correct <= count:
        return None
    return jax.tree.unflatten(tree, found), correct, count


def _name(train: Arrays, held_out: Arrays, settings: Settings) -> str:
    what = [_VERSION, dataclasses.astuple(settings)]
    for arrays in (train, held_out):
        what += [arrays.checksum(), arrays.center, arrays.scale, arrays.num_classes]
    return f"classifier-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}"


def _labelled(arrays: Arrays) -> Int[np.ndarray, "n"]:
    return np.zeros(0, int) if arrays.labels is None else np.flatnonzero(arrays.labels >= 0)


def _num_classes(arrays: Arrays) -> int:
    return arrays.num_classes or 0


def _check(train: Arrays, held_out: Arrays) -> None:
    for name, arrays in (("train", train), ("held_out", held_out)):
        if not arrays.is_image or not len(_labelled(arrays)):
            raise UserError(f"{name} = {arrays.name}/{arrays.split}: must be images [N, H, W, C] with classes")
    kinds = [(each.event_shape, each.center, each.scale, each.num_classes) for each in (train, held_out)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"held_out: has shape, center, scale and number of classes {kinds[1]}; must be those of train, {kinds[0]}"
        )
