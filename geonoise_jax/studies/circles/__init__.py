"""Concentric circles in R^D: small networks, blind and conditional, beside exact fields: see :mod:`.study`."""

from geonoise_jax.studies.circles.report import arrays as arrays
from geonoise_jax.studies.circles.report import pages as pages
from geonoise_jax.studies.circles.report import picture as picture
from geonoise_jax.studies.circles.report import table as table
from geonoise_jax.studies.circles.report import verdicts as verdicts
from geonoise_jax.studies.circles.study import Options as Options
from geonoise_jax.studies.circles.study import Study as Study
from geonoise_jax.studies.circles.study import measure as measure
