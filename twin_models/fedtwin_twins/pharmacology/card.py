"""A published model as data: everything that a dose computed from it depends on, in one file.

A card loads only if every field is there, every unit measures what the structure needs, every name
that it uses exists, and its covariances are positive definite. What a paper leaves open is written
into `open_questions`, and travels beside every result.
"""

import hashlib
import json
from typing import Annotated, Final, Literal

from pydantic import Field

from fedtwin_twins.pharmacology.card_parts import (
    Analyte,
    CovariateCard,
    DerivedCard,
    Drug,
    Name,
    ObservableCard,
    OccasionVariability,
    ParameterCard,
    Part,
    Reference,
    RouteCard,
    Target,
    Variability,
    Words,
    one_of,
)
from fedtwin_twins.pharmacology.structures import DISPOSITIONS, EFFECTS, OPTIONAL
from fedtwin_twins.twin.model import CarryRule

_UNCHECKED: Final = {
    "memory": "from memory, not checked against the source",
    None: "the card does not say how far it was checked",
}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


class ModelCard(Part):
    """One model of one drug in one population."""

    format: Literal["fedtwin-model-card/1"]
    id: Name
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]
    title: Words
    drug: Drug
    population: Words
    analyte: Analyte
    disposition: Annotated[str, one_of(DISPOSITIONS, "a disposition")]
    effect: Annotated[str, one_of(EFFECTS, "an effect")]
    routes: tuple[RouteCard, ...] = Field(min_length=1)
    covariates: tuple[CovariateCard, ...]
    derived: tuple[DerivedCard, ...]
    covariate_rule: CarryRule
    record_order: Literal["observation_before_dose", "dose_before_observation"]
    parameters: tuple[ParameterCard, ...] = Field(min_length=1)
    between_patients: Variability | None
    between_occasions: OccasionVariability | None
    observables: tuple[ObservableCard, ...] = Field(min_length=1)
    targets: tuple[Target, ...]
    references: dict[Name, Reference] = Field(min_length=1)
    transcribed_in: Words
    deviations: tuple[Words, ...]
    open_questions: tuple[Words, ...]
    verified_by: tuple[Words, ...]

    @property
    def amount_unit(self) -> str:
        """UCUM, of the first route's doses: concentrations are per litre of it."""
        return self.routes[0].unit

    def written(self, unit: str) -> str:
        """A unit of a structure, with `{amount}` and `{response}` as this card has them."""
        units = {one.name: one.unit for one in self.parameters}
        response = units.get("baseline_response", "1")
        return unit.replace("{amount}", self.amount_unit).replace("{response}", response)

    @property
    def optional(self) -> dict[str, str]:
        """Unit by name, of parameters that its structure may have or not."""
        return {**OPTIONAL.get(self.disposition, {}), **OPTIONAL.get(self.effect, {})}

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What nobody has held against its source: codes, doses and targets, a sentence each.

        The model's own numbers are not in it; each has a source, and `open_questions` says what
        is doubtful about it.
        """
        drug = self.drug
        said = [
            (f"the ATC code {drug.atc}", drug.atc_verified),
            (f"the RxNorm code {drug.rxnorm}", drug.rxnorm_verified),
            *(
                (f"the doses of the route '{one.name}' (those there are, and the largest)",
                 one.doses_verified)
                for one in self.routes
            ),
            *(
                (f"the LOINC code {one.code} of '{one.name}'", one.code_verified)
                for one in self.observables
                if one.code
            ),
            *(
                (f"the target {one.low:g} to {one.high:g} {one.unit} ({one.when})", one.verified)
                for one in self.targets
            ),
        ]  # fmt: skip
        return tuple(
            f"{_capital(what)}: {_UNCHECKED[how]}." for what, how in said if how in _UNCHECKED
        )

    @property
    def digest(self) -> str:
        """SHA-256 over all content, whatever the file's layout and comments.

        What is as it is by default is left out: a field that the format gains later changes the
        hash of no card that does not use it.
        """
        content = json.dumps(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, ensure_ascii=True
        )
        return hashlib.sha256(content.encode()).hexdigest()
