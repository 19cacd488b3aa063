"""Exact fields of known data distributions: posterior of the noise level, marginal energy, optimal fields."""

from geonoise_jax.exact.base import Distribution as Distribution
from geonoise_jax.exact.base import Level as Level
from geonoise_jax.exact.delivery import QuadratureWarning as QuadratureWarning
from geonoise_jax.exact.distributions import Gaussian as Gaussian
from geonoise_jax.exact.distributions import Mixture as Mixture
from geonoise_jax.exact.finite import FiniteSet as FiniteSet
from geonoise_jax.exact.marginal import Marginal as Marginal
from geonoise_jax.exact.planes import Circles as Circles
from geonoise_jax.exact.planes import Subspace as Subspace
from geonoise_jax.exact.results import Analysis as Analysis
from geonoise_jax.exact.results import Conditional as Conditional
from geonoise_jax.exact.results import Decomposition as Decomposition
from geonoise_jax.exact.results import Posterior as Posterior
