"""Stability: how far a blind field's sampler is from the one that knows the noise level, measured and in closed form.

``perturbation`` compares any two Fields of one process; ``local`` has the closed forms near a datum; ``paths`` follows
errors along a sampler; ``posterior`` tells how well an observation knows its own noise level.
"""

from geonoise_jax.stability.local import blind_error_rms as blind_error_rms
from geonoise_jax.stability.local import chi_moment as chi_moment
from geonoise_jax.stability.local import drift_factor as drift_factor
from geonoise_jax.stability.local import level_bias as level_bias
from geonoise_jax.stability.local import noise_exponent as noise_exponent
from geonoise_jax.stability.local import posterior_width as posterior_width
from geonoise_jax.stability.local import radial_factor as radial_factor
from geonoise_jax.stability.local import radial_rate as radial_rate
from geonoise_jax.stability.local import transport_share as transport_share
from geonoise_jax.stability.paths import Bound as Bound
from geonoise_jax.stability.paths import Radial as Radial
from geonoise_jax.stability.paths import error_bound as error_bound
from geonoise_jax.stability.paths import measured_radial_factor as measured_radial_factor
from geonoise_jax.stability.paths import spectral_norm as spectral_norm
from geonoise_jax.stability.perturbation import AlongPath as AlongPath
from geonoise_jax.stability.perturbation import Perturbation as Perturbation
from geonoise_jax.stability.perturbation import Rms as Rms
from geonoise_jax.stability.perturbation import along_path as along_path
from geonoise_jax.stability.perturbation import at_distance as at_distance
from geonoise_jax.stability.perturbation import distance as distance
from geonoise_jax.stability.perturbation import in_units as in_units
from geonoise_jax.stability.perturbation import of_steps as of_steps
from geonoise_jax.stability.perturbation import perturbation as perturbation
from geonoise_jax.stability.perturbation import rms as rms
from geonoise_jax.stability.posterior import Width as Width
from geonoise_jax.stability.posterior import affine_target as affine_target
from geonoise_jax.stability.posterior import log_estimation_error as log_estimation_error
from geonoise_jax.stability.posterior import log_probabilities as log_probabilities
from geonoise_jax.stability.posterior import noise_width as noise_width
from geonoise_jax.stability.posterior import width_of as width_of
