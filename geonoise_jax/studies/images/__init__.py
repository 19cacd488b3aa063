"""Blind and conditional models of images, trained and evaluated side by side at a CPU budget: see :mod:`.study`."""

from geonoise_jax.studies.images.claims import verdicts as verdicts
from geonoise_jax.studies.images.report import arrays as arrays
from geonoise_jax.studies.images.report import numbers as numbers
from geonoise_jax.studies.images.report import pages as pages
from geonoise_jax.studies.images.report import picture as picture
from geonoise_jax.studies.images.report import table as table
from geonoise_jax.studies.images.study import Options as Options
from geonoise_jax.studies.images.study import Study as Study
from geonoise_jax.studies.images.study import measure as measure
