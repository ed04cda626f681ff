"""What can be predicted of a patient: the concentration, and what it does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from torch import Tensor

from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_kinetics import kinetics_of
from fedtwin_twins.twin.batch import Doses, Traits


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """A batch of patients with their own parameters.

    Attributes:
        card: the model.
        doses: in the units of the routes.
        traits: with a span for every change.
        parameters: in the engines' units, each (patients, spans).
    """

    card: ModelCard
    doses: Doses
    traits: Traits
    parameters: Mapping[str, Tensor]

    @property
    def kinetics(self) -> LinearKinetics:
        """The closed form of concentrations."""
        return kinetics_of(self.card, self.parameters, self.traits.starts)


Response = Callable[[Course, Tensor], Tensor]
"""(patients, times) of an output in its own unit, or of the area under it in unit x h."""


def concentration(course: Course, times: Tensor) -> Tensor:
    """In the central compartment, amount/L."""
    return course.kinetics.concentrations(course.doses, times)


def concentration_area(course: Course, times: Tensor) -> Tensor:
    """From hour 0, amount/L x h."""
    return course.kinetics.areas(course.doses, times)


RESPONSES: Final[Mapping[str, Response]] = MappingProxyType({"concentration": concentration})
AREAS: Final[Mapping[str, Response]] = MappingProxyType({"concentration": concentration_area})
