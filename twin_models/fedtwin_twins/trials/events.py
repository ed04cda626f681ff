"""Adverse events of a trial: the chance that follows from exposure or genes, as studies found it.

The models are those of `pharmacology.adverse_event_models`; here they are asked for many patients
at once, by their true exposure. Whether a patient has the event is drawn with that chance.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch

from fedtwin_twins.pharmacology.adverse_event_models import ADVERSE_EVENTS
from fedtwin_twins.pharmacology.adverse_events import AdverseEventModel
from fedtwin_twins.trials.course import Course, Group
from fedtwin_twins.trials.streams import Floats
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

_FIRST_DAY: Final = "area under the curve of the first 24 h"
_ALLELES: Final = {
    "SLCO1B1 c.521C alleles": ("SLCO1B1", "*5"),
    "SLCO1B1 *5 alleles": ("SLCO1B1", "*5"),
}


def _usable(model: AdverseEventModel) -> bool:
    return model.metric in (_FIRST_DAY, *_ALLELES) and bool(model.rates)


EVENTS: Final[Mapping[str, AdverseEventModel]] = {
    name: model for name, model in ADVERSE_EVENTS.items() if _usable(model)
}
"""Those that a trial can ask for, by name."""


def drug_of(event: str) -> str | None:
    """The drug whose levels lead to an event; none if it follows from genes."""
    model = EVENTS[event]
    return None if model.metric in _ALLELES else model.drug


def chance_of(event: str, course: Course, group: Group) -> Floats:
    """The chance of an event for each patient, (patients,).

    Raises:
        Refusal: it depends on a gene that the population does not have.
    """
    model = EVENTS[event]
    if model.metric in _ALLELES:
        exposure = _alleles(event, model.metric, group)
    else:
        exposure = _first_day(course, group, model.unit)
    if model.function == "threshold":
        # The model knows two rates only: one exposure stands for all on its side.
        exposure = np.where(exposure > model.window[1], 2 * model.window[1], 0.0)
    values, places = np.unique(exposure, return_inverse=True)
    risks = np.array([model.risk(float(value)).risk for value in values])
    return np.asarray(risks[places], dtype=np.float64)


def _first_day(course: Course, group: Group, unit: str) -> Floats:
    measured = Quantity(1.0, f"{group.truth.model.observables[0].unit}.h")
    with torch.no_grad():
        end = torch.full((course.batch.patients, 1), 24.0, dtype=torch.float64)
        found = group.truth.model.exposure(course.batch, group.truth.effects, end)
    scale = measured.to(unit, field="area of the first day")
    return np.asarray(found[:, 0].numpy() * scale, dtype=np.float64)


def _alleles(event: str, metric: str, group: Group) -> Floats:
    gene, allele = _ALLELES[metric]
    found = group.patients.genotypes.get(gene)
    if found is None:
        raise Refusal(Problem(field=f"event {event}", remedy=f"add {gene} to population.genes"))
    return found.count(allele).astype(np.float64)
