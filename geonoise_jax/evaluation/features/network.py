"""What a network of features is, whoever trained it: parameters, a pure function, and the words that name a number."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

Outputs = tuple[Float[Array, "b d"], Float[Array, "b k"] | None]
Apply = Callable[[PyTree[Array], Shaped[Array, "b h w c"]], Outputs]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FeatureNetwork:
    """A map from images to features, by which sets of images are compared.

    Attributes:
        name: of the network.
        protocol: all that numbers depend on: weights, pixels, resizing, normalisation, layer. Two numbers can be
            compared if these strings are the same.
        dimension: length d of the features.
        num_classes: length K of the logits; 0 if there are none.
        params: the weights.
        apply: the map, pure jax: ``apply(params, images) -> (features, logits)``. Images are uint8, pixels 0..255, or
            floats of model space, -1..1; logits are None where there are none. The rows of a batch do not see each
            other.
    """

    name: str
    protocol: str
    dimension: int
    num_classes: int
    params: PyTree[Array]
    apply: Apply

    def features(self, images: Shaped[Array, "b h w c"]) -> Float[Array, "b d"]:
        """Return the features of one batch; those of an image that is not finite are NaN.

        Raises:
            UserError: if these are no images that the network takes.
        """
        return self.compiled(self.params, images)[0]

    @functools.cached_property
    def compiled(self) -> Callable[..., tuple[Float[Array, "b d"], Float[Array, "b k"] | None, Bool[Array, "b"]]]:
        """The map as a compiled function, which also returns which images are finite; of others all numbers are NaN."""

        def run(params: PyTree[Array], images: Shaped[Array, "b h w c"]) -> Any:
            with jax.default_matmul_precision("highest"):
                features, logits = self.apply(params, images)
            finite = jnp.isfinite(images).all(tuple(range(1, images.ndim)))
            features, logits = jax.tree.map(lambda each: jnp.where(finite[:, None], each, jnp.nan), (features, logits))
            return features, logits, finite

        return jax.jit(run)
