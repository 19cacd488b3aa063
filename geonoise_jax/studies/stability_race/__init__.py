"""How the drift error of exact blind fields goes to zero noise, target by target: see :mod:`.study`."""

from geonoise_jax.studies.stability_race.claims import verdicts as verdicts
from geonoise_jax.studies.stability_race.report import arrays as arrays
from geonoise_jax.studies.stability_race.report import picture as picture
from geonoise_jax.studies.stability_race.report import table as table
from geonoise_jax.studies.stability_race.study import Options as Options
from geonoise_jax.studies.stability_race.study import Study as Study
from geonoise_jax.studies.stability_race.study import measure as measure
