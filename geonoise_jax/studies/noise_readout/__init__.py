"""How well the noise level and the class are read off noisy data and off a blind network's features: :mod:`.study`."""

from geonoise_jax.studies.noise_readout.report import arrays as arrays
from geonoise_jax.studies.noise_readout.report import picture as picture
from geonoise_jax.studies.noise_readout.report import table as table
from geonoise_jax.studies.noise_readout.report import verdicts as verdicts
from geonoise_jax.studies.noise_readout.study import Options as Options
from geonoise_jax.studies.noise_readout.study import Study as Study
from geonoise_jax.studies.noise_readout.study import measure as measure
