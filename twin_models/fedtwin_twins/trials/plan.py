"""A trial's plan: all that decides its result, so that the same plan gives the same result."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedtwin_twins.genes.tables import built_in_tables
from fedtwin_twins.pharmacology.gene_results import phenotypes_of
from fedtwin_twins.trials.arms import Arm, Name, Positive
from fedtwin_twins.trials.endpoints import Endpoint
from fedtwin_twins.trials.events import drug_of
from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.population import Population
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal


class Truth(Part):
    """The model that plays the truth."""

    model: Annotated[str, Field(min_length=1, description="name of a model card")]
    parameter_factors: Annotated[
        dict[str, Positive],
        Field(default_factory=dict, description="true parameters of everybody, times this"),
    ]
    occasion_days: Annotated[
        float | None,
        Field(gt=0, description="length of a dosing occasion; none: one occasion only"),
    ] = None


class Drug(Part):
    """What is given, and which models know it."""

    name: Annotated[str, Field(min_length=1)]
    route: Annotated[str, Field(min_length=1, description="of every dose, as both models name it")]
    dose_unit: Annotated[str, Field(min_length=1, description="UCUM, of every amount in the plan")]
    level_unit: Annotated[
        str, Field(min_length=1, description="UCUM, of every level and window in the plan")
    ]
    truth: Truth
    dosing_model: Annotated[
        str | None,
        Field(description="name of the card that arms dose by; must differ from the truth"),
    ] = None

    @model_validator(mode="after")
    def _differ(self) -> "Drug":
        if self.dosing_model == self.truth.model:
            raise ValueError(
                f"dosing_model: the truth is {self.truth.model} too; a model that doses patients "
                "who follow its own equations looks better than it is: choose another card"
            )
        return self


class Prognosis(Part):
    """The prognostic score that the analysis is adjusted for."""

    by: Annotated[
        Literal["history", "twin"],
        Field(
            description="history: a regression on earlier patients under the control arm; twin: "
            "what the dosing model foretells of each patient under the control arm"
        ),
    ]
    patients: Annotated[int, Field(ge=50, le=100_000, description="of the history")] = 1000
    draws: Annotated[int, Field(ge=1, le=500, description="of the twin, for each patient")] = 20


class WhatIf(Part):
    """A setting that is changed both ways, to see what the result hangs on."""

    label: Annotated[str, Field(min_length=1, description="for people")]
    setting: Annotated[
        str,
        Field(
            description="its path in this plan, such as population.adherence.taken_share or "
            "drug.truth.parameter_factors.clearance"
        ),
    ]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> "WhatIf":
        if self.low >= self.high:
            raise ValueError(f"{self.label}: expected low below high")
        return self


class Analysis(Part):
    """How arms are compared."""

    control: Name
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    alpha: Annotated[float, Field(gt=0, lt=0.5, description="two-sided")] = 0.05
    multiplicity: Annotated[
        Literal["none", "holm"], Field(description="of several arms against the control")
    ] = "holm"
    prognosis: Prognosis | None = None
    subgroup_gene: Annotated[str | None, Field(description="subgroups by its phenotype")] = None


class SampleSize(Part):
    """What a real trial should find; the panel of sample sizes starts from it."""

    difference: Annotated[
        float | None, Field(description="of the primary endpoint; none: the one seen here")
    ] = None
    power: Annotated[float, Field(gt=0, lt=1)] = 0.9
    sd_inflation: Annotated[float, Field(ge=0, le=1)] = 0.1
    correlation_deflation: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _some(self) -> "SampleSize":
        if self.difference == 0:
            raise ValueError("difference: expected one other than 0, for no trial finds none")
        return self


class TrialPlan(Part):
    """An in-silico trial."""

    format: Annotated[Literal[1], Field(description="of this file")] = 1
    name: Name
    title: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63, description="of all chance")]
    patients: Annotated[int, Field(ge=8, le=1_000_000, description="randomised, all arms together")]
    replicates: Annotated[int, Field(ge=1, le=100_000, description="of the whole trial")]
    days: Annotated[float, Field(gt=0, le=3650)]
    population: Population
    drug: Drug
    arms: Annotated[tuple[Arm, ...], Field(min_length=2, max_length=12)]
    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1, description="primary first")]
    analysis: Analysis
    sample_size: SampleSize = SampleSize()
    what_if: tuple[WhatIf, ...] = ()
    what_if_replicates: Annotated[
        int, Field(ge=1, le=100_000, description="of each changed setting")
    ] = 20

    @model_validator(mode="after")
    def _fits(self) -> "TrialPlan":
        for kind, names in (
            ("arms", [arm.name for arm in self.arms]),
            ("endpoints", [one.name for one in self.endpoints]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{kind}: every name once, found {', '.join(names)}")
        self._check_arms()
        self._check_endpoints()
        gene = self.analysis.subgroup_gene
        if gene is not None and gene not in self.population.genes:
            raise ValueError(f"analysis: subgroup_gene {gene} is not among population.genes")
        if self.analysis.prognosis is not None and self.analysis.prognosis.by == "twin":
            self._needs_model("analysis.prognosis by twin")
        return self

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.analysis.control not in names:
            raise ValueError(
                f"analysis: control {self.analysis.control} is no arm: {', '.join(names)}"
            )
        for arm in self.arms:
            self._check_doses(arm)
            by_model = arm.adjust is not None and arm.adjust.by == "model"
            if by_model or arm.start.amount is None:
                self._needs_model(f"arm {arm.name}")

    def _check_endpoints(self) -> None:
        level = self.drug.level_unit
        for one in self.endpoints:
            if one.day > self.days:
                raise ValueError(f"endpoint {one.name}: asked after the trial's {self.days:g} days")
            drug = None if one.event is None else drug_of(one.event)
            if drug is not None and drug != self.drug.name.strip().lower():
                raise ValueError(
                    f"endpoint {one.name}: {one.event} was seen with {drug}, expected an event "
                    f"of {self.drug.name}: exposure to one drug says nothing of another"
                )
            unit = {"trough": level, "auc24": f"{level}.h"}.get(one.kind, "1")
            if not _same_unit(one.unit, unit):
                raise ValueError(
                    f"endpoint {one.name}: its values are in {unit}, expected that as unit, "
                    f"found {one.unit}"
                )

    def _check_doses(self, arm: Arm) -> None:
        """What would silently change nothing, or be cut to what there is."""
        start, doses = arm.start, arm.doses
        fixed = start.amount is not None and start.per is None
        if fixed and not doses.lowest <= float(start.amount or 0.0) <= doses.highest:
            raise ValueError(
                f"arm {arm.name}: start.amount of {start.amount:g}, expected {doses.lowest:g} to "
                f"{doses.highest:g}, as doses has it"
            )
        if arm.adjust is not None and arm.adjust.days[-1] >= self.days:
            raise ValueError(
                f"arm {arm.name}: adjust.days has {arm.adjust.days[-1]:g}, expected days before "
                f"the trial's end on day {self.days:g}"
            )
        table = built_in_tables().get(start.gene or "")
        known = () if table is None else phenotypes_of(table)
        for name in sorted(set(start.factors) - set(known)) if known else ():
            raise ValueError(
                f"arm {arm.name}: start.factors names {name!r}, expected phenotypes of "
                f"{start.gene}: {', '.join(known)}"
            )

    def _needs_model(self, who: str) -> None:
        if self.drug.dosing_model is None:
            raise ValueError(f"{who} needs drug.dosing_model")

    @property
    def control(self) -> int:
        """Place of the control arm."""
        return [arm.name for arm in self.arms].index(self.analysis.control)

    @property
    def digest(self) -> str:
        """SHA-256 of the plan in canonical JSON, comments and order of keys left out."""
        text = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def changed(self, setting: str, value: float) -> "TrialPlan":
        """The same plan with one setting replaced.

        Args:
            setting: path of names and places, such as `population.covariates.0.mean`.
            value: instead.

        Raises:
            ValueError: there is no such setting, or the changed plan does not add up.
        """
        plain = self.model_dump(mode="python")
        *way, last = setting.split(".")
        inside: Any = plain
        for name in way:
            inside = _step(inside, name, setting)
        if isinstance(inside, dict) and (last in inside or way[-1:] == ["parameter_factors"]):
            inside[last] = value
        else:
            _step(inside, last, setting)
            raise ValueError(f"what_if: {setting} cannot be changed")
        return TrialPlan.model_validate(plain)


def _step(inside: Any, name: str, setting: str) -> Any:
    if isinstance(inside, dict) and name in inside:
        return inside[name]
    if isinstance(inside, list | tuple):
        named = [one for one in inside if isinstance(one, dict) and one.get("name") == name]
        if named:
            return named[0]
    raise ValueError(f"what_if: there is no setting {setting} (at '{name}')")


def _same_unit(unit: str, other: str) -> bool:
    try:
        return bool(abs(Quantity(1.0, unit).to(other) - 1.0) < 1e-9)
    except Refusal:
        return False
