"""What is read off noisy data: features of a network's layer, linear probes of them, and the distance to a subspace."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from geonoise_jax.errors import UserError
from geonoise_jax.fields import NetworkField

# Strengths of the penalty, of which generalised cross-validation takes one.
_PENALTIES = np.logspace(0.0, 5.0, 6)
_BATCH = 512


def features(field: NetworkField, u: Float[np.ndarray, "n *event"], layer: str) -> Float[np.ndarray, "n features"]:
    """Return what a layer of a blind network puts out, flattened.

    Args:
        field: a blind network.
        u: observations.
        layer: name of a submodule of the network.

    Raises:
        ValueError: if the network is shown the noise level.
    """
    if not field.blind:
        raise UserError("field: must be blind; a network that is shown the noise level has it to tell")
    chunks = [u[start : start + _BATCH] for start in range(0, len(u), _BATCH)]
    short = _BATCH - len(chunks[-1])
    chunks[-1] = np.concatenate([chunks[-1], np.zeros((short, *u.shape[1:]), u.dtype)])
    found = [np.asarray(_captured(field.module, layer, field.params, each)) for each in chunks]
    return np.concatenate(found)[: len(u)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _captured(module: Any, layer: str, params: PyTree[Array], u: Float[Array, "b *event"]) -> Float[Array, "b f"]:
    options = {"capture_intermediates": lambda each, _: each.name == layer, "mutable": ["intermediates"]}
    _, state = module.apply({"params": params}, u, None, None, **options)
    return state["intermediates"][layer]["__call__"][0].reshape(len(u), -1)


def read_level(
    known: tuple[Float[np.ndarray, "n f"], Float[np.ndarray, "n"]], asked: Float[np.ndarray, "m f"]
) -> Float[np.ndarray, "m"]:
    """Return the noise level that a ridge regression of known features reads off others."""
    return np.asarray(make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(*known).predict(asked), np.float64)


def read_class(
    known: tuple[Float[np.ndarray, "n f"], Int[np.ndarray, "n"]], asked: Float[np.ndarray, "m f"]
) -> Int[np.ndarray, "m"]:
    """Return the class that a linear ridge classifier of known features reads off others."""
    return np.asarray(make_pipeline(StandardScaler(), RidgeClassifierCV(_PENALTIES)).fit(*known).predict(asked))


class Distances(NamedTuple):
    """Distances to nested subspaces through the origin, the best of each dimension for some data.

    Attributes:
        basis: orthonormal columns, the directions of the data's largest power first.
    """

    basis: Float[np.ndarray, "D D"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n D"]) -> Distances:
        """Return those of data, whose mean is a direction like others, so that ``a x`` stays in the subspace."""
        return cls(np.linalg.svd(x.astype(np.float64), full_matrices=True)[2].T)

    def sigma_hat(self, u: Float[np.ndarray, "n D"], dim: int) -> Float[np.ndarray, "n"]:
        """Return ``r / sqrt(D - d)``, r the distance to the subspace of dimension d."""
        away = u @ self.basis[:, dim:]
        return np.sqrt(np.square(away).mean(axis=1))

    def best(self, u: Float[np.ndarray, "n D"], level: Float[np.ndarray, "n"]) -> int:
        """Return the dimension at which ``sigma_hat`` has the smallest mean squared error as an estimate of a level."""
        errors = [np.square(self.sigma_hat(u, dim) - level).mean() for dim in range(len(self.basis))]
        return int(np.argmin(errors))
