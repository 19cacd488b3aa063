r"""The linear model of classifier-free guidance: every class a Gaussian, all data together another one.

The denoiser of ``N(mu, Sigma)``, ``u = a x + b eps``, is linear in u:

(G1)  D(u) = mu + W (u - a mu),   W = a Sigma (a^2 Sigma + b^2 I)^-1

Guidance moves along the difference of that of class c and that of all data. As u - a mu = (u - a mu_c) + a (mu_c - mu),

(G2)  D_c(u) - D(u) = (I - a W)(mu_c - mu) + (W_c - W)(u - a mu_c)

The first term is the mean shift. W_c - W is symmetric, of eigenvalues l_j and eigenvectors v_j; those above zero are
directions in which the class varies more than all data, relative to the noise, and are amplified; those below are
suppressed:

(G3)  (W_c - W) y = sum_{l_j > 0} l_j v_j v_j . y  +  sum_{l_j < 0} l_j v_j v_j . y

the positive and the negative contrastive components of Li, Wang & Qu (2025), "Towards understanding the mechanisms of
classifier-free guidance" (arXiv:2505.19210), who have a = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from geonoise_jax.errors import UserError

SHIFT, POSITIVE, NEGATIVE = range(3)
COMPONENTS = ("mean shift", "positive", "negative")


class Linear(NamedTuple):
    """Means and covariances of data, class by class and together.

    Attributes:
        means: of each class.
        covs: of each class.
        mean: of all data.
        cov: of all data, the scatter of the means included.
    """

    means: Float[np.ndarray, "C D"]
    covs: Float[np.ndarray, "C D D"]
    mean: Float[np.ndarray, "D"]
    cov: Float[np.ndarray, "D D"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n D"], labels: Int[np.ndarray, "n"], num_classes: int) -> Linear:
        """Return the moments of data.

        Raises:
            ValueError: if a class has fewer than two items.
        """
        x = x.astype(np.float64)
        for label, count in enumerate(np.bincount(labels, minlength=num_classes)):
            if count < 2:
                raise UserError(f"labels: class {label} has {count} items; must have at least 2")
        groups = [x[labels == label] for label in range(num_classes)]
        means, covs = ([operation(each) for each in groups] for operation in (_mean, _cov))
        return cls(np.stack(means), np.stack(covs), _mean(x), _cov(x))

    def denoise(self, u: Float[np.ndarray, "n D"], label: int | None, a: float, b: float) -> Float[np.ndarray, "n D"]:
        """Return (G1) of a class; of all data if it is None."""
        mean, cov = (self.mean, self.cov) if label is None else (self.means[label], self.covs[label])
        return mean + (u - a * mean) @ _filter(cov, a, b)

    def guidance(
        self, u: Float[np.ndarray, "n D"], labels: Int[np.ndarray, "n"], a: float, b: float
    ) -> Float[np.ndarray, "3 n D"]:
        """Return the three components of ``D_c - D``, equations (G2, G3), each observation for its class.

        Args:
            u: observations of one noise level.
            labels: class of each.
            a: signal scale.
            b: noise scale, positive.
        """
        found = np.zeros((len(COMPONENTS), *u.shape))
        shared = _filter(self.cov, a, b)
        for label in np.unique(labels):
            mine, mean = labels == label, self.means[label]
            found[SHIFT, mine] = (mean - self.mean) - a * (mean - self.mean) @ shared
            values, vectors = np.linalg.eigh(_filter(self.covs[label], a, b) - shared)
            along = (u[mine] - a * mean) @ vectors
            found[POSITIVE, mine] = (along * np.maximum(values, 0.0)) @ vectors.T
            found[NEGATIVE, mine] = (along * np.minimum(values, 0.0)) @ vectors.T
        return found


def _filter(cov: Float[np.ndarray, "D D"], a: float, b: float) -> Float[np.ndarray, "D D"]:
    """Return W of (G1), which is symmetric."""
    found = a * np.linalg.solve(a * a * cov + b * b * np.eye(len(cov)), cov)
    return 0.5 * (found + found.T)


def _mean(x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "D"]:
    return x.mean(axis=0)


def _cov(x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "D D"]:
    return np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], x.shape[1])
