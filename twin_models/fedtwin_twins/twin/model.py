"""What every twin model states of itself, and the three questions that its equations answer.

A model's individual parameters follow from population values, covariates and random effects. The
effects of one patient lie in one row: first those of the patient (between patients), then, for
each dosing occasion in turn, those of the occasion. All of them are normal around 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.residuals import ResidualError

CarryRule = Literal["last_forward", "next_backward", "line"]
"""What a covariate is between two records (LOCF, NOCB, linear)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a number comes from.

    Attributes:
        citation: authors, journal, year.
        doi: or empty.
        place: table, equation or page.
    """

    citation: str
    doi: str = ""
    place: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One number of the equations.

    Attributes:
        name: in full, such as `clearance`.
        unit: UCUM.
        typical: the population value at the reference covariates.
        relation: how covariates change it, in words and symbols; empty where they do not.
        source: of the value and of the relation.
    """

    name: str
    unit: str
    typical: float
    relation: str = ""
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class CovariateRange:
    """What a model needs to know, and where it may be believed.

    Attributes:
        name: in full, such as `body_weight`.
        unit: UCUM.
        hard: outside of it the model refuses.
        soft: outside of it the model warns.
        default: taken, with a caution, where the covariate is missing; none: refuse.
    """

    name: str
    unit: str
    hard: tuple[float, float]
    soft: tuple[float, float]
    default: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Observable:
    """What can be measured of a patient.

    Attributes:
        name: such as `concentration`.
        code: LOINC; empty where there is none.
        unit: UCUM, of the model's prediction.
        error: of a measurement around the truth.
        quantification_limit: in `unit`; none where the assay must say it.
    """

    name: str
    code: str
    unit: str
    error: ResidualError
    quantification_limit: float | None = None


class TwinModel(Protocol):
    """Equations with named parameters, priors, observables and the interventions they know."""

    @property
    def name(self) -> str:
        """Of the model, such as `vancomycin_goti_2018`."""

    @property
    def version(self) -> str:
        """Changes whenever a number or an equation does."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """With population value, unit, covariate relation and source."""

    @property
    def covariates(self) -> Sequence[CovariateRange]:
        """What must be known, and the range of validity."""

    @property
    def carry_rule(self) -> CarryRule:
        """What a covariate is between two records."""

    @property
    def observables(self) -> Sequence[Observable]:
        """What can be measured."""

    @property
    def routes(self) -> Sequence[str]:
        """The interventions that it understands, such as `oral` or `intravenous`."""

    @property
    def amount_unit(self) -> str:
        """UCUM, of the first route's doses."""

    def dose_unit(self, route: str) -> str:
        """UCUM, of the doses by one of its routes."""

    @property
    def effects(self) -> Sequence[str]:
        """Names of the parameters that vary between patients, in the order of the prior."""

    @property
    def occasion_effects(self) -> Sequence[str]:
        """Names of the parameters that vary between a patient's occasions."""

    def prior(self, occasions: int) -> Tensor:
        """The covariance of all effects, (effects, effects), for so many occasions (0: none)."""

    def individual(self, batch: Batch, effects: Tensor) -> Mapping[str, Tensor]:
        """Every parameter by name, each (patients, spans), from effects (patients, effects).

        Occasions for which `effects` has no columns have an effect of 0.
        """

    def predict(
        self, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor | int = 0
    ) -> Tensor:
        """The truth of an observable without error of measurement, differentiable in the effects.

        A dose at an asked time is not yet in the answer, unless the model says otherwise.

        Args:
            batch: the patients.
            effects: (patients, effects).
            times: h, (patients, times), in any order.
            kinds: the observables' places, (patients, times) or one for all.

        Returns:
            (patients, times), in the observables' units.
        """

    def exposure(self, batch: Batch, effects: Tensor, times: Tensor, kind: int = 0) -> Tensor:
        """The area under an observable from hour 0 to each time, (patients, times), in unit x h."""
