"""A study: one question with its plan, frozen, signed, and the same bytes for everybody.

Written as YAML by the consortium, hashed in canonical form, and carried by hash in every message.
Everything that leaves a site is fixed here or priced here.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.contract import Code, Feature, FeatureContract, Part, complaint
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.strict_yaml import load_strictly

StudyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,60}$")]


class IndexDate(Part):
    """The moment a prediction is made: an event of the timeline, or one calendar date."""

    codes: tuple[Code, ...] = ()
    which: Literal["first", "last"] = "last"
    date: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "IndexDate":
        if bool(self.codes) == (self.date is not None):
            raise ValueError("the index date needs either 'codes' or 'date', and not both")
        return self


class Cohort(Part):
    """Who takes part.

    Attributes:
        index: the index date.
        minimum_age_years: inclusive, at the index date.
        maximum_age_years: inclusive, at the index date.
        require_codes: a patient needs one of these at or before the index date.
        exclude_codes: a patient with one of these at or before the index date is left out.
        holdout_fraction: share of patients kept for evaluation and never used in training.
        holdout_salt: changes who is held out; chosen before data are seen.
    """

    index: IndexDate
    minimum_age_years: float = Field(default=18, ge=0, le=130)
    maximum_age_years: float = Field(default=120, ge=0, le=130)
    require_codes: tuple[Code, ...] = ()
    exclude_codes: tuple[Code, ...] = ()
    holdout_fraction: float = Field(default=0.25, ge=0, le=0.9)
    holdout_salt: str = Field(default="", max_length=60)


class Endpoint(Part):
    """What is predicted.

    Attributes:
        kind: `event`: any event with one of the codes within the horizon after the index date;
            `value_above`: the first such value within the horizon exceeds `threshold`, and a
            patient without one is left out.
        horizon_days: days after the index date.
        threshold: in `unit`; only for `value_above`.
        require_follow_up: leave out a patient without the event whose record ends before the
            horizon; only for `event`.
    """

    name: str = Field(min_length=1, max_length=120)
    kind: Literal["event", "value_above"]
    codes: Annotated[tuple[Code, ...], Field(min_length=1)]
    horizon_days: int = Field(ge=0, le=36525)
    threshold: float | None = None
    unit: str = Field(default="1", max_length=40)
    require_follow_up: bool = True

    @model_validator(mode="after")
    def _threshold_where_needed(self) -> "Endpoint":
        if (self.kind == "value_above") != (self.threshold is not None):
            raise ValueError(
                "'threshold' belongs to endpoints of kind 'value_above', and only there"
            )
        return self


class Model(Part):
    """The model family, from those installed at the sites; no code travels.

    Attributes:
        family: `logistic_regression`, `network`, or a name a site's IT has installed.
        hidden: widths of the hidden layers of a network.
        l2: weight of the squared-norm penalty (applied by the coordinator; needs no data).
        seed: of the network's public initial weights.
        initial_sha256: hash of a safetensors file with the initial parameters; needed for
            families other than the two built in.
    """

    family: str = Field(default="logistic_regression", pattern=r"^[a-z][a-z0-9_]{1,60}$")
    hidden: tuple[Annotated[int, Field(ge=1, le=10000)], ...] = ()
    l2: float = Field(default=0.0, ge=0, le=10)
    seed: int = Field(default=0, ge=0, lt=2**31)
    initial_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Training(Part):
    """How the model is learned.

    Attributes:
        mechanism: `gradient_sum`: a round is one clipped, noised sum of per-patient gradients
            over the site's whole cohort; `local_steps`: a round is `local_steps` clipped, noised
            gradient steps at the site over Poisson-sampled patients, and the site's new
            parameters travel.
        rounds: number of rounds.
        learning_rate: of the coordinator's step (`gradient_sum`) or the sites' (`local_steps`).
        momentum: of the coordinator's step.
        local_steps: steps at a site in a round.
        average_last: the released model is the mean of the last so many rounds' models.
    """

    mechanism: Literal["gradient_sum", "local_steps"] = "gradient_sum"
    rounds: int = Field(ge=1, le=100_000)
    learning_rate: float = Field(gt=0, le=1000)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    local_steps: int = Field(default=1, ge=1, le=100_000)
    average_last: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _adds_up(self) -> "Training":
        if self.mechanism == "gradient_sum" and self.local_steps != 1:
            raise ValueError("'gradient_sum' has one step a round: set local_steps to 1")
        if self.average_last > self.rounds:
            raise ValueError(f"average_last {self.average_last} exceeds rounds {self.rounds}")
        return self


class Aggregation(Part):
    """How sites' updates become one.

    Attributes:
        rule: `sum` (of clipped sums; divided by the number of patients the sites reported),
            `mean` (of parameters, weighted by reported cohort size), or `flower` (a strategy of
            `flwr.serverapp.strategy` by name).
        strategy: the strategy's class name, for `flower`.
        options: its keyword arguments.
    """

    rule: Literal["sum", "mean", "flower"] = "sum"
    strategy: str = Field(default="", pattern=r"^[A-Za-z]{0,60}$")
    options: dict[str, float | int | bool | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _strategy_named(self) -> "Aggregation":
        if (self.rule == "flower") != bool(self.strategy):
            raise ValueError("'strategy' is named for rule 'flower', and only there")
        return self


class Privacy(Part):
    """The privacy numbers; each site recomputes them and refuses what does not add up.

    Attributes:
        unit: always the patient, with all records.
        mode: `local`: the site's own noise protects against everyone outside it; `none`: no
            protection, only for data that a site's policy says may be used so.
        epsilon: stated for any patient, over everything a site sends in this study.
        delta: the other half of the statement.
        clipping_norm: bound on one patient's contribution to a sum (Euclidean norm).
        noise_multiplier: noise sd in the sum, as a multiple of the clipping norm.
        sampling_rate: chance that a patient takes part in a step (1: everybody, every step).
        cohort_count_noise: noise sd of the one cohort count a site reports (sensitivity 1).
        evaluation_noise: noise sd of each cell of the hold-out table (sensitivity 1); none: no
            evaluation leaves the site.
    """

    unit: Literal["patient"] = "patient"
    mode: Literal["local", "none"] = "local"
    epsilon: float = Field(gt=0, le=100)
    delta: float = Field(gt=0, lt=0.01)
    clipping_norm: float = Field(gt=0, le=1e6)
    noise_multiplier: float = Field(ge=0, le=1e6)
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    cohort_count_noise: float = Field(default=20.0, ge=0, le=1e6)
    evaluation_noise: float | None = Field(default=None, ge=0, le=1e6)

    @model_validator(mode="after")
    def _noise_where_promised(self) -> "Privacy":
        noises = [self.noise_multiplier, self.cohort_count_noise, self.evaluation_noise]
        if self.mode == "local" and any(noise == 0 for noise in noises):
            raise ValueError(
                "mode 'local' needs noise on everything that leaves: noise_multiplier, "
                "cohort_count_noise and evaluation_noise must be above 0"
            )
        return self


class Sites(Part):
    """Who may take part, and how long the others wait.

    Attributes:
        invited: names of sites; empty means every member.
        quorum: rounds start and close with at least so many sites.
        deadline_s: a round closes after so many seconds with whoever answered, if a quorum did.
        gathering_s: how long after the quorum is reached to wait for further sites.
        smallest_cohort: a site with fewer patients takes no part, and does not say why.
        smallest_cell: counts below it are not shown anywhere outside a site.
        join_late: whether a site may join after the first round.
    """

    invited: tuple[str, ...] = ()
    quorum: int = Field(ge=1, le=1000)
    deadline_s: float = Field(default=120.0, gt=0, le=86400 * 7)
    gathering_s: float = Field(default=5.0, ge=0, le=86400 * 30)
    smallest_cohort: int = Field(default=20, ge=1)
    smallest_cell: int = Field(default=10, ge=1)
    join_late: bool = True


class Evaluation(Part):
    """The table a site reports of its held-out patients: predicted risk by outcome.

    Attributes:
        bins: number of equal-width bins of predicted risk.
        per_site: whether the model card shows each site's calibration, or only the sum's.
    """

    bins: int = Field(default=20, ge=2, le=200)
    per_site: bool = False


class StudyPlan(Part):
    """One question, and everything about how it is answered."""

    study: StudyName
    version: int = Field(default=1, ge=1)
    consortium: str = Field(pattern=r"^[a-z][a-z0-9-]{1,60}$")
    question: Literal["risk", "response", "population", "statistics"] = "risk"
    title: str = Field(min_length=1, max_length=200)
    purpose: str = Field(min_length=1, max_length=2000)
    expires: AwareDatetime | None = None
    cohort: Cohort
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    endpoint: Endpoint
    model: Model
    training: Training
    aggregation: Aggregation = Aggregation()
    privacy: Privacy
    sites: Sites
    evaluation: Evaluation = Evaluation()
    limits: tuple[str, ...] = ()
    readers: tuple[Literal["site", "researcher"], ...] = ("site", "researcher")

    @model_validator(mode="after")
    def _mechanism_fits(self) -> "StudyPlan":
        FeatureContract(features=self.features)
        summed = self.training.mechanism == "gradient_sum"
        if summed != (self.aggregation.rule == "sum"):
            raise ValueError("mechanism 'gradient_sum' and rule 'sum' belong together")
        if summed and self.privacy.sampling_rate != 1:
            raise ValueError("'gradient_sum' uses everybody: set sampling_rate to 1")
        if self.privacy.evaluation_noise is not None and self.cohort.holdout_fraction == 0:
            raise ValueError("an evaluation needs held-out patients: set holdout_fraction above 0")
        return self

    @cached_property
    def contract(self) -> FeatureContract:
        """The features, in the order of the model's columns."""
        return FeatureContract(features=self.features)

    @property
    def steps(self) -> int:
        """Noised training steps that one patient of a site is exposed to, at most."""
        return self.training.rounds * self.training.local_steps

    def to_bytes(self) -> bytes:
        """The canonical bytes: what is hashed and signed."""
        return canonical_bytes(self.model_dump(mode="json"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical bytes, in hexadecimal."""
        return sha256_hex(self.to_bytes())


def plan_from_bytes(data: bytes) -> StudyPlan:
    """Read a plan from its canonical bytes.

    Raises:
        PlanError: not JSON, not a plan, or not in canonical form.
    """
    try:
        plan = StudyPlan.model_validate_json(data)
    except ValidationError as error:
        raise PlanError(_explain(error, "the plan")) from error
    if plan.to_bytes() != data:
        raise PlanError("the plan is not in canonical form, so its hash would not be its own")
    return plan


def plan_from_yaml(path: Path) -> StudyPlan:
    """Read a plan that a person wrote.

    Raises:
        PlanError: the file cannot be read, is not YAML, or a field is wrong (named in the text).
    """
    try:
        value = load_strictly(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not YAML: {error}") from error
    return plan_from_value(value, str(path))


def plan_from_value(value: Any, where: str) -> StudyPlan:
    """Check a plan that came as plain values; `where` names its origin in errors.

    Raises:
        PlanError: a field is wrong (named in the text).
    """
    if not isinstance(value, dict):
        raise PlanError(f"{where} holds no plan: expected fields such as 'study' and 'cohort'")
    try:
        return StudyPlan.model_validate(value)
    except ValidationError as error:
        raise PlanError(_explain(error, where)) from error


def _explain(error: ValidationError, where: str) -> str:
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "the plan as a whole"
        lines.append(f"  {place}: {complaint(item)}")
    return f"{where} does not add up:\n" + "\n".join(lines)
