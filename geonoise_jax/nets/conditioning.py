"""What a network is told besides its input: the noise feature, the class label and how images were augmented.

All become vectors of one width that are added; every block projects the sum to its own scale and shift (FiLM,
Perez et al. 2018). Augmentation labels go through a linear map without offset (Karras et al. 2022): an image that was
left as it is, and every sample, has zeros. The whole branch is small and is evaluated in float32 (float64 under a
float64 compute dtype).

Noise feature: `phi_i = INPUT_SCALE * t * MAX_PERIOD**(-i / (n - 1))`, features `[cos phi, sin phi]` (Vaswani et al.
2017 with the constants of DDPM, Ho et al. 2020, whose integer step 0..999 is `1000 t` here). With t in [0, 1] the
fastest wave has wavelength 2 pi / 1000 in t and the slowest turns by 0.1 rad over the whole range, so that neighbouring
noise levels are resolved and the coarse position is monotone. A feature of a few units (log-SNR / 4) is embedded as
finely. Smaller features have slower waves: of c_noise / 1000, the sinusoids `cos, sin(c_noise 10000**(-i / (n - 1)))`
are those that EDM's DDPM++ has of c_noise = log(sigma) / 4 (Karras et al. 2022: its PositionalEmbedding with
max_positions 10000 and endpoint, whose sines come before its cosines, an order that the Dense layer after it absorbs).
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError

INPUT_SCALE = 1000.0
MAX_PERIOD = 10_000.0
# Fixed, not tied to the network's width: the resolution in t should not shrink with a small network.
SINUSOID_FEATURES = 128


def sinusoidal_features(t: Float[Array, "b"], features: int = SINUSOID_FEATURES) -> Float[Array, "b {features}"]:
    """Cosines and sines of t at geometrically spaced frequencies (formula in the module docstring).

    Args:
      t: [B] noise features of at most roughly unit range, float32 or float64.
      features: length of the result, even and at least 4.

    Raises:
      ValueError: `features` is odd or smaller than 4.
    """
    if features % 2 or features < 4:
        raise refused("features", features, "even and at least 4")
    exponents = jnp.linspace(0.0, -math.log(MAX_PERIOD), features // 2, dtype=t.dtype)
    phases = INPUT_SCALE * t[:, None] * jnp.exp(exponents)[None, :]
    return jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], axis=-1)


class TimeEmbedding(nn.Module):
    """Sinusoidal features followed by Dense, SiLU, Dense: [B] -> [B, width]."""

    width: int
    dtype: np.dtype

    @nn.compact
    def __call__(self, t: Float[Array, "b"]) -> Float[Array, "b {self.width}"]:
        """Embed the noise features t [B]."""
        hidden = sinusoidal_features(t.astype(self.dtype))
        hidden = nn.silu(nn.Dense(self.width, dtype=self.dtype, name="hidden")(hidden))
        return nn.Dense(self.width, dtype=self.dtype, name="output")(hidden)


class ClassEmbedding(nn.Module):
    """A table of `num_classes + 1` vectors; the last one is the null class of classifier-free guidance.

    Under jit an index cannot be refused, so an index outside 0..num_classes (negative ones too) gives NaN for that
    sample rather than the vector of some other class.
    """

    num_classes: int
    width: int
    dtype: np.dtype

    @nn.compact
    def __call__(self, labels: Int[Array, "b"]) -> Float[Array, "b {self.width}"]:
        """Look the labels [B] up."""
        # About the scale that the time branch has at initialisation, so that neither drowns the other.
        init = nn.initializers.normal(stddev=0.5)
        table = self.param("embedding", init, (self.num_classes + 1, self.width), jnp.float32)
        rows = table.at[labels].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return rows.astype(self.dtype)


class Conditioning(nn.Module):
    """The sum of the embeddings in use, after SiLU; None, with no parameters at all, when there are none.

    Parameters: `time_embed` exists only if `conditional`, `class_embed` only if `num_classes > 0`, `augment_embed` only
    if `augment_dim > 0`.
    """

    width: int
    conditional: bool
    num_classes: int
    dtype: np.dtype
    augment_dim: int = 0

    @nn.compact
    def __call__(
        self,
        batch: int,
        t: Float[Array, "b"] | None,
        labels: Int[Array, "b"] | None,
        augment: Float[Array, "b a"] | None = None,
    ) -> Float[Array, "b {self.width}"] | None:
        """Embed t and labels for a batch of the given size.

        Args:
          batch: B, the number of samples.
          t: [B] noise features; ignored by a blind network.
          labels: [B] integers in 0..num_classes; None: the null class for all.
          augment: [B, augment_dim] labels of augmentation; None: zeros, of images that are as they were.

        Raises:
          ValueError: t is missing or misshapen; labels are misshapen, not integers, or given although num_classes is 0;
            augment is misshapen.
        """
        terms = []
        if self.conditional:
            embed_time = TimeEmbedding(self.width, self.dtype, name="time_embed")
            terms.append(embed_time(_checked_time(t, batch)))
        checked = _checked_labels(labels, batch, self.num_classes)
        if checked is not None:
            terms.append(ClassEmbedding(self.num_classes, self.width, self.dtype, name="class_embed")(checked))
        if self.augment_dim or augment is not None:
            told = _checked_augment(augment, batch, self.augment_dim, self.dtype)
            terms.append(nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="augment_embed")(told))
        return nn.silu(sum(terms[1:], start=terms[0])) if terms else None


def _checked_time(t: Float[Array, "b"] | None, batch: int) -> Float[Array, "b"]:
    if t is None:
        raise refused("t", t, f"one noise feature per sample, [{batch}], as the network is conditional")
    if jnp.shape(t) != (batch,):
        raise UserError(f"t.shape = {list(jnp.shape(t))}: must be [{batch}], one noise feature per sample")
    return jnp.asarray(t)


def _checked_augment(
    augment: Float[Array, "b a"] | None, batch: int, dim: int, dtype: np.dtype
) -> Float[Array, "b {dim}"]:
    if augment is None:
        return jnp.zeros((batch, dim), dtype)
    if jnp.shape(augment) != (batch, dim):
        raise UserError(f"augment.shape = {list(jnp.shape(augment))}: must be [{batch}, {dim}], or None for zeros")
    return jnp.asarray(augment)


def _checked_labels(labels: Int[Array, "b"] | None, batch: int, num_classes: int) -> Int[Array, "b"] | None:
    if num_classes == 0:
        if labels is not None:
            raise refused("labels", labels, "None, as the network has num_classes = 0")
        return None
    if labels is None:
        return jnp.full((batch,), num_classes, jnp.int32)
    labels = jnp.asarray(labels)
    if labels.shape != (batch,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise refused("labels", labels, f"integers [{batch}]")
    return labels
