"""The marginal energy as a landscape over the plane, and how deep its wells are: see :mod:`.study` for the rule."""

from geonoise_jax.studies.landscape.report import picture as picture
from geonoise_jax.studies.landscape.report import table as table
from geonoise_jax.studies.landscape.report import verdicts as verdicts
from geonoise_jax.studies.landscape.study import QUICK as QUICK
from geonoise_jax.studies.landscape.study import Options as Options
from geonoise_jax.studies.landscape.study import Study as Study
from geonoise_jax.studies.landscape.study import arrays as arrays
from geonoise_jax.studies.landscape.study import measure as measure
