"""The model card: what a released model is, what it was learned from, and what it must not do.

Rules:
1. Every number in the card comes from the signed plan, or from what sites reported with noise; the
   card never needs a site's records.
2. A count below the plan's smallest cell is not shown; the card says so in its place.
3. A metric says how it was bought: from how many held-out patients, with how much noise.
4. A site's own calibration appears only where the plan allows it (`evaluation.per_site`).
5. Privacy audits stand in it with their thresholds; a card without any says so.
6. Rounds that were thrown away are told with the reason; their cost in privacy counts.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.card_audits import Audit
from fedtwin_protocol.contract import Feature, Part
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study import StudyPlan

Line = Annotated[str, Field(max_length=2000)]


class SiteFacts(Part):
    """One site that contributed.

    Attributes:
        name: the site's name.
        patients: the noised count it reported, rounded; none where it is below the smallest cell,
            or where only the sum over all sites is known.
        rounds: rounds in which its update was used.
    """

    name: str = Field(max_length=120)
    patients: int | None
    rounds: int = Field(ge=0)


class Mechanism(Part):
    """How privacy was bought; sd and norms as in the plan.

    Attributes:
        mode: the plan's privacy mode.
        clipping_norm: bound on one patient's contribution to a sum.
        noise_multiplier: noise sd in a sum, as a multiple of the clipping norm.
        sampling_rate: chance that a patient takes part in a step.
        steps: noised steps that were taken, at most, by any site.
        epsilon: stated for every patient over everything that left a site in this study.
        delta: the other half of the statement.
        accountant: who computed epsilon, and how.
        protects_against: the guarantee in words.
        ledger: where what was spent is written down.
    """

    mode: Literal["secure", "local", "none"]
    clipping_norm: float
    noise_multiplier: float
    sampling_rate: float
    steps: int = Field(ge=0)
    epsilon: float
    delta: float
    accountant: Line
    protects_against: Line
    ledger: Line


class Metric(Part):
    """One figure of the model's quality, with how it was bought."""

    name: str = Field(max_length=60)
    value: float
    bought: Line


class CalibrationBin(Part):
    """Held-out patients of similar predicted risk.

    Attributes:
        predicted: middle of the bin of predicted risk.
        observed: noised share with the outcome, between 0 and 1.
        patients: noised count, at least the smallest cell.
    """

    predicted: float = Field(ge=0, le=1)
    observed: float = Field(ge=0, le=1)
    patients: int = Field(ge=0)


class Calibration(Part):
    """Predicted against observed risk, for all sites together or for one.

    Attributes:
        scope: `all sites`, or a site's name.
        noise_sd: noise sd of each cell behind the bins.
        bins: in order of predicted risk; bins below the smallest cell are left out.
        left_out: how many bins were left out so.
    """

    scope: str = Field(max_length=120)
    noise_sd: float = Field(ge=0)
    bins: tuple[CalibrationBin, ...]
    left_out: int = Field(ge=0)


class ModelCard(Part):
    """What a release says about itself; `release.verify_release` holds it against the plan."""

    format: Literal["fedtwin-card-1"] = "fedtwin-card-1"
    study: str = Field(max_length=80)
    version: int = Field(ge=1)
    consortium: str = Field(max_length=80)
    plan_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    title: Line
    question: str = Field(max_length=40)
    purpose: Line
    endpoint: Line
    population: Line
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    model: Line
    sites: tuple[SiteFacts, ...]
    patients: int | None = None
    rounds: int = Field(ge=0)
    rounds_gone_wrong: tuple[Line, ...] = ()
    privacy: Mechanism
    metrics: tuple[Metric, ...]
    calibration: tuple[Calibration, ...]
    recalibration: Line
    limits: tuple[Line, ...]
    software: dict[str, str]
    created: AwareDatetime
    audits: tuple[Audit, ...] = ()

    def to_bytes(self) -> bytes:
        """Canonical JSON: the content of card.json."""
        return canonical_bytes(self.model_dump(mode="json"))


def card_from_bytes(data: bytes) -> ModelCard:
    """Read a card.

    Raises:
        ReleaseError: not JSON, or a field is missing, unknown or wrong (named in the text).
    """
    try:
        return ModelCard.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ReleaseError(f"card.json is not a model card: {place}: {first['msg']}") from error


def check_card(card: ModelCard, plan: StudyPlan) -> None:
    """Hold a card against the plan it speaks of.

    Raises:
        ReleaseError: a field says something else than the plan; names the field and both values.
    """
    privacy, stated = plan.privacy, card.privacy
    for name, said, planned in (
        ("study", card.study, plan.study),
        ("version", card.version, plan.version),
        ("consortium", card.consortium, plan.consortium),
        ("plan_hash", card.plan_hash, plan.hash),
        ("question", card.question, plan.question),
        ("privacy.mode", stated.mode, privacy.mode),
        ("privacy.epsilon", stated.epsilon, privacy.epsilon),
        ("privacy.delta", stated.delta, privacy.delta),
        ("privacy.clipping_norm", stated.clipping_norm, privacy.clipping_norm),
        ("privacy.noise_multiplier", stated.noise_multiplier, privacy.noise_multiplier),
        ("privacy.sampling_rate", stated.sampling_rate, privacy.sampling_rate),
        ("columns", card.columns, plan.contract.columns),
    ):
        if said != planned:
            raise ReleaseError(f"the card's {name} says {said!r}, the signed plan {planned!r}")
    if card.features != plan.features:
        raise ReleaseError("the card's feature contract is not the signed plan's")
    if card.rounds > plan.training.rounds or stated.steps > plan.steps:
        raise ReleaseError(
            f"the card tells of {card.rounds} rounds and {stated.steps} steps; the plan allows "
            f"{plan.training.rounds} and {plan.steps}"
        )
