"""The parts of a model card, as its file writes them: every field by name, nothing beside them."""

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
)

from fedtwin_twins.pharmacology.equations import RELATIONS
from fedtwin_twins.pharmacology.structures import INPUTS
from fedtwin_twins.pharmacology.tables import Verified
from fedtwin_twins.twin.residuals import Convention
from fedtwin_twins.twin.units import parse_unit

OmegaConvention = Literal["variance", "sd", "cv_lognormal", "cv_squared"]
"""What the published numbers of variability are.

- `variance`: of eta, so that the numbers are omega squared;
- `sd`: of eta;
- `cv_lognormal`: coefficients of variation of the parameter, so that the variance is ln(1 + CV^2);
- `cv_squared`: coefficients of variation taken as the sd of eta, so that the variance is CV^2.
"""


Distribution = Literal["lognormal", "normal", "logit_normal"]
"""How a parameter P varies around its value T, which covariates have changed already.

- `lognormal`: P = T exp(eta);
- `normal`: P = T + eta, with eta in the parameter's unit;
- `logit_normal`: ln(P / (1 - P)) = ln(T / (1 - T)) + eta, for a fraction.
"""


def _known_unit(text: str) -> str:
    if parse_unit(text) is None:
        raise ValueError("not a unit that is known: write it as UCUM does")
    return text


def one_of(names: Iterable[str], what: str) -> AfterValidator:
    """A text that must be one of some names."""
    known = tuple(names)

    def check(text: str) -> str:
        if text not in known:
            raise ValueError(f"not {what}: choose {', '.join(known)}")
        return text

    return AfterValidator(check)


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=80)]
Words = Annotated[str, Field(min_length=1, max_length=2_000)]
Ucum = Annotated[str, AfterValidator(_known_unit)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
Bounds = tuple[float, float]


class Part(BaseModel):
    """Strict, frozen, and closed: an unknown field is a mistake."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Drug(Part):
    """What is given; how far each code was checked, if the card says so."""

    name: Words
    atc: Annotated[str, Field(pattern=r"^[A-Z]\d{2}[A-Z]{2}\d{2}$")]
    atc_verified: Verified | None = None
    rxnorm: Annotated[str, Field(pattern=r"^\d{1,8}$")]
    rxnorm_verified: Verified | None = None


class Analyte(Part):
    """What is measured, in what."""

    name: Words
    matrix: Words
    molar_mass_g_per_mol: Above0


class Reference(Part):
    """A paper, or whatever numbers were taken from."""

    citation: Words
    doi: str


class Cited(Part):
    """Where a number stands."""

    reference: Name
    place: Words


class CovariateCard(Part):
    """A covariate that is recorded, or follows from others."""

    name: Name
    unit: Ucum
    hard: Bounds
    soft: Bounds
    default: float | None = None
    levels: dict[Name, float] = Field(default_factory=dict)


class DerivedCard(Part):
    """A covariate that follows from others by a named equation."""

    name: Name
    unit: Ucum
    hard: Bounds
    soft: Bounds
    equation: Name
    inputs: dict[Name, Name]
    coefficients: dict[Name, float] = Field(default_factory=dict)
    source: Cited


class RelationCard(Part):
    """How a covariate changes a parameter."""

    equation: Annotated[str, one_of(RELATIONS, "a relation")]
    covariate: Name | None = None
    coefficients: dict[str, float]


class ParameterCard(Part):
    """A number of the equations, or one that follows from others.

    Attributes:
        typical: the population's value; none if it follows from others.
        sum_of: earlier parameters that it is the sum of.
        complement_of: an earlier fraction; it is what that leaves of 1.
        distribution: what eta does: see `Distribution`.
    """

    name: Name
    unit: Ucum
    typical: float | None = None
    sum_of: tuple[Name, ...] = ()
    complement_of: Name | None = None
    distribution: Distribution = "lognormal"
    relations: tuple[RelationCard, ...] = ()
    source: Cited


class RouteCard(Part):
    """A way in.

    Attributes:
        half_dose: in `unit`; of a dose D, half_dose / (half_dose + D) gets in beside all else that
            keeps it out: half of one of this size, all of a small one. None: D does not matter.
        first_pass: the fraction of a dose that gets in as the metabolite.
    """

    name: Name
    input: Annotated[str, one_of(INPUTS, "an input")]
    unit: Ucum
    dose_scale: Above0
    compartments: Annotated[int, Field(ge=1, le=50)] | None = None
    rate: Name | None = None
    duration: Name | None = None
    lag: Name | None = None
    bioavailability: Name | None = None
    half_dose: Above0 | None = None
    first_pass: Name | None = None
    parts: tuple[Name, ...] = ()
    believable_single_dose: Bounds
    available_doses: tuple[Above0, ...]
    largest_single_dose: Above0
    largest_daily_dose: Above0
    doses_source: Words
    doses_verified: Verified | None = None


class ResidualCard(Part):
    """How far a measurement lies from the truth."""

    convention: Annotated[str, one_of(get_args(Convention), "a convention")]
    additive: AtLeast0 = 0.0
    proportional: AtLeast0 = 0.0
    at_zero: Above0 = 1.0
    source: Cited


class ObservableCard(Part):
    """What can be measured; outside of the believable values, in `unit`, nothing is taken in."""

    name: Name
    code: str
    code_verified: Verified | None = None
    unit: Ucum
    output: Name
    endogenous: bool
    signed: bool = False
    quantification_limit: Above0 | None
    residual: ResidualCard
    believable: tuple[Above0, Above0] | None = None


class Block(Part):
    """Effects that vary together.

    Attributes:
        parameters: by name.
        diagonal: of each, in the convention.
        covariances: below the diagonal, row by row (convention `variance` only).
        correlations: below the diagonal, row by row (any convention).
    """

    parameters: tuple[Name, ...]
    diagonal: tuple[Above0, ...]
    covariances: tuple[tuple[float, ...], ...] = ()
    correlations: tuple[tuple[float, ...], ...] = ()


class Variability(Part):
    """How much parameters vary, between patients or between occasions."""

    convention: OmegaConvention
    blocks: tuple[Block, ...]
    source: Cited


class OccasionVariability(Variability):
    """Between a patient's occasions, and what an occasion is."""

    rule: Literal["recorded", "hours_after_first_dose"]
    hours: tuple[Above0, ...]


class Target(Part):
    """A therapeutic range; of a time in range that of the time, in %, spent `within` two limits.

    The two limits are in the observable's unit.
    """

    metric: Literal["trough", "peak", "area_24h", "area_course", "value", "time_in_range"]
    observable: Name
    low: AtLeast0
    high: Above0
    unit: Ucum
    when: Words
    source: Words
    verified: Verified | None = None
    within: tuple[AtLeast0, Above0] | None = None
