"""What can be predicted of a patient, by the names that cards give to outputs."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.pharmacology import saturable
from fedtwin_twins.pharmacology.cell_maturation import cells
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.pharmacology.effects import glucose_change, inr, systolic_pressure
from fedtwin_twins.pharmacology.glucose_insulin import glucose, insulin

Response = Callable[[Course, Tensor], Tensor]
"""(patients, times) of an output in its own unit, from a course and hours."""

_STEP_H: Final = 0.25
_LONG_STEP_H: Final = 1.0
_LONG_H: Final = 6 * 7 * 24.0


def concentration(course: Course, times: Tensor) -> Tensor:
    """In the central compartment, amount/L."""
    if saturable.saturates(course):
        return saturable.concentrations(course, times)
    return course.kinetics.concentrations(course.doses, times)


RESPONSES: Final[Mapping[str, Response]] = MappingProxyType(
    {
        "concentration": concentration,
        "inr": inr,
        "glucose_change": glucose_change,
        "systolic_pressure": systolic_pressure,
        "cells": cells,
        "glucose": glucose,
        "insulin": insulin,
    }
)


def area(output: str, course: Course, times: Tensor) -> Tensor:
    """Under an output, from hour 0 to each time, (patients, times), in its unit x h.

    Exact for concentrations, stepped along where elimination saturates; for others by Simpson's
    rule over steps of at most a quarter of an hour (an hour beyond six weeks). Negative before hour
    0.
    """
    if output == "concentration" and saturable.saturates(course):
        return saturable.areas(course, times)
    if output == "concentration":
        return course.kinetics.areas(course.doses, times)
    asked = torch.cat([torch.zeros_like(times[:, :1]), times], dim=1)
    found = _integral(RESPONSES[output], course, asked)
    return found[:, 1:] - found[:, :1]


def _integral(response: Response, course: Course, times: Tensor) -> Tensor:
    """From the earliest time of all to each: whole panels, and what is left of the last one."""
    first, last = float(times.detach().min()), float(times.detach().max())
    step = _STEP_H if last - first <= _LONG_H else _LONG_STEP_H
    panels = max(1, math.ceil((last - first) / step))
    width = max(last - first, _STEP_H) / panels
    grid = first + 0.5 * width * torch.arange(2 * panels + 1, dtype=times.dtype)
    grid = grid.to(times.device).expand(times.shape[0], -1)
    place = ((times.detach() - first) / width).floor().clamp(0, panels - 1)
    edge = first + place * width
    count = times.shape[1]
    values = response(course, torch.cat([grid, (edge + times) / 2.0, times], dim=1))
    whole, middle, end = values[:, : -2 * count], values[:, -2 * count : -count], values[:, -count:]
    parts = (whole[:, :-2:2] + 4.0 * whole[:, 1::2] + whole[:, 2::2]) * width / 6.0
    before = torch.cat([torch.zeros_like(parts[:, :1]), parts.cumsum(dim=1)], dim=1)
    start = whole[:, ::2].gather(1, place.long())
    left = (start + 4.0 * middle + end) * (times - edge) / 6.0
    return before.gather(1, place.long()) + left
