"""A batch of patients with their own parameters, ready for the engines."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.kinetics.systems import RUN_IN, written_out
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_kinetics import kinetics_of
from fedtwin_twins.twin.batch import Batch, Doses, Traits


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """Patients over time.

    Attributes:
        card: the model.
        doses: in the units of the routes.
        traits: with a span for every change.
        parameters: in the engines' units, each (patients, spans).
        first_dose: h, (patients, 1); -infinity of a steady state, infinity without a dose.
    """

    card: ModelCard
    doses: Doses
    traits: Traits
    parameters: Mapping[str, Tensor]
    first_dose: Tensor

    def where(self, rows: Tensor) -> "Course":
        """Some of the patients, by place."""
        batch = Batch(doses=self.doses, traits=self.traits).where(rows)
        return Course(
            card=self.card,
            doses=batch.doses,
            traits=batch.traits,
            parameters={name: one[rows] for name, one in self.parameters.items()},
            first_dose=self.first_dose[rows],
        )

    @property
    def kinetics(self) -> LinearKinetics:
        """The closed form of concentrations."""
        return kinetics_of(self.card, self.parameters, self.traits.starts)

    @property
    def written_doses(self) -> Doses:
        """The doses with steady states written out: what is not linear has no shortcut to them."""
        return written_out(self.doses, RUN_IN)

    @property
    def begins(self) -> float:
        """h, when what follows the concentration is still at rest: no later than any dose."""
        doses = self.written_doses
        times = doses.time[doses.amount > 0]
        return min(0.0, float(times.min())) if times.numel() else 0.0
