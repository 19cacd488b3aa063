"""From images to what a network sees: every choice that a published number depends on, in one table.

Images are pixels, uint8 0..255, or floats of model space, whose -1 and 1 are 0 and 255. The latter are rounded to
pixels first, by the rule of the protocol: what is compared is what would stand in a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.features.resizing import RULES, resize

# A stored pixel k comes back from model space as k plus or minus a rounding error: floor() must not lose it.
_ROUNDING = 2.0**-10
# Rules that bring x of model space to pixels, before they are clipped to 0..255.
PIXELS: dict[str, tuple[str, Callable[[Float[Array, "..."]], Float[Array, "..."]]]] = {
    "half_up": ("floor(127.5 x + 128)", lambda x: jnp.floor(127.5 * x + 128.0)),
    "floor": ("floor(127.5 x + 127.5)", lambda x: jnp.floor(127.5 * x + 127.5 + _ROUNDING)),
    "none": ("127.5 x + 127.5, not rounded", lambda x: 127.5 * x + 127.5),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How images become the input of a network.

    Attributes:
        pixels: rule that rounds model space to 0..255, one of ``PIXELS``; ``half_up`` is EDM's and that of
            torchvision's ``save_image``, ``floor`` that of ADM, score_sde and flow_matching.
        rule: how they are resized, one of ``resizing.RULES``.
        size: height and width that they are brought to.
        clip: whether what the resizing overshoots is cut to 0..255.
        center, scale: the network sees (pixel - center) / scale.

    Raises:
        UserError: if a field is out of its range.
    """

    pixels: str = "half_up"
    rule: str = "bilinear"
    size: int = 299
    clip: bool = False
    center: float = 127.5
    scale: float = 127.5

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.choice("pixels", self.pixels, PIXELS)
        checks.choice("rule", self.rule, RULES)
        checks.integer_field(self, "size", low=1)
        checks.truth("clip", self.clip)
        checks.real_field(self, "center")
        checks.real_field(self, "scale", low=0.0, open_low=True)

    def __str__(self) -> str:
        """Return all of it in words."""
        cut = " clipped to 0..255," if self.clip else ""
        return (
            f"pixels {PIXELS[self.pixels][0]} in 0..255, grey as three equal channels, {self.rule} to "
            f"{self.size}x{self.size},{cut} (v - {self.center:g}) / {self.scale:g}"
        )

    def prepare(self, images: Shaped[Array, "b h w c"]) -> Float[Array, "b {self.size} {self.size} 3"]:
        """Return what the network sees.

        Args:
            images: uint8 pixels, or floats of model space; one channel or three.

        Raises:
            UserError: if they are neither, or of another shape.
        """
        check_images(images, channels=(1, 3))
        seen = resize(to_pixels(images, self.pixels), self.size, self.rule)
        seen = jnp.clip(seen, 0.0, 255.0) if self.clip else seen
        seen = (seen - self.center) / self.scale
        return jnp.broadcast_to(seen, (*seen.shape[:3], 3))


def to_pixels(images: Shaped[Array, "*shape"], rule: str) -> Float[Array, "*shape"]:
    """Return images as pixels 0..255 in floats; uint8 images are that already, whatever the rule."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32)
    return jnp.clip(PIXELS[rule][1](images), 0.0, 255.0)


def check_images(images: Shaped[Array, "b h w c"], channels: tuple[int, ...]) -> None:
    """Refuse what is no batch of images.

    Raises:
        UserError: naming the shape or the dtype found.
    """
    wanted = " or ".join(map(str, channels))
    if images.ndim != 4 or 0 in images.shape[1:] or images.shape[-1] not in channels:
        raise UserError(f"images.shape = {list(images.shape)}: must be [N, H, W, C] with {wanted} channels")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            f"images.dtype = {images.dtype}: must be uint8, pixels 0..255, or floats of model space, -1..1; "
            "Arrays.to_model brings stored values there"
        )


# Heusel et al. (2017) define the distance on the network of TensorFlow 1; these reach it by other ways.
INCEPTION: Mapping[str, Protocol] = {
    "pytorch_fid": Protocol(rule="bilinear"),
    "torch_fidelity": Protocol(rule="bilinear_tf1", pixels="floor", center=128.0, scale=128.0),
    "clean_fid": Protocol(rule="bicubic_pil", clip=True, center=128.0, scale=128.0),
    "edm": Protocol(rule="bilinear_tf1", center=128.0, scale=128.0),
    "adm": Protocol(rule="bilinear_tf1", pixels="floor", center=128.0, scale=128.0),
}
"""Input pipelines of the FID Inception network by the name of the code that has them."""
