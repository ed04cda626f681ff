"""Endpoints: what a trial asks of each patient, from the true course and not from its measurements.

What dropping out means is part of the question (ICH E9(R1), intercurrent events): a failure
(composite strategy), or no outcome, so that the answer is about those who stay.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from fedtwin_twins.trials.arms import Name, Positive
from fedtwin_twins.trials.course import Course, Group
from fedtwin_twins.trials.dosing import measure
from fedtwin_twins.trials.drug import as_tensor
from fedtwin_twins.trials.events import EVENTS, chance_of
from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.streams import Floats

_SHARES: Final = frozenset({"trough_in_window", "auc24_in_window", "event"})


class Endpoint(Part):
    """One question."""

    name: Name
    label: Annotated[str, Field(min_length=1, description="for people")]
    kind: Literal[
        "trough",
        "auc24",
        "trough_in_window",
        "auc24_in_window",
        "time_in_window",
        "event",
    ]
    unit: Annotated[str, Field(description="UCUM; '1' for shares")] = "1"
    day: Annotated[float, Field(gt=0, description="at the end of which it is asked")]
    low: Annotated[float | None, Field(description="of the window, in the level's unit")] = None
    high: float | None = None
    from_day: Annotated[float, Field(ge=0, description="for time_in_window")] = 0.0
    step_h: Annotated[Positive, Field(description="for time_in_window: between points of time")] = (
        1.0
    )
    event: Annotated[str | None, Field(description="for event: which adverse event")] = None
    dropouts: Annotated[
        Literal["failure", "left_out"],
        Field(description="who left before: counted as not reached, or without an outcome"),
    ] = "left_out"

    @model_validator(mode="after")
    def _whole(self) -> "Endpoint":
        windowed = self.kind.endswith("_in_window")
        if windowed and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError(f"endpoint {self.name}: expected low below high")
        if (self.kind == "event") != (self.event is not None):
            raise ValueError(f"endpoint {self.name}: expected an event for kind event, and only so")
        if self.event is not None and self.event not in EVENTS:
            known = ", ".join(EVENTS)
            raise ValueError(f"endpoint {self.name}: there is no event {self.event}: {known}")
        if self.kind == "time_in_window" and self.from_day >= self.day:
            raise ValueError(f"endpoint {self.name}: expected from_day before day")
        if self.dropouts == "failure" and not windowed:
            raise ValueError(f"endpoint {self.name}: dropouts fail only where a window is reached")
        return self

    @property
    def is_share(self) -> bool:
        """Whether each patient's outcome is yes or no."""
        return self.kind in _SHARES


def outcomes(
    endpoint: Endpoint, course: Course, group: Group, uniforms: Mapping[str, Floats]
) -> Floats:
    """Of each patient, (patients,); NaN where there is none.

    Args:
        endpoint: the question.
        course: of an arm.
        group: who is in it.
        uniforms: chance of each event by endpoint, (patients,).
    """
    found = _true(endpoint, course, group, uniforms.get(endpoint.name))
    gone = group.leaves_day < endpoint.day
    return np.where(gone, 0.0 if endpoint.dropouts == "failure" else np.nan, found)


def _true(endpoint: Endpoint, course: Course, group: Group, uniform: Floats | None) -> Floats:
    model, effects = group.truth.model, group.truth.effects
    end = endpoint.day * 24.0
    if endpoint.event is not None:
        assert uniform is not None
        return (uniform < chance_of(endpoint.event, course, group)).astype(np.float64)
    if endpoint.kind == "time_in_window":
        hours = np.arange(endpoint.from_day * 24.0, end + 1e-9, endpoint.step_h)
        with torch.no_grad():
            times = as_tensor(hours).repeat(course.batch.patients, 1)
            levels = model.predict(course.batch, effects, times).numpy()
        return np.asarray(_within(endpoint, levels).mean(axis=1), dtype=np.float64)
    kind = "trough" if endpoint.kind.startswith("trough") else "auc24"
    value = measure(model, course.batch, effects, end, kind)
    return _within(endpoint, value) if endpoint.kind.endswith("_in_window") else value


def _within(endpoint: Endpoint, values: Floats) -> Floats:
    low, high = float(endpoint.low or 0.0), float(endpoint.high or 0.0)
    return ((values >= low) & (values <= high)).astype(np.float64)
