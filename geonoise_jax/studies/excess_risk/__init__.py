"""How far a network is from the Bayes-optimal field of its own config, along training: see :mod:`.study`."""

from geonoise_jax.studies.excess_risk.report import arrays as arrays
from geonoise_jax.studies.excess_risk.report import picture as picture
from geonoise_jax.studies.excess_risk.report import table as table
from geonoise_jax.studies.excess_risk.report import verdicts as verdicts
from geonoise_jax.studies.excess_risk.study import Options as Options
from geonoise_jax.studies.excess_risk.study import Study as Study
from geonoise_jax.studies.excess_risk.study import measure as measure
