"""Noise prediction on the path of flow matching, sampled without the noise level: see :mod:`.study`."""

from geonoise_jax.studies.alignment.report import arrays as arrays
from geonoise_jax.studies.alignment.report import picture as picture
from geonoise_jax.studies.alignment.report import table as table
from geonoise_jax.studies.alignment.report import verdicts as verdicts
from geonoise_jax.studies.alignment.study import Options as Options
from geonoise_jax.studies.alignment.study import Study as Study
from geonoise_jax.studies.alignment.study import measure as measure
