"""Whether held-out points stand in the training set: told by their values, whatever the splits are called."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
from jaxtyping import Float

from geonoise_jax.errors import UserError

# Public sets hold a few duplicates across their own splits; splits that were cut to overlap share far more.
LARGEST_SHARE = 0.01
_LOG = logging.getLogger(__name__)


def shared_points(training: Float[np.ndarray, "n *event"], held_out: Float[np.ndarray, "m *event"]) -> int:
    """Return the number of held-out points that are bit for bit a training point, compared by 128-bit hashes."""
    known = {_hash(point) for point in np.asarray(training)}
    return sum(_hash(point) in known for point in np.asarray(held_out))


def check_held_out(
    split: str, training: Float[np.ndarray, "n *event"], held_out: Float[np.ndarray, "m *event"]
) -> None:
    """Refuse a held-out split that shares points with the training set; say so if it shares up to one in a hundred.

    Args:
        split: name of the held-out split, for errors.
        training: the points that training saw, mirror images included.
        held_out: the held-out points.

    Raises:
        ValueError: if more than one in a hundred of the held-out points are training points.
    """
    shared = shared_points(training, held_out)
    message = f"held_out = {split!r}: {shared} of its {len(held_out)} points are points of the training split"
    if shared > LARGEST_SHARE * len(held_out):
        raise UserError(f"{message}; must be a split that training did not see (at most {LARGEST_SHARE:.0%} in common)")
    if shared:
        _LOG.warning("%s", message)


def _hash(point: np.ndarray) -> bytes:
    # Adding zero makes -0 and 0 one value.
    return hashlib.blake2b((point + 0.0).tobytes(), digest_size=16).digest()
