"""A site's training patients as the learners see them: one item a patient, with all records."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.training.noise import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRows:
    """A site's training patients.

    Attributes:
        features: (patients, columns), encoded by the feature contract.
        outcomes: what is learned of each patient, (patients,): 0 or 1, a scaled value or a count.
    """

    features: Floats
    outcomes: Floats

    def __len__(self) -> int:
        return len(self.outcomes)

    def where(self, chosen: NDArray[np.bool_]) -> "TrainingRows":
        """The patients who are chosen, (patients,)."""
        return TrainingRows(features=self.features[chosen], outcomes=self.outcomes[chosen])
