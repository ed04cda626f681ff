"""Patients as clinicians describe them → the padded tensors that equations see.

Everything that is wrong with any of the patients is found at once and refused together; what a
reader must only know travels beside the tables, patient by patient.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Batch, Doses, Observed, Traits
from fedtwin_twins.twin.covariate_rows import (
    Known,
    Recorded,
    covariate_steps,
    needed,
    outside_of_derived,
)
from fedtwin_twins.twin.covariates import traits_of
from fedtwin_twins.twin.dose_rows import DoseRow, dose_rows
from fedtwin_twins.twin.intake import Intake
from fedtwin_twins.twin.moments import Clock, Moment
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.observation_rows import ObservationRow, observation_rows
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any
from fedtwin_twins.twin.schedule import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """One patient, as described.

    Attributes:
        name: what problems call the patient; a pseudonym, or empty.
        origin: hour 0; needed where any time is a datetime.
        schedule: what is done.
        observations: what was measured, in any order.
        covariates: by name: a constant, or records over time.
        occasions: when each later dosing occasion begins; empty: the model's own rule.
    """

    name: str = ""
    origin: datetime | None = None
    schedule: Schedule = field(default_factory=Schedule)
    observations: Sequence[Observation] = ()
    covariates: Mapping[str, Recorded] = field(default_factory=dict)
    occasions: Sequence[Moment] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Patients as tensors.

    Attributes:
        batch: doses and traits.
        observed: measurements.
        cautions: for each patient, what must be shown beside any result.
    """

    batch: Batch
    observed: Observed
    cautions: tuple[tuple[Problem, ...], ...]


@dataclass(slots=True)
class _Rows:
    doses: list[DoseRow]
    observations: list[ObservationRow]
    known: Known
    occasions: list[float]


def tabulate(patients: Sequence[Patient], intake: Intake) -> Tables:
    """Tensors of patients, for a model.

    Args:
        patients: at least one.
        intake: of the model: `CardModel.intake`, or `intake_of(model)`.

    Raises:
        Refusal: with every problem of every patient.
    """
    if not patients:
        raise Refusal(Problem(field="patients", value="none", allowed="at least one"))
    rows = [_rows(one, intake, _prefix(one, place, patients)) for place, one in enumerate(patients)]
    refuse_if_any(problem for one in rows for problem in one.known.problems)
    names = {name: None for one in rows for name in one.known.steps}
    traits = traits_of(
        [_same_names(one.known, names) for one in rows], [one.occasions for one in rows]
    )
    traits = _with_derived(traits, patients, rows, intake)
    batch = Batch(doses=_doses([one.doses for one in rows]), traits=traits)
    if intake.steady_state is not None:
        refuse_if_any(
            replace(problem, field=f"{_prefix(patients[place], place, patients)}{problem.field}")
            for place, problem in intake.steady_state(batch)
        )
    return Tables(
        batch=batch,
        observed=_observed([one.observations for one in rows]),
        cautions=tuple(tuple(one.known.cautions) for one in rows),
    )


def _prefix(patient: Patient, place: int, patients: Sequence[Patient]) -> str:
    if patient.name:
        return f"{patient.name}: "
    return f"patients[{place}]." if len(patients) > 1 else ""


def _rows(patient: Patient, intake: Intake, prefix: str) -> _Rows:
    try:
        clock = Clock(patient.origin)
    except Refusal as refusal:
        known = Known(problems=list(refusal.problems))
        return _Rows(doses=[], observations=[], known=known, occasions=[])
    doses, problems = dose_rows(patient.schedule, intake.routes, clock, f"{prefix}doses")
    first = min((dose.hour for dose in doses), default=None)
    known = covariate_steps(patient.covariates, intake, clock, prefix)
    # At steady state the interval before the first dose that is written is known as well.
    seen = min((dose.hour - dose.interval_h for dose in doses), default=None)
    found = observation_rows(
        patient.observations, intake.observables, clock, seen, f"{prefix}observations"
    )
    occasions: list[float] = []
    for place, moment in enumerate(patient.occasions):
        try:
            occasions.append(clock.hours(moment, f"{prefix}occasions[{place}]"))
        except Refusal as refusal:
            problems.extend(refusal.problems)
    if not patient.occasions and first is not None:
        occasions = [first + hours for hours in intake.occasion_hours]
    known.problems = [*problems, *known.problems, *found.problems]
    known.cautions.extend(found.cautions)
    return _Rows(doses=doses, observations=found.rows, known=known, occasions=sorted(occasions))


def _same_names(known: Known, names: Mapping[str, None]) -> dict[str, list[tuple[float, float]]]:
    return {name: known.steps.get(name, [(-math.inf, math.nan)]) for name in names}


def _with_derived(
    traits: Traits, patients: Sequence[Patient], rows: Sequence[_Rows], intake: Intake
) -> Traits:
    """The traits with every derived covariate that is used, given or computed."""
    values = dict(traits.values)
    problems: list[Problem] = []
    for derived in intake.derived:
        name = derived.range.name
        asked = [
            name in needed(intake, one.covariates) and name not in one.covariates
            for one in patients
        ]
        if not any(name in needed(intake, one.covariates) for one in patients):
            continue
        unknown = torch.full_like(traits.starts, math.nan)
        values[name] = values.get(name, unknown).clone()
        rows_asked = torch.tensor(asked)
        if any(asked):
            inputs = {one: values.get(one, unknown)[rows_asked] for one in derived.inputs}
            values[name][rows_asked] = derived.compute(inputs)
        for place, row in enumerate(rows):
            if asked[place]:
                spans = values[name][place][traits.starts[place] < math.inf].tolist()
                prefix = _prefix(patients[place], place, patients)
                refused, cautions = outside_of_derived(spans, derived, prefix)
                problems.extend(refused)
                row.known.cautions.extend(cautions)
    refuse_if_any(problems)
    return Traits(values=values, starts=traits.starts, occasions=traits.occasions)


def _padded(rows: Sequence[Sequence[float]], empty: float) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    full = [[*row, *([empty] * (width - len(row)))] for row in rows]
    return torch.tensor(full, dtype=torch.float64).reshape(len(rows), width)


def _doses(rows: Sequence[Sequence[DoseRow]]) -> Doses:
    return Doses(
        time=_padded([[one.hour for one in row] for row in rows], math.inf),
        amount=_padded([[one.amount for one in row] for row in rows], 0.0),
        duration=_padded([[one.duration_h for one in row] for row in rows], 0.0),
        route=_padded([[one.route for one in row] for row in rows], 0.0).long(),
        interval=_padded([[one.interval_h for one in row] for row in rows], 0.0),
    )


def _observed(rows: Sequence[Sequence[ObservationRow]]) -> Observed:
    return Observed(
        time=_padded([[one.hour for one in row] for row in rows], 0.0),
        value=_padded([[one.value for one in row] for row in rows], 0.0),
        kind=_padded([[one.kind for one in row] for row in rows], 0.0).long(),
        present=_padded([[1.0 for _ in row] for row in rows], 0.0).bool(),
        below=_padded([[float(one.below) for one in row] for row in rows], 0.0).bool(),
    )
