"""Do samplers need the noise level? Blind against conditional fields, both exact: see :mod:`.study` for the rule."""

from geonoise_jax.studies.blind_sampling.claims import verdicts as verdicts
from geonoise_jax.studies.blind_sampling.report import picture as picture
from geonoise_jax.studies.blind_sampling.report import table as table
from geonoise_jax.studies.blind_sampling.study import QUICK as QUICK
from geonoise_jax.studies.blind_sampling.study import Options as Options
from geonoise_jax.studies.blind_sampling.study import Study as Study
from geonoise_jax.studies.blind_sampling.study import arrays as arrays
from geonoise_jax.studies.blind_sampling.study import measure as measure
