"""Arms: how a patient's first dose is chosen, and how later ones follow from measured levels.

A start and a way to adjust make an arm. The four kinds that trials of dosing compare are

- fixed: an amount for everybody, or for each unit of a covariate;
- genotype-guided: the same times a factor for each phenotype;
- level-guided: later doses in proportion to the distance of a trough from its window;
- model-informed: later doses (or already the first) by the dosing model's belief about the patient.

The control arm is an arm like the others, with patients of its own. Nothing here replaces it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedtwin_twins.trials.parts import Part

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]


class Target(Part):
    """What a dose should reach."""

    measure: Annotated[
        Literal["trough", "auc24"],
        Field(description="level before a dose, or the area under it over 24 h before that"),
    ]
    low: Positive
    high: Positive
    aim: Positive

    @model_validator(mode="after")
    def _ordered(self) -> "Target":
        if not self.low <= self.aim <= self.high or self.low == self.high:
            raise ValueError(f"target: expected low <= aim <= high, found {self}")
        return self


class Doses(Part):
    """Which amounts there are."""

    interval_h: Annotated[float, Field(gt=0, description="between doses, in hours")]
    step: Annotated[float, Field(gt=0, description="amounts are multiples of it")]
    lowest: Positive
    highest: Positive
    infusion_h: Annotated[float, Field(ge=0, description="0: all at once, or by mouth")] = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> "Doses":
        if self.lowest > self.highest:
            raise ValueError("doses: expected lowest of at most highest")
        if self.infusion_h > self.interval_h:
            raise ValueError("doses: an infusion is longer than the interval between doses")
        if self.highest / self.step > 400:
            raise ValueError("doses: expected at most 400 steps up to the highest amount")
        return self


class Start(Part):
    """The first dose."""

    amount: Annotated[
        float | None,
        Field(gt=0, description="in the dosing model's unit; none: the model chooses"),
    ] = None
    per: Annotated[
        str | None, Field(description="a covariate that the amount is multiplied with")
    ] = None
    gene: Annotated[str | None, Field(description="whose phenotype changes the amount")] = None
    factors: Annotated[
        dict[str, Positive], Field(default_factory=dict, description="by phenotype; others: 1")
    ]
    loading_factor: Annotated[
        float, Field(gt=0, description="the very first dose is so many times the others")
    ] = 1.0
    target: Annotated[Target | None, Field(description="if the model chooses")] = None

    @model_validator(mode="after")
    def _one_way(self) -> "Start":
        if (self.amount is None) != (self.target is not None):
            raise ValueError("start: expected an amount, or a target for the dosing model to reach")
        if self.amount is None and (self.per or self.gene):
            raise ValueError("start: the model chooses, so that per and gene have no meaning")
        if bool(self.gene) != bool(self.factors):
            raise ValueError("start: expected gene and factors together")
        return self


class Adjustment(Part):
    """How later doses follow from levels."""

    by: Annotated[
        Literal["level", "model"],
        Field(description="in proportion to the last trough, or by the dosing model's belief"),
    ]
    days: Annotated[
        tuple[Positive, ...], Field(min_length=1, description="on which doses are changed")
    ]
    samples_h: Annotated[
        tuple[float, ...],
        Field(min_length=1, description="hours from that day's first dose; 0: before it"),
    ] = (0.0,)
    delay_h: Annotated[
        float, Field(ge=0, description="from the last sample to the first changed dose")
    ] = 0.0
    target: Target
    largest_change: Annotated[
        float, Field(gt=1, description="a dose is at most so many times the last, and at least 1/x")
    ] = 2.0
    horizon_h: Annotated[
        float, Field(gt=0, description="the model looks so far ahead to meet the target")
    ] = 72.0

    @model_validator(mode="after")
    def _fits(self) -> "Adjustment":
        if self.by == "level" and (self.samples_h != (0.0,) or self.target.measure != "trough"):
            raise ValueError("adjust: by level needs one trough (samples_h [0], measure trough)")
        if list(self.days) != sorted(set(self.days)):
            raise ValueError("adjust: expected days in ascending order")
        return self


class Arm(Part):
    """One way of dosing."""

    name: Name
    label: Annotated[str, Field(min_length=1, description="for people")]
    doses: Doses
    start: Start
    adjust: Adjustment | None = None
    share: Annotated[int, Field(ge=1, le=20, description="patients in a block")] = 1
