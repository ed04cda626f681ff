"""The parts of a plan that say how the model is learned and tried."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedtwin_protocol.contract import Part


class Model(Part):
    """The model family, from those installed at the sites; no code travels.

    Attributes:
        family: one of `parameters.BUILT_IN_FAMILIES`, or a name a site's IT has installed.
        hidden: widths of the hidden layers of a network.
        initial_intercept: first value of the intercepts of the linear families, on their own scale:
            of a hazard, a guess at the log-odds of the event in one interval.
        width: of a transformer's layers or of a recurrent network's state.
        layers: of a transformer.
        heads: of a transformer's attention; they divide the width.
        l2: weight of the squared-norm penalty (applied by the coordinator; needs no data).
        seed: of the network's public initial weights.
        initial_sha256: hash of a safetensors file with the initial parameters; needed for
            families that are not built in.
    """

    family: str = Field(default="logistic_regression", pattern=r"^[a-z][a-z0-9_]{1,60}$")
    hidden: tuple[Annotated[int, Field(ge=1, le=10000)], ...] = ()
    l2: float = Field(default=0.0, ge=0, le=10)
    initial_intercept: float = Field(default=0.0, ge=-20, le=20)
    width: int = Field(default=64, ge=1, le=1024)
    layers: int = Field(default=2, ge=1, le=12)
    heads: int = Field(default=4, ge=1, le=64)
    seed: int = Field(default=0, ge=0, lt=2**31)
    initial_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Training(Part):
    """How the model is learned.

    Attributes:
        mechanism: `gradient_sum`: a round is one sum of clipped per-patient gradients over the
            site's cohort, or over patients sampled at `privacy.sampling_rate`; `mean_vector`: the
            one round sums every patient's clipped columns, with the sign of the outcome, and the
            model is `learning_rate` times their mean (recalibrate it locally); `moments`: the one
            round sums bounded second moments of columns and outcome, of which population values
            follow; `local_steps`: a round is `local_steps` clipped, noised gradient steps at the
            site over Poisson-sampled patients, and the site's new parameters travel.
        rounds: number of rounds.
        learning_rate: of the coordinator's step (`gradient_sum`) or the sites' (`local_steps`);
            the stated scale of a `mean_vector`.
        momentum: of the coordinator's step.
        local_steps: steps at a site in a round.
        average_last: the released model is the mean of the last so many rounds' models.
    """

    mechanism: Literal["gradient_sum", "mean_vector", "moments", "local_steps"] = "gradient_sum"
    rounds: int = Field(ge=1, le=100_000)
    learning_rate: float = Field(gt=0, le=1000)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    local_steps: int = Field(default=1, ge=1, le=100_000)
    average_last: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _adds_up(self) -> "Training":
        if self.summed and self.local_steps != 1:
            raise ValueError(f"'{self.mechanism}' has one step a round: set local_steps to 1")
        if self.mechanism == "mean_vector" and (self.rounds, self.momentum) != (1, 0):
            raise ValueError("'mean_vector' is one sum: set rounds to 1 and momentum to 0")
        if self.mechanism == "moments" and (
            self.rounds != 1 or self.momentum != 0 or self.learning_rate != 1
        ):
            raise ValueError(
                "'moments' is one sum and no step: set rounds and learning_rate to 1, momentum to 0"
            )
        if self.average_last > self.rounds:
            raise ValueError(f"average_last {self.average_last} exceeds rounds {self.rounds}")
        return self

    @property
    def summed(self) -> bool:
        """Whether a round is one sum over patients, which the coordinator divides."""
        return self.mechanism != "local_steps"


class Aggregation(Part):
    """How sites' updates become one.

    Attributes:
        rule: `sum` (of clipped sums; divided by the number of patients the sites reported),
            `mean` (of parameters, weighted by reported cohort size), or `flower` (a strategy of
            `flwr.serverapp.strategy` by name).
        strategy: the strategy's class name, for `flower`.
        options: its keyword arguments.
        robust: how sums are put together, for rule `sum`: `none`: added; `trimmed`, `median` or
            `krum` of the means per patient (the coordinator's `robust` module), of sites where each
            site's sum is seen, of groups where only the groups' are.
        groups: number of groups whose sums are made apart, for secure sums; one: everybody's sum.
    """

    rule: Literal["sum", "mean", "flower"] = "sum"
    strategy: str = Field(default="", pattern=r"^[A-Za-z]{0,60}$")
    options: dict[str, float | int | bool | str] = Field(default_factory=dict)
    robust: Literal["none", "trimmed", "median", "krum"] = "none"
    groups: int = Field(default=1, ge=1, le=300)

    @model_validator(mode="after")
    def _strategy_named(self) -> "Aggregation":
        if self.rule != "sum" and (self.robust != "none" or self.groups != 1):
            raise ValueError(
                "'robust' and 'groups' belong to rule 'sum'; for rule 'flower' choose a robust "
                "strategy, such as FedTrimmedAvg, FedMedian or Krum"
            )
        if self.groups > 1 and self.robust == "none":
            raise ValueError(
                "sums in groups are put together robustly, or they only cost noise: set robust to "
                "trimmed, median or krum"
            )
        if (self.rule == "flower") != bool(self.strategy):
            raise ValueError("'strategy' is named for rule 'flower', and only there")
        return self


class Evaluation(Part):
    """The table a site reports of its held-out patients: predicted risk by outcome.

    Attributes:
        bins: number of equal-width bins of predicted risk.
        per_site: whether the model card shows each site's calibration, or only the sum's.
        unjudged: in mode `secure`, whether a model may be released on which no hospital's held-out
            patients have voted; only where hospitals are too small for their votes to be heard.
    """

    bins: int = Field(default=20, ge=2, le=200)
    per_site: bool = False
    unjudged: bool = False
