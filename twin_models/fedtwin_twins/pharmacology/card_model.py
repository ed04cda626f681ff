"""A model card as a twin model: its numbers bound to the engines that its structure names."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_kinetics import divided, engine_scales
from fedtwin_twins.pharmacology.card_parameters import (
    break_hours,
    effects_of,
    factors,
    first_dose,
    individual,
    spread,
)
from fedtwin_twins.pharmacology.card_words import (
    cautions_of,
    covariate_range,
    intake_of_card,
    observables_of,
    parameters_of,
)
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.pharmacology.covariance import covariance
from fedtwin_twins.pharmacology.responses import RESPONSES, area
from fedtwin_twins.pharmacology.structures import OUTPUT_UNITS
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.intake import Intake
from fedtwin_twins.twin.model import CarryRule, CovariateRange, Observable, Parameter
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem


class CardModel:
    """A `TwinModel` of one card.

    A parameter is its typical value, times the factors of its covariates, moved by eta + kappa:
    times their exponential, unless its distribution says otherwise.

    Args:
        card: loaded and checked.
    """

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self._effects = effects_of(card)
        self._breaks = break_hours(card)
        self._scales = engine_scales(card)

    @property
    def name(self) -> str:
        """The card's id."""
        return self.card.id

    @cached_property
    def version(self) -> str:
        """The card's version and the start of the hash over all of its content."""
        return f"{self.card.version}+{self.card.digest[:12]}"

    @cached_property
    def parameters(self) -> Sequence[Parameter]:
        """With population value, unit, covariate relation and source."""
        return parameters_of(self.card)

    @cached_property
    def covariates(self) -> Sequence[CovariateRange]:
        """Those that are recorded; what follows from them is in `intake`."""
        return tuple(covariate_range(one) for one in self.card.covariates)

    @property
    def carry_rule(self) -> CarryRule:
        """What a covariate is between two records."""
        return self.card.covariate_rule

    @cached_property
    def observables(self) -> Sequence[Observable]:
        """What can be measured."""
        return observables_of(self.card)

    @property
    def routes(self) -> Sequence[str]:
        """The ways in."""
        return tuple(one.name for one in self.card.routes)

    @property
    def amount_unit(self) -> str:
        """UCUM, of the first route's doses."""
        return self.card.amount_unit

    def dose_unit(self, route: str) -> str:
        """UCUM, of the doses by one of its routes."""
        return self.intake.routes[route].unit

    @property
    def effects(self) -> Sequence[str]:
        """Names of the parameters that vary between patients."""
        return self._effects.between

    @property
    def occasion_effects(self) -> Sequence[str]:
        """Names of the parameters that vary between a patient's occasions."""
        return self._effects.occasion

    @cached_property
    def intake(self) -> Intake:
        """What it takes in, for `tabulate`."""
        return intake_of_card(self.card)

    @cached_property
    def cautions(self) -> tuple[Problem, ...]:
        """The card's open questions: they stand beside every result."""
        return cautions_of(self.card)

    def prior(self, occasions: int) -> Tensor:
        """The covariance of all effects, (effects, effects), for so many occasions (0: none)."""
        blocks = []
        if self.card.between_patients is not None:
            blocks.append(_matrix(covariance(self.card.between_patients, "")[0]))
        if self.card.between_occasions is not None:
            each = _matrix(covariance(self.card.between_occasions, "")[0])
            blocks.extend([each] * occasions)
        if not blocks:
            return torch.zeros((0, 0), dtype=torch.float64)
        whole: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return whole

    def individual(self, batch: Batch, effects: Tensor) -> Mapping[str, Tensor]:
        """Every parameter by name, each (patients, spans), from effects (patients, effects).

        In the card's units. What changes by itself some hours after the first dose has here the
        value with which each span begins.

        Raises:
            Refusal: a covariate without a default is not there.
        """
        return individual(self.card, self._effects, batch.traits, first_dose(batch), effects)

    def covariate_factors(self, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """By parameter and covariate, what the typical value is times, each (patients, spans).

        Raises:
            Refusal: a covariate without a default is not there.
        """
        return factors(self.card, batch.traits, first_dose(batch))

    def predict(
        self, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor | int = 0
    ) -> Tensor:
        """The truth of observables, without error of measurement.

        Args:
            batch: the patients.
            effects: (patients, effects).
            times: h, (patients, times), in any order.
            kinds: the observables' places, (patients, times) or one for all.

        Returns:
            (patients, times), in the observables' units.

        Raises:
            Refusal: a covariate is missing, or the engine cannot compute what is asked.
        """
        course = self.course(batch, effects)
        if isinstance(kinds, int):
            return self._output(course, times, kinds)
        found = torch.zeros_like(times)
        for kind in torch.unique(kinds).tolist():
            found = torch.where(kinds == kind, self._output(course, times, kind), found)
        return found

    def exposure(self, batch: Batch, effects: Tensor, times: Tensor, kind: int = 0) -> Tensor:
        """The area under an observable from hour 0 to each time, (patients, times), in unit x h.

        Exact for concentrations; for other observables by Simpson's rule over steps of at most
        a quarter of an hour (an hour beyond six weeks).

        Raises:
            Refusal: as `predict`.
        """
        course = self.course(batch, effects)
        output = self.card.observables[kind].output
        return area(output, course, times) * self._unit_scale(kind)

    def _output(self, course: Course, times: Tensor, kind: int) -> Tensor:
        output = self.card.observables[kind].output
        return RESPONSES[output](course, times) * self._unit_scale(kind)

    def _unit_scale(self, kind: int) -> float:
        observable = self.card.observables[kind]
        unit = self.card.written(OUTPUT_UNITS[observable.output])
        mass = Quantity(self.card.analyte.molar_mass_g_per_mol, "g/mol")
        return Quantity(1.0, unit).to(observable.unit, molar_mass=mass)

    def course(self, batch: Batch, effects: Tensor) -> Course:
        """The patients with their own parameters in the engines' units.

        Raises:
            Refusal: a covariate is missing.
        """
        traits, first = spread(batch, self._breaks), first_dose(batch)
        known = individual(self.card, self._effects, traits, first, effects)
        return Course(
            card=self.card,
            doses=divided(self.card, batch.doses),
            traits=traits,
            parameters={name: one * self._scales.get(name, 1.0) for name, one in known.items()},
            first_dose=first,
        )


def _matrix(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
