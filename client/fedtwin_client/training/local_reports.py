"""A model tried on the site's own held-out patients, before and after local recalibration.

Recalibration is fitted to the training patients alone. Nothing of it leaves the site.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fedtwin_client.training.noise import Floats
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.families import RecordRows, predicted, scores_of
from fedtwin_twins.risk import logistic, quality, recalibrate
from fedtwin_twins.survival import concordance, known_at_horizon

Report = dict[str, Any]


def scores_for(plan: StudyPlan, parameters: Mapping[str, Array], rows: TrainingRows) -> Floats:
    """The model's scores: log-odds of the endpoint, or the linear predictor, (patients,)."""
    records = rows.sequences
    return scores_of(
        plan.model.family,
        parameters,
        rows.features,
        None if records is None else RecordRows(codes=records.codes, numbers=records.numbers),
        plan.model.heads,
    )


def local_report(
    plan: StudyPlan, parameters: Mapping[str, Array], training: TrainingRows, held_out: TrainingRows
) -> Report:
    """The report of one model at this site."""
    report: Report = {
        "study": plan.study,
        "training_patients": len(training),
        "held_out_patients": len(held_out),
    }
    fit, tried = (scores_for(plan, parameters, rows) for rows in (training, held_out))
    if plan.endpoint.kind in {"value", "count"}:
        fit, tried = predicted(plan.model.family, fit), predicted(plan.model.family, tried)
        return report | _of_values(fit, tried, training.outcomes, held_out.outcomes)
    if plan.endpoint.kind == "time_to_event":
        return report | _of_times(plan, fit, tried, training, held_out)
    local = recalibrate(fit, training.outcomes)
    return report | {
        "before": asdict(quality(logistic(tried), held_out.outcomes)),
        "after": asdict(quality(local.apply(tried), held_out.outcomes)),
        "recalibration": asdict(local),
    }


def _of_times(
    plan: StudyPlan, fit: Floats, tried: Floats, training: TrainingRows, held_out: TrainingRows
) -> Report:
    """Concordance over everybody; the other figures at the horizon, of those known there."""
    assert training.days is not None
    assert held_out.days is not None
    horizon = plan.endpoint.horizon_days
    known = known_at_horizon(training.days, training.outcomes, horizon)
    local = recalibrate(fit[known], training.outcomes[known])
    seen = known_at_horizon(held_out.days, held_out.outcomes, horizon)
    found = concordance(tried, held_out.days, held_out.outcomes)
    order = {"concordance": found if np.isfinite(found) else None}
    before = quality(logistic(tried[seen]), held_out.outcomes[seen])
    after = quality(local.apply(tried[seen]), held_out.outcomes[seen])
    return {
        "before": order | asdict(before),
        "after": order | asdict(after),
        "recalibration": asdict(local),
    }


def _of_values(fit: Floats, tried: Floats, training: Floats, held_out: Floats) -> Report:
    """Errors of predicted values or counts; recalibration is the least-squares line."""
    spread = float(np.var(fit)) if len(fit) else 0.0
    slope = float(np.cov(fit, training, bias=True)[0, 1]) / spread if spread > 0 else 1.0
    intercept = float(training.mean() - slope * fit.mean()) if len(fit) else 0.0
    return {
        "before": _errors(tried, held_out),
        "after": _errors(slope * tried + intercept, held_out),
        "recalibration": {"slope": slope, "intercept": intercept},
    }


def _errors(means: Floats, outcomes: Floats) -> Report:
    """Mean absolute error, and the share of the variance that is explained."""
    variance = float(np.var(outcomes)) if len(outcomes) else 0.0
    explained = 1 - float(np.mean((outcomes - means) ** 2)) / variance if variance > 0 else None
    return {
        "patients": len(outcomes),
        "mean_absolute_error": float(np.mean(np.abs(outcomes - means))) if len(outcomes) else None,
        "explained": explained,
    }
