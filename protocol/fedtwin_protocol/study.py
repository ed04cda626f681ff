"""A study: one question with its plan, frozen, signed, and the same bytes for everybody.

Written as YAML by the consortium, hashed in canonical form, and carried by hash in every message.
Everything that leaves a site is fixed here or priced here.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.contract import Feature, FeatureContract, Part, complaint
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.groups import group_sizes
from fedtwin_protocol.strict_yaml import load_strictly
from fedtwin_protocol.study_learning import Aggregation, Evaluation, Model, Training
from fedtwin_protocol.study_patients import Cohort, Endpoint
from fedtwin_protocol.study_population import FAMILY, MECHANISM, Population
from fedtwin_protocol.study_privacy import Privacy, Sites
from fedtwin_protocol.study_sequence import Sequence
from fedtwin_protocol.votes import FEWEST_VOTERS

_YES_OR_NO = ("event", "value_above")
FAMILY_ENDPOINTS: Mapping[str, tuple[str, ...]] = {
    "logistic_regression": _YES_OR_NO,
    "linear_regression": ("value",),
    "poisson_regression": ("count",),
    "discrete_hazard": ("time_to_event",),
    FAMILY: ("value",),
    "network": _YES_OR_NO,
    "transformer": _YES_OR_NO,
    "recurrent": _YES_OR_NO,
}
"""What kinds of endpoint each built-in family learns."""
NOT_VOTED_ON = frozenset({"value", "count"})
"""Kinds of endpoints without risks, for which there is no hold-out table and no vote."""
NEED_SEQUENCE = frozenset({"transformer", "recurrent"})
READ_COLUMNS_ALONE = frozenset(FAMILY_ENDPOINTS) - NEED_SEQUENCE - {"network"}

StudyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,60}$")]


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
    sequence: Sequence | None = None
    endpoint: Endpoint
    model: Model
    population: Population | None = Field(default=None, exclude_if=lambda value: value is None)
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
        training = self.training
        if training.summed != (self.aggregation.rule == "sum"):
            raise ValueError(
                "mechanism 'gradient_sum', 'mean_vector' or 'moments' and rule 'sum' belong "
                "together"
            )
        if self.privacy.mode == "secure" and not training.summed:
            raise ValueError(
                "mode 'secure' adds sums up: it needs mechanism 'gradient_sum', 'mean_vector' or "
                "'moments' and rule 'sum'; for steps at the sites or a Flower strategy set "
                "privacy.mode to 'local'"
            )
        if self.privacy.evaluation_noise is not None and self.cohort.holdout_fraction == 0:
            raise ValueError("an evaluation needs held-out patients: set holdout_fraction above 0")
        return self

    @model_validator(mode="after")
    def _poison_is_met(self) -> "StudyPlan":
        if self.privacy.vote_noise is not None:
            if self.cohort.holdout_fraction == 0:
                raise ValueError("votes need held-out patients: set holdout_fraction above 0")
            if self.sites.quorum < FEWEST_VOTERS:
                raise ValueError(
                    f"votes need at least {FEWEST_VOTERS} sites, because of two nobody can tell "
                    f"which one lies: set quorum to {FEWEST_VOTERS}, or leave vote_noise out"
                )
        elif self.privacy.mode == "secure" and not self.evaluation.unjudged:
            if self.endpoint.kind in NOT_VOTED_ON:
                raise ValueError(
                    f"there are no votes on models of an endpoint of kind '{self.endpoint.kind}', "
                    "and in mode 'secure' nobody sees a single site's part: set "
                    "evaluation.unjudged to true if that is to be so, or privacy.mode to 'local'"
                )
            raise ValueError(
                "in mode 'secure' nobody sees a single site's part, so the sites must vote on each "
                "round's model: set privacy.vote_noise (and cohort.holdout_fraction above 0); "
                "where hospitals are too small for votes to be heard, set evaluation.unjudged"
            )
        if self.aggregation.groups > 1:
            if self.privacy.mode in {"local", "none"}:
                raise ValueError(
                    "'groups' belong to secure sums; in this mode every site's sum is seen by "
                    "itself, and 'robust' works on those: leave groups out"
                )
            group_sizes(len(self.sites.invited), self.aggregation.groups)
        elif self.aggregation.robust != "none" and self.privacy.mode not in {"local", "none"}:
            raise ValueError(
                f"in mode '{self.privacy.mode}' only a sum is seen, which '"
                f"{self.aggregation.robust}' has nothing to compare with: set aggregation.groups "
                "to 3 or more, or robust to none"
            )
        return self

    @model_validator(mode="after")
    def _one_mean(self) -> "StudyPlan":
        if self.training.mechanism != "mean_vector":
            return self
        if self.privacy.sampling_rate != 1:
            raise ValueError("'mean_vector' uses everybody: set sampling_rate to 1")
        if self.model.family != "logistic_regression":
            raise ValueError("'mean_vector' makes a logistic regression: set model.family to it")
        return self

    @model_validator(mode="after")
    def _population_is_whole(self) -> "StudyPlan":
        for fault in _population_faults(self):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _family_fits_the_endpoint(self) -> "StudyPlan":
        learned = FAMILY_ENDPOINTS.get(self.model.family)
        kind = self.endpoint.kind
        if learned is not None and kind not in learned:
            fitting = [name for name, kinds in FAMILY_ENDPOINTS.items() if kind in kinds]
            raise ValueError(
                f"model family '{self.model.family}' learns an endpoint of kind "
                f"{' or '.join(repr(known) for known in learned)}, not '{kind}': for '{kind}' set "
                f"model.family to {' or '.join(fitting)}, or change endpoint.kind"
            )
        if self.model.family in NEED_SEQUENCE and self.sequence is None:
            raise ValueError(f"model family '{self.model.family}' needs the part 'sequence'")
        if self.sequence is not None and self.model.family in READ_COLUMNS_ALONE:
            raise ValueError(
                f"model family '{self.model.family}' reads no records: leave 'sequence' out"
            )
        if self.model.family == "transformer" and self.model.width % self.model.heads:
            raise ValueError("the heads of a transformer must divide its width")
        noises = (self.privacy.evaluation_noise, self.privacy.vote_noise)
        if kind in NOT_VOTED_ON and noises != (None, None):
            raise ValueError(
                f"an endpoint of kind '{kind}' has no risks to put in a table or to vote on: leave "
                "evaluation_noise and vote_noise out"
            )
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


def _population_faults(plan: StudyPlan) -> Iterator[str]:
    """What does not fit together in a plan about a population; nothing for one that is fine."""
    marks = {
        f"question 'population' (it is '{plan.question}')": plan.question == "population",
        "the part 'population'": plan.population is not None,
        f"mechanism '{MECHANISM}'": plan.training.mechanism == MECHANISM,
        f"model family '{FAMILY}'": plan.model.family == FAMILY,
    }
    if not any(marks.values()):
        return
    missing = [name for name, there in marks.items() if not there]
    if missing:
        yield f"a population study has all of {', '.join(marks)}; missing: {', '.join(missing)}"
    if plan.population is None:
        return
    unknown = sorted(set(plan.population.coefficients) - set(plan.contract.columns))
    if unknown:
        yield (
            f"population.coefficients names {', '.join(unknown)}; the columns are "
            f"{', '.join(plan.contract.columns)}"
        )
    if plan.privacy.sampling_rate != 1:
        yield "'moments' uses everybody: set sampling_rate to 1"
    if (plan.model.l2, plan.model.initial_intercept) != (0, 0):
        yield (
            "'moments' needs no penalty and no first intercept, which population.coefficients and "
            "intercept say: leave model.l2 and model.initial_intercept out"
        )


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
