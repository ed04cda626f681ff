"""The parts of a plan that say which patients, and what is predicted of them."""

from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AwareDatetime, Field, model_validator

from fedtwin_protocol.contract import Code, Part
from fedtwin_protocol.transforms import Transform, backward

LARGEST_VALUE: Final = 5.0
"""Bound of a scaled value, either way."""
MOST_EVENTS: Final = 100
"""Of a count, where the plan names no other bound."""
EndpointKind = Literal["event", "value_above", "time_to_event", "value", "count"]


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
            `time_to_event`: when the first event with one of the codes within the horizon comes;
            a patient whose record ends earlier, or who dies, counts until then;
            `value`: the first such value within the horizon, less `center`, over `scale`, clipped
            to 5 either way, and a patient without one is left out;
            `count`: how many such events fall within the horizon, at most `most`.
        horizon_days: days after the index date.
        threshold: in `unit`; only for `value_above`.
        require_follow_up: leave out a patient whose record ends before the horizon: for `event` one
            without the event, for `count` everyone, because more may have come.
        interval_days: for `time_to_event`, where each interval ends, in days after the index date;
            the last ends at the horizon.
        transform: the scale on which a `value` is learned: `none`, its `square_root` or its
            `logarithm`; a value that has none is left out.
        center: of a `value`, in `unit`, or in units of its root or logarithm.
        scale: of a `value`, like `center`; values beyond `center` ± 5 `scale` count as that bound.
        most: largest `count`; more count as so many.
    """

    name: str = Field(min_length=1, max_length=120)
    kind: EndpointKind
    codes: Annotated[tuple[Code, ...], Field(min_length=1)]
    horizon_days: int = Field(ge=1, le=36525)
    threshold: float | None = None
    unit: str = Field(default="1", max_length=40)
    require_follow_up: bool = True
    interval_days: tuple[Annotated[int, Field(ge=1, le=36525)], ...] = ()
    transform: Transform = Field(default="none", exclude_if=lambda value: value == "none")
    center: float = 0.0
    scale: float = Field(default=1.0, gt=0)
    most: int = Field(default=MOST_EVENTS, ge=1, le=100_000)

    @property
    def binary(self) -> bool:
        """Whether what is learned of a patient is yes or no."""
        return self.kind in {"event", "value_above"}

    @property
    def bounds_in_words(self) -> str:
        """Between which bounds a value or a count is learned; empty for other kinds."""
        if self.kind == "count":
            return f"0 to {self.most}"
        if self.kind != "value":
            return ""
        reach = LARGEST_VALUE * self.scale
        ends = np.array([self.center - reach, self.center + reach])
        low, high = backward(self.transform, ends).tolist()
        return f"{low:g} to {high:g} {self.unit}"

    @model_validator(mode="after")
    def _intervals_end_at_the_horizon(self) -> "Endpoint":
        if (self.kind == "time_to_event") != bool(self.interval_days):
            raise ValueError(
                "'interval_days' belongs to endpoints of kind 'time_to_event', and only there"
            )
        ends = self.interval_days
        if ends and (list(ends) != sorted(set(ends)) or ends[-1] != self.horizon_days):
            raise ValueError(
                f"'interval_days' must rise and end at horizon_days {self.horizon_days}; got {ends}"
            )
        return self

    @model_validator(mode="after")
    def _bounds_where_they_count(self) -> "Endpoint":
        if self.kind != "value" and (self.center, self.scale) != (0.0, 1.0):
            raise ValueError(
                "'center' and 'scale' belong to endpoints of kind 'value', and only there; this "
                f"one is of kind '{self.kind}'"
            )
        if self.kind != "value" and self.transform != "none":
            raise ValueError(
                "'transform' belongs to endpoints of kind 'value', and only there; this one is of "
                f"kind '{self.kind}'"
            )
        if self.kind != "count" and self.most != MOST_EVENTS:
            raise ValueError(
                "'most' belongs to endpoints of kind 'count', and only there; this one is of kind "
                f"'{self.kind}'"
            )
        return self

    @model_validator(mode="after")
    def _threshold_where_needed(self) -> "Endpoint":
        if (self.kind == "value_above") != (self.threshold is not None):
            raise ValueError(
                "'threshold' belongs to endpoints of kind 'value_above', and only there"
            )
        return self
