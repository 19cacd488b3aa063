"""The blind field as natural gradient, transport correction and drift: see :mod:`.study` for the limits."""

from geonoise_jax.studies.decomposition.report import picture as picture
from geonoise_jax.studies.decomposition.report import table as table
from geonoise_jax.studies.decomposition.report import verdicts as verdicts
from geonoise_jax.studies.decomposition.study import QUICK as QUICK
from geonoise_jax.studies.decomposition.study import Options as Options
from geonoise_jax.studies.decomposition.study import Study as Study
from geonoise_jax.studies.decomposition.study import arrays as arrays
from geonoise_jax.studies.decomposition.study import measure as measure
