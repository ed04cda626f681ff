"""The parts of a plan that say which patients, and what is predicted of them."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from fedtwin_protocol.contract import Code, Part


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
