"""Linear classifier-free guidance and its three components, beside a network's guidance: see :mod:`.study`."""

from geonoise_jax.studies.cfg_linear.report import arrays as arrays
from geonoise_jax.studies.cfg_linear.report import picture as picture
from geonoise_jax.studies.cfg_linear.report import table as table
from geonoise_jax.studies.cfg_linear.report import verdicts as verdicts
from geonoise_jax.studies.cfg_linear.study import Options as Options
from geonoise_jax.studies.cfg_linear.study import Study as Study
from geonoise_jax.studies.cfg_linear.study import measure as measure
