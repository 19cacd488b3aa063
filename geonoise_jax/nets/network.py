"""The call contract and the fields that all networks share.

A network maps `u [B, *event]` to a prediction of the same shape. `t` is a *noise feature* that the caller has brought
to roughly unit range (t / t_max, or log-SNR / 4). A **blind** network (`conditional=False`) has no time parameters at
all: it accepts t, so that both kinds are called alike, and never looks at it.

Precision: parameters are float32; matrix products and convolutions run in `dtype`; normalisation statistics, softmax
and the conditioning branch run in float32; the result is float32. `dtype="float64"` (under jax_enable_x64, for
derivative checks and stability studies) raises all of these to float64, the stored parameters excepted.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.nets.conditioning import Conditioning

# What every network is, those of others included.
Module = nn.Module
COMPUTE_DTYPES = ("float32", "bfloat16", "float64")


def resolve_dtype(dtype: str | np.dtype | type) -> np.dtype:
    """The compute dtype as a numpy dtype.

    Raises:
      ValueError: not one of COMPUTE_DTYPES, or float64 without jax_enable_x64.
    """
    try:
        resolved = jnp.dtype(dtype)
    except TypeError:
        resolved = None
    if resolved is None or resolved.name not in COMPUTE_DTYPES:
        raise refused("dtype", dtype, f"one of {', '.join(COMPUTE_DTYPES)}")
    if resolved.name == "float64" and not jax.config.read("jax_enable_x64"):
        raise refused("dtype", "float64", "float32 or bfloat16 without jax_enable_x64")
    return resolved


def accumulation_dtype(dtype: str | np.dtype | type) -> np.dtype:
    """The dtype of statistics, softmax, embeddings and results: float32, or float64 if computing in that."""
    return jnp.dtype("float64" if resolve_dtype(dtype).name == "float64" else "float32")


class Network(nn.Module):
    """Base of all networks: `net(u, t=None, labels=None, *, train=False, augment=None)`, fields keyword-only.

    Attributes:
      conditional: True: t is used and required. False: blind.
      num_classes: 0: no class labels. Otherwise labels 0..num_classes, of which the last means "no class" (used for
        classifier-free guidance, and for every sample when labels is None).
      dropout: rate in [0, 1), active only in calls with train=True, which then need an rng named 'dropout'.
      dtype: compute dtype, one of COMPUTE_DTYPES.
      augment_dim: 0: no labels of augmentation. Otherwise their number; without them, as when sampling, they are zeros.

    Raises:
      ValueError: at construction, for a field outside these ranges.
    """

    conditional: bool = True
    num_classes: int = 0
    dropout: float = 0.0
    dtype: str | np.dtype | type = "float32"
    augment_dim: int = 0

    def __post_init__(self) -> None:
        checks.truth("conditional", self.conditional)
        checks.integer("num_classes", self.num_classes, low=0)
        checks.integer("augment_dim", self.augment_dim, low=0)
        checks.real("dropout", self.dropout, low=0.0, high=1.0, open_high=True)
        resolve_dtype(self.dtype)
        super().__post_init__()

    def condition(
        self,
        u: Float[Array, "b *event"],
        t: Float[Array, "b"] | None,
        labels: Int[Array, "b"] | None,
        width: int,
        augment: Float[Array, "b a"] | None = None,
    ) -> Float[Array, "b {width}"] | None:
        """The conditioning vector [B, width], or None for a blind network that is told nothing (see `Conditioning`)."""
        dtype = accumulation_dtype(self.dtype)
        embed = Conditioning(width, self.conditional, self.num_classes, dtype, self.augment_dim, name="conditioning")
        return embed(u.shape[0], t, labels, augment)


def check_input(u: Float[Array, "b *event"], layout: str, rank: int | None = None) -> None:
    """Refuse inputs that are not real floating-point arrays of the given rank with non-empty event axes.

    Args:
      u: the network's input.
      layout: how the message calls the expected axes, such as "[B, H, W, C]".
      rank: the required number of axes; None: at least 2.

    Raises:
      ValueError: naming the shape or dtype found.
    """
    wrong_rank = u.ndim < 2 if rank is None else u.ndim != rank
    if wrong_rank or 0 in u.shape[1:]:
        raise UserError(f"u.shape = {list(u.shape)}: must be {layout}, without empty axes")
    if not jnp.issubdtype(u.dtype, jnp.floating):
        raise UserError(f"u.dtype = {u.dtype}: must be floats")
