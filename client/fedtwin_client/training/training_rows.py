"""A site's training patients as the learners see them: one item a patient, with all records."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.cohort.sequences import Sequences
from fedtwin_client.training.noise import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRows:
    """A site's training patients.

    Attributes:
        features: (patients, columns), encoded by the feature contract.
        outcomes: what is learned of each patient, (patients,): 0 or 1, a scaled value or a count.
        days: (patients,) to the event (outcome 1) or out of sight (0), for a time to event.
        sequences: the patients' records, for families that read them.
    """

    features: Floats
    outcomes: Floats
    days: Floats | None = None
    sequences: Sequences | None = None

    def __len__(self) -> int:
        return len(self.outcomes)

    def where(self, chosen: NDArray[np.bool_]) -> "TrainingRows":
        """The patients who are chosen, (patients,)."""
        places = np.flatnonzero(chosen)
        return TrainingRows(
            features=self.features.take(places, axis=0),
            outcomes=self.outcomes.take(places),
            days=None if self.days is None else self.days.take(places),
            sequences=None if self.sequences is None else self.sequences.where(chosen),
        )

    def single(self) -> "TrainingRows":
        """Features and outcomes in float32, which networks compute in."""
        features: Any = self.features.astype(np.float32)
        outcomes: Any = self.outcomes.astype(np.float32)
        return replace(self, features=features, outcomes=outcomes)


def rows_of(cohort: CohortRows, chosen: NDArray[np.bool_]) -> TrainingRows:
    """Some patients of a cohort, (patients,)."""
    everybody = TrainingRows(
        features=cohort.features,
        outcomes=cohort.labels,
        days=cohort.days,
        sequences=cohort.sequences,
    )
    return everybody.where(chosen)
