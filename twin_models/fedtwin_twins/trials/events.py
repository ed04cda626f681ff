"""Adverse events of a trial: the chance that follows from what a patient was exposed to."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from fedtwin_twins.trials.course import Course, Group
from fedtwin_twins.trials.dosing import measure
from fedtwin_twins.trials.streams import Floats

_AKI_THRESHOLD: Final = 563.0
_AKI_ABOVE: Final = 0.40
_AKI_BELOW: Final = 0.112


def _vancomycin_kidney_injury(course: Course, group: Group, end_h: float) -> Floats:
    """By the highest AUC over 24 h so far: 40 % above 563 mg.h/L, 11.2 % below.

    Chavada et al. 2017, Antimicrob Agents Chemother: 8 of 20 against 12 of 107 patients.
    """
    highest = np.zeros(course.batch.patients)
    for hour in np.arange(24.0, end_h + 1e-9, 24.0):
        area = measure(group.truth.model, course.batch, group.truth.effects, hour, "auc24")
        highest = np.maximum(highest, area)
    return np.where(highest > _AKI_THRESHOLD, _AKI_ABOVE, _AKI_BELOW)


EVENTS: Final[Mapping[str, Callable[[Course, Group, float], Floats]]] = {
    "vancomycin_kidney_injury": _vancomycin_kidney_injury
}
"""What there is, by name."""


def chance_of(event: str, course: Course, group: Group, end_h: float) -> Floats:
    """The chance of an event until an hour, (patients,)."""
    return EVENTS[event](course, group, end_h)
