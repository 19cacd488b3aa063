"""The data of a config by shape alone: nothing is fetched, and of a large set nothing is read."""

from __future__ import annotations

import numpy as np

from geonoise_jax import build, imports
from geonoise_jax.build.specs import frozen
from geonoise_jax.config import ConfigDict
from geonoise_jax.data import load, ranges, splits
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.prepare import OWN
from geonoise_jax.errors import UserError

# Items of public sets, which TFDS knows only once they are prepared (its catalogue has them).
SIZES: dict[str, dict[str, int]] = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "imagenet_resized": {"train": 1_281_167, "validation": 50_000},
    "mnist": {"train": 60_000, "test": 10_000},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131},
}


class StandIn(Arrays):
    """A data set of which only number, shape and dtype are known; it takes no memory."""

    @property
    def value_range(self) -> tuple[float, float]:
        """The stored values that become -1 and 1 in model space, as of a set that fills its range."""
        return self.center - 1.0 / self.scale, self.center + 1.0 / self.scale


def arrays(config: ConfigDict) -> Arrays:
    """Return the training set of a config as far as a program's shapes need it.

    The two small sets of this package, and what an imported function returns, are the real ones.

    Raises:
        ValueError: on an unknown data set or split, or a public set of unknown size that is not prepared here.
    """
    data = config.data
    if imports.is_import(data.name) or data.name in OWN:
        return build.arrays(config)
    kwargs = {key: frozen(value) for key, value in data.kwargs.items()}
    source = load.unread(data.name, data_dir=data.data_dir or None, builder_kwargs=kwargs)
    sizes = dict(source.sizes) or SIZES.get(data.name.partition("/")[0].partition(":")[0])
    if sizes is None:
        raise UserError(
            f"data.name = {data.name!r}: its size is known only once it is prepared; prepare it, or plan with another "
            "set of the same shape"
        )
    num = sum(stop - start for _, start, stop in splits.resolve(data.name, data.split, sizes))
    center, scale = ranges.scaling(data.name, source.dtype, frozen(data.range))
    return StandIn(
        events=np.broadcast_to(np.zeros((), source.dtype), (num, *source.shape)),
        labels=np.zeros(num, np.int32) if source.classes else None,
        center=center,
        scale=scale,
        num_classes=source.classes,
        name=data.name,
        split=data.split,
    )
