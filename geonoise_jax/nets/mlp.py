"""A residual multilayer perceptron for vectors."""

from __future__ import annotations

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Int

from geonoise_jax import checks
from geonoise_jax.nets.layers import Modulation
from geonoise_jax.nets.network import Network, accumulation_dtype, check_input


class ResidualMLP(Network, kw_only=True):
    """Dense, residual blocks, Dense, on the flattened event; the event shape is restored at the end.

    There is no normalisation between the residual stream and the output, so that a linear path leads from u to the
    prediction and its size can follow that of u. The output layer starts at zero: the untrained network returns 0.

    Attributes:
      width: size of the residual stream, of the blocks and of the conditioning vector, at least 2.
      depth: number of residual blocks, of two Dense layers each, at least 1.

    Raises:
      ValueError: at construction, for a field out of range (see also `Network`).
    """

    width: int = 256
    depth: int = 4

    def __post_init__(self) -> None:
        checks.integer("width", self.width, low=2)
        checks.integer("depth", self.depth, low=1)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        u: Float[Array, "b *event"],
        t: Float[Array, "b"] | None = None,
        labels: Int[Array, "b"] | None = None,
        *,
        train: bool = False,
        augment: Float[Array, "b a"] | None = None,
    ) -> Float[Array, "b *event"]:
        """Predict for a batch.

        Args:
          u: [B, *event] inputs, of any event shape.
          t: [B] noise features of roughly unit range; ignored, and may be None, in a blind network.
          labels: [B] integers in 0..num_classes; None: no class.
          train: activate dropout, with the rng named 'dropout'.
          augment: [B, augment_dim] labels of augmentation; None: zeros.

        Returns:
          [B, *event] in float32 (float64 if dtype is float64).

        Raises:
          ValueError: u, t or labels of a wrong shape or dtype, or t missing in a conditional network.
        """
        check_input(u, "[B, *event]")
        condition = self.condition(u, t, labels, self.width, augment)
        flat = u.reshape(u.shape[0], -1).astype(self.dtype)
        hidden = nn.Dense(self.width, dtype=self.dtype, name="input")(flat)
        for i in range(self.depth):
            hidden = MLPBlock(self.dropout, self.dtype, name=f"block_{i}")(hidden, condition, train=train)
        # In float32, because rounding the prediction itself to bfloat16 would limit every sampler.
        wide = accumulation_dtype(self.dtype)
        out = nn.Dense(flat.shape[-1], kernel_init=nn.initializers.zeros, dtype=wide, name="output")(hidden)
        return out.reshape(u.shape)


class MLPBlock(nn.Module):
    """x + (norm, SiLU, Dense, modulation, SiLU, dropout, Dense); the last Dense starts at zero."""

    dropout: float = 0.0
    dtype: str | np.dtype | type = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], condition: Float[Array, "b e"] | None = None, *, train: bool = False
    ) -> Float[Array, "b d"]:
        """Apply the block; condition: [B, E], or None for no modulation and no parameter for it."""
        width = x.shape[-1]
        wide = accumulation_dtype(self.dtype)
        hidden = nn.LayerNorm(use_fast_variance=False, dtype=wide, name="norm")(x.astype(wide))
        hidden = nn.silu(hidden.astype(self.dtype))
        hidden = nn.Dense(width, dtype=self.dtype, name="dense_in")(hidden)
        if condition is not None:
            scale, shift = Modulation(width, self.dtype, name="film")(condition)
            hidden = (hidden.astype(scale.dtype) * (1.0 + scale) + shift).astype(self.dtype)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(hidden))
        return x + nn.Dense(width, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="dense_out")(hidden)
