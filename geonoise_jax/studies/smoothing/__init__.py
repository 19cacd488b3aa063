"""Does a network's smoothing restore the paper's ordering? Smoothed exact fields and networks: see :mod:`.study`."""

from geonoise_jax.studies.smoothing.claims import verdicts as verdicts
from geonoise_jax.studies.smoothing.report import arrays as arrays
from geonoise_jax.studies.smoothing.report import picture as picture
from geonoise_jax.studies.smoothing.report import table as table
from geonoise_jax.studies.smoothing.study import Options as Options
from geonoise_jax.studies.smoothing.study import Study as Study
from geonoise_jax.studies.smoothing.study import measure as measure
