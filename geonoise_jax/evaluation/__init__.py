"""What a trained field is worth: restoring, drawing, distances to data, and one call for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonoise_jax import lazy as _lazy

if TYPE_CHECKING:
    from geonoise_jax.evaluation.evaluator.options import Options as Options
    from geonoise_jax.evaluation.evaluator.run import Evaluation as Evaluation
    from geonoise_jax.evaluation.evaluator.run import evaluate as evaluate
    from geonoise_jax.evaluation.exact_selfcheck import selfcheck as selfcheck
    from geonoise_jax.evaluation.floors import Distance as Distance
    from geonoise_jax.evaluation.likelihood import Likelihood as Likelihood
    from geonoise_jax.evaluation.likelihood import bits_per_dim as bits_per_dim
    from geonoise_jax.evaluation.likelihood import log_likelihood as log_likelihood
    from geonoise_jax.evaluation.point_metrics import SlicedWasserstein as SlicedWasserstein
    from geonoise_jax.evaluation.point_metrics import sliced_wasserstein as sliced_wasserstein
    from geonoise_jax.evaluation.restore import Trained as Trained
    from geonoise_jax.evaluation.restore import saved_steps as saved_steps
    from geonoise_jax.evaluation.watching import train as train
    from geonoise_jax.evaluation.watching import watch as watch
else:
    __getattr__, __dir__ = _lazy.exports(
        __name__,
        {
            f"{__name__}.evaluator.options": ("Options",),
            f"{__name__}.evaluator.run": ("Evaluation", "evaluate"),
            f"{__name__}.exact_selfcheck": ("selfcheck",),
            f"{__name__}.floors": ("Distance",),
            f"{__name__}.likelihood": ("Likelihood", "bits_per_dim", "log_likelihood"),
            f"{__name__}.point_metrics": ("SlicedWasserstein", "sliced_wasserstein"),
            f"{__name__}.restore": ("Trained", "saved_steps"),
            f"{__name__}.watching": ("train", "watch"),
        },
    )
