"""What a twin of one patient asks of a model, beside its equations."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.intake import Intake
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.refusals import Problem


class PatientModel(TwinModel, Protocol):
    """A twin model that says how a patient's record is checked, and what covariates do."""

    @property
    def intake(self) -> Intake:
        """What it takes in."""

    @property
    def cautions(self) -> Sequence[Problem]:
        """What its source leaves open; shown beside every result."""

    def covariate_factors(self, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """By parameter and covariate, what the typical value is times, each (patients, spans)."""

    def impossible(self, batch: Batch, effects: Tensor) -> Mapping[int, Problem]:
        """By row, why what is given leads to no state that could be computed."""
