"""A small convolutional classifier, whose layer before the last serves as features of images like those it learnt."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.nets.layers import GroupNorm, conv3x3
from geonoise_jax.nets.network import check_input

# Channels of each level in units of the width; between levels height and width halve.
_LEVELS = ((1,), (2, 2), (4,))


class Classifier(nn.Module):
    """[B, H, W, C] -> features [B, dimension], at least 0, and logits [B, classes].

    Convolutions with group normalisation and ReLU on three levels, the mean over all positions, a hidden layer.

    Attributes:
      num_classes: number of classes.
      width: channels of the first level, doubled at each further one.
      dimension: size of the hidden layer, whose values are the features.
      dtype: compute dtype.
    """

    num_classes: int
    width: int = 16
    dimension: int = 128
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b {self.dimension}"], Float[Array, "b {self.num_classes}"]]:
        """Apply the network to images of model space.

        Raises:
          UserError: images are no floats [B, H, W, C].
        """
        check_input(images, "[B, H, W, C]", rank=4)
        x = images
        for level, multipliers in enumerate(_LEVELS):
            if level:
                x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
            for number, multiplier in enumerate(multipliers):
                name = f"{level}_{number}"
                x = conv3x3(self.width * multiplier, self.dtype, f"conv_{name}")(x)
                x = nn.relu(GroupNorm(self.dtype, name=f"norm_{name}")(x))
        features = nn.relu(nn.Dense(self.dimension, dtype=self.dtype, name="hidden")(jnp.mean(x, (1, 2))))
        return features, nn.Dense(self.num_classes, dtype=self.dtype, name="classes")(features)
