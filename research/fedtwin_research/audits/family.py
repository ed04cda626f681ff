"""What every model family offers to audits: clipped sums and predictions of many models at once.

Every array has the models along its first axis, so that hundreds of shadow models cost little more
than one. The arithmetic is that of the sites (a patient's gradient is scaled to the clipping norm
at most, one that is not finite is zeroed, then they are summed); it is written a second time here
because a researcher has no site's software, and because two writings that agree are worth more than
one.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]


class Family(Protocol):
    """A model family, for many models at once; values are flat, in the parameters' order."""

    penalised: Floats
    """1 where the penalty applies, 0 at intercepts and biases, (values,)."""

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Sums of clipped gradients, (models, values).

        Args:
            models: (models, values).
            features: (patients, columns).
            outcomes: 0 or 1, a scaled value or a count, (patients,); of a time to event the days
                and whether they end with the event, (patients, 2).
            taken: whose gradients count in which model, (models, patients).
            clip: largest norm of a patient's contribution.
        """

    def confidence(self, models: Floats, features: Floats, outcomes: Floats) -> Floats:
        """What LiRA looks at, near Gaussian over models, (models, patients).

        The log-odds that a model gives to what became of the patient; of a value or a count the
        linear predictor, whose likelihood ratio is that of its residual.
        """

    def first_layer(self, gradients: Floats) -> tuple[Floats, Floats]:
        """Weight (…, outputs, inputs) and bias (…, outputs) of the first layer."""

    def fit(self, models: Floats, features: Floats, outcomes: Floats, taken: Marks) -> Floats:
        """Models that were learned without clip and noise until they fit, (models, values)."""


def clipped(error: Floats, norms: Floats, taken: Marks, clip: float) -> Floats:
    """Errors of the patients who are taken, scaled so that no gradient is longer than the clip.

    Args:
        error: the derivative by the linear predictor, (models, patients).
        norms: lengths of the gradients, (models, patients).
        taken: (models, patients).
        clip: the largest length.
    """
    with np.errstate(all="ignore"):
        scale = error * np.minimum(1, clip / np.maximum(norms, 1e-300))
    return np.where(taken & np.isfinite(norms) & np.isfinite(scale), scale, 0.0)
