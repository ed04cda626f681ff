"""What a patient's file may hold: every field by name, nothing beside them.

Quantities carry their unit (UCUM). Times are hours after the origin (`12 h`), or datetimes with
their zone where the file names an origin.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from fedtwin_research.twins.values import carbohydrate, gene_fields, moment, quantity, recorded
from fedtwin_twins.advice.targets import TargetKind
from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.moments import Moment
from fedtwin_twins.twin.quantities import Quantity

Amount = Annotated[Quantity, PlainValidator(quantity)]
When = Annotated[Moment, PlainValidator(moment)]
MaybeAmount = Annotated[
    Quantity | None, PlainValidator(lambda given: None if given is None else quantity(given))
]
MaybeWhen = Annotated[
    Moment | None, PlainValidator(lambda given: None if given is None else moment(given))
]
Record = Annotated[Quantity | str | tuple[CovariateRecord, ...], PlainValidator(recorded)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Frozen and closed: an unknown field is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DoseLine(Part):
    """One dose, perhaps repeated.

    Attributes:
        time: when the (first) dose begins.
        amount: of the drug as given.
        route: one of the model's; may be left out where there is only one.
        duration: of an infusion.
        rate: of an infusion, in place of the duration.
        interval: between repeated doses.
        additional: how many more follow, each an interval later.
        steady_state: the patient has had this dose at this interval for long.
    """

    time: When
    amount: Amount
    route: str = ""
    duration: MaybeAmount = None
    rate: MaybeAmount = None
    interval: MaybeAmount = None
    additional: int = 0
    steady_state: bool = False


class MealLine(Part):
    """What was eaten.

    Attributes:
        time: when the meal began.
        carbohydrate: mass of digestible carbohydrate, or mmol of glucose.
    """

    time: When
    carbohydrate: Annotated[Quantity, PlainValidator(carbohydrate)]


class LevelLine(Part):
    """One measurement.

    Attributes:
        time: when the sample was drawn.
        value: what was measured.
        observable: one of the model's by name or LOINC code; may be left out for its first.
        below: the value lies below the limit of quantification.
        limit: of quantification, of this assay; none: the model's.
    """

    time: When
    value: MaybeAmount = None
    observable: str = ""
    below: bool = False
    limit: MaybeAmount = None


class GeneLine(Part):
    """What is known of a gene; in short `CYP2C9: '*1/*3'`.

    Attributes:
        diplotype: such as `*1/*3`.
        phenotype: in CPIC's words, or PM, IM, NM, RM, UM.
        activity_score: of genes that are scored.
        copies: of CYP2D6, all on both chromosomes.
    """

    diplotype: str | None = None
    phenotype: str | None = None
    activity_score: float | None = None
    copies: Annotated[int | None, Field(ge=0)] = None


class WarfarinPart(Part):
    """What the guideline on warfarin goes by beside the genes.

    Attributes:
        african_ancestry: as the patient says.
        minor_alleles_tested: CYP2C9 *5, *6, *8 and *11 were looked for.
        rs12777823: G/G, A/G or A/A, where it was tested.
    """

    african_ancestry: bool
    minor_alleles_tested: bool = False
    rs12777823: str | None = None


class TargetLine(Part):
    """A range that is to be reached.

    Attributes:
        kind: trough, peak, mean, area_24h, … (docs/twin.md lists them).
        observable: of the model; may be left out for its first.
        low: lower limit; none: no lower limit.
        high: upper limit; none: no upper limit.
        inhibitory_concentration: of the pathogen, for the kinds that need it.
        unbound_fraction: of the drug, above 0 and at most 1.
        within: for time_in_range, the two limits of the observable.
        source: who says that this range is good.
    """

    kind: TargetKind
    observable: str = ""
    low: MaybeAmount = None
    high: MaybeAmount = None
    inhibitory_concentration: MaybeAmount = None
    unbound_fraction: float = 1.0
    within: tuple[Amount, Amount] | None = None
    source: str = "the patient's file"


class GoalPart(Part):
    """What is wanted.

    Attributes:
        targets: all at once; none: the card's own.
        least_probability: with which the proposed regimen must meet them.
    """

    targets: tuple[TargetLine, ...] = ()
    least_probability: float = 0.5


class CeilingLine(Part):
    """A harmful exposure.

    Attributes:
        kind: as of a target.
        observable: of the model; may be left out for its first.
        above: where harm begins.
        most: the largest probability of lying above.
        within: for time_in_range, the two limits of the observable.
    """

    kind: TargetKind
    observable: str = ""
    above: Amount
    most: float
    within: tuple[Amount, Amount] | None = None


class LimitsPart(Part):
    """Hard limits, each stricter than the card's.

    Attributes:
        largest_dose: single, a loading dose too.
        largest_daily_dose: in 24 h.
        smallest_interval: between doses.
        largest_rate: of an infusion.
        largest_change: of the daily amount in one step, a fraction of the present one.
        ceilings: on harmful exposures.
    """

    largest_dose: MaybeAmount = None
    largest_daily_dose: MaybeAmount = None
    smallest_interval: MaybeAmount = None
    largest_rate: MaybeAmount = None
    largest_change: float | None = None
    ceilings: tuple[CeilingLine, ...] = ()


class CandidatesPart(Part):
    """Regimens that can be given: every combination; none: the card's doses at usual intervals.

    Attributes:
        doses: single amounts.
        intervals: between doses.
        durations: of infusions.
        loading: first doses that may be tried beside none.
        route: one of the model's.
    """

    doses: tuple[Amount, ...] = ()
    intervals: tuple[Amount, ...] = ()
    durations: tuple[Amount, ...] = ()
    loading: tuple[Amount, ...] = ()
    route: str = ""


class CurrentPart(Part):
    """What the patient has now.

    Attributes:
        amount: of every dose.
        interval: between doses.
        duration: of an infusion.
        route: one of the model's.
    """

    amount: Amount
    interval: Amount
    duration: MaybeAmount = None
    route: str = ""


class WhatIfPart(Part):
    """A schedule to look at beside the others; it comes after what was done.

    Attributes:
        name: what the answer calls it.
        doses: as in the file itself.
        meals: as in the file itself.
    """

    name: str
    doses: tuple[DoseLine, ...] = ()
    meals: tuple[MealLine, ...] = ()


class PatientFile(Part):
    """One patient, virtual or under a pseudonym, and what is asked.

    Attributes:
        format: of this file.
        name: a pseudonym; never a real name.
        drug: all cards of it are used; its name or ATC code.
        models: cards by name, in place of the drug.
        origin: the datetime of hour 0, with its zone; needed where any time is a datetime.
        covariates: by name: a quantity, a level such as `female`, or records over time.
        sex: female or male; the same as the covariate `female`.
        genes: by HGNC symbol.
        warfarin: what its guideline goes by beside the genes.
        other_drugs: by name, RxNorm:CODE or ATC:CODE.
        doses: what was given, and what is fixed to be given.
        meals: what was eaten.
        levels: what was measured.
        occasions: when each later dosing occasion begins, for models that need it.
        goal: what is wanted; with it, a regimen is proposed.
        limits: stricter than the card's.
        candidates: regimens to choose from.
        current: regimen that the patient has now.
        start: when the proposed regimen would begin; none: when the next dose is due.
        judged_at: when its effect is judged; none: at steady state, which insulin does not have.
        forecast_until: the end of the forecast; none: two days after the start.
        what_if: schedules to compare.
        baseline_risks: a hospital's own rate of a side effect by the name of its model.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(max_length=80)] = ""
    drug: str = ""
    models: tuple[str, ...] = ()
    origin: MaybeWhen = None
    covariates: dict[str, Record] = Field(default_factory=dict)
    sex: Literal["female", "male"] | None = None
    genes: dict[str, Annotated[GeneLine, BeforeValidator(gene_fields)]] = Field(
        default_factory=dict
    )
    warfarin: WarfarinPart | None = None
    other_drugs: tuple[str, ...] = ()
    doses: tuple[DoseLine, ...] = ()
    meals: tuple[MealLine, ...] = ()
    levels: tuple[LevelLine, ...] = ()
    occasions: tuple[When, ...] = ()
    goal: GoalPart | None = None
    limits: LimitsPart = LimitsPart()
    candidates: CandidatesPart = CandidatesPart()
    current: CurrentPart | None = None
    start: MaybeWhen = None
    judged_at: MaybeWhen = None
    forecast_until: MaybeWhen = None
    what_if: tuple[WhatIfPart, ...] = ()
    baseline_risks: dict[str, Fraction] = Field(default_factory=dict)


PARTS: dict[str, type[Part]] = {
    "": PatientFile,
    "doses": DoseLine,
    "meals": MealLine,
    "levels": LevelLine,
    "genes": GeneLine,
    "warfarin": WarfarinPart,
    "targets": TargetLine,
    "goal": GoalPart,
    "ceilings": CeilingLine,
    "limits": LimitsPart,
    "candidates": CandidatesPart,
    "current": CurrentPart,
    "what_if": WhatIfPart,
}
"""By the field that holds them; the empty one is the file."""
