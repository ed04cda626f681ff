"""A model tried on the site's own held-out patients, before and after local recalibration.

Beside it stands what a prediction without a model is worth: every patient gets the mean of the
site's training patients. Recalibration and that mean come from the training patients alone; the
figures are those of the held-out ones. Nothing of it leaves the site.

Values are given in the endpoint's unit; like what was learned, those beyond the plan's bounds count
as the nearest bound.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fedtwin_client.training.noise import Floats
from fedtwin_client.training.population import values_of
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_population import FAMILY as POPULATION
from fedtwin_protocol.transforms import backward
from fedtwin_twins.families import RecordRows, predicted, scores_of
from fedtwin_twins.population.site_values import site_values
from fedtwin_twins.regression import (
    count_quality,
    recalibrate_counts,
    recalibrate_values,
    value_quality,
)
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
    """The report of one model at this site.

    Returns:
        `study`, `kind` and `unit` of the endpoint, `training_patients`, `held_out_patients`,
        `before`, `after` and `no_model` (the same figures each), and `recalibration` (slope and
        intercept: of log-odds, of values in the endpoint's unit, or of the logarithm of counts).
        Of a population study `site_shift` instead: on the scale of the endpoint's transform, this
        site's shift with its sd, and the sd between sites and between patients.
    """
    report: Report = {
        "study": plan.study,
        "kind": plan.endpoint.kind,
        "unit": plan.endpoint.unit if plan.endpoint.kind == "value" else "",
        "training_patients": len(training),
        "held_out_patients": len(held_out),
    }
    if plan.model.family == POPULATION:
        return report | _of_population(plan, parameters, training, held_out)
    fit, tried = (scores_for(plan, parameters, rows) for rows in (training, held_out))
    if plan.endpoint.kind == "value":
        return report | _of_values(plan, fit, tried, training.outcomes, held_out.outcomes)
    if plan.endpoint.kind == "count":
        return report | _of_counts(plan, fit, tried, training.outcomes, held_out.outcomes)
    if plan.endpoint.kind == "time_to_event":
        return report | _of_times(plan, fit, tried, training, held_out)
    return report | _of_risks(fit, tried, training.outcomes, held_out.outcomes)


def _of_risks(fit: Floats, tried: Floats, training: Floats, held_out: Floats) -> Report:
    local = recalibrate(fit, training)
    return {
        "before": asdict(quality(logistic(tried), held_out)),
        "after": asdict(quality(local.apply(tried), held_out)),
        "no_model": asdict(quality(_everybody(training, 0.5, held_out), held_out)),
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
    seen = known_at_horizon(held_out.days, held_out.outcomes, horizon)
    found = _of_risks(fit[known], tried[seen], training.outcomes[known], held_out.outcomes[seen])
    ordered = {"before": tried, "after": tried, "no_model": np.zeros_like(tried)}
    for when, scores in ordered.items():
        share = concordance(scores, held_out.days, held_out.outcomes)
        found[when] = {"concordance": share if np.isfinite(share) else None} | found[when]
    return found


def _of_values(
    plan: StudyPlan, fit: Floats, tried: Floats, training: Floats, held_out: Floats
) -> Report:
    family = plan.model.family

    fit, tried = (in_unit(plan, predicted(family, scores)) for scores in (fit, tried))
    training, held_out = in_unit(plan, training), in_unit(plan, held_out)
    local = recalibrate_values(fit, training)
    mean = float(training.mean()) if len(training) else float("nan")
    after = local.slope * tried + local.intercept
    return {
        "before": asdict(value_quality(tried, held_out, mean)),
        "after": asdict(value_quality(after, held_out, mean)),
        "no_model": asdict(value_quality(np.full(len(held_out), mean), held_out, mean)),
        "recalibration": asdict(local),
    }


def in_unit(plan: StudyPlan, scaled: Floats) -> Floats:
    """Values in the endpoint's unit of what is learned of them, (patients,)."""
    endpoint = plan.endpoint
    return backward(endpoint.transform, scaled * endpoint.scale + endpoint.center)


def _of_population(
    plan: StudyPlan, parameters: Mapping[str, Array], training: TrainingRows, held_out: TrainingRows
) -> Report:
    """Medians of a typical site before, of this site after; its shift is on the learned scale."""
    values = values_of(plan, parameters)
    own = site_values(values, training.features, training.outcomes)
    seen, alone = (in_unit(plan, rows.outcomes) for rows in (held_out, training))
    mean = float(alone.mean()) if len(alone) else float("nan")
    foretold = {
        "before": in_unit(plan, values.expected(held_out.features)),
        "after": in_unit(plan, own.expected(held_out.features)),
        "no_model": np.full(len(seen), mean),
    }
    figures = {name: asdict(value_quality(one, seen, mean)) for name, one in foretold.items()}
    scale = plan.endpoint.scale
    return {
        **figures,
        "site_shift": {
            "scale": plan.endpoint.transform,
            "mean": own.shift * scale,
            "sd": own.shift_sd * scale,
            "sd_between_sites": float(np.sqrt(values.site_variance)) * scale,
            "sd_between_patients": float(np.sqrt(values.residual_variance)) * scale,
        },
    }


def _of_counts(
    plan: StudyPlan, fit: Floats, tried: Floats, training: Floats, held_out: Floats
) -> Report:
    family = plan.model.family
    local = recalibrate_counts(fit, training)
    mean = float(training.mean()) if len(training) else float("nan")
    after = predicted(family, local.slope * tried + local.intercept)
    return {
        "before": asdict(count_quality(predicted(family, tried), held_out, mean)),
        "after": asdict(count_quality(after, held_out, mean)),
        "no_model": asdict(count_quality(np.full(len(held_out), mean), held_out, mean)),
        "recalibration": asdict(local),
    }


def _everybody(training: Floats, otherwise: float, held_out: Floats) -> Floats:
    """The training patients' mean for each held-out patient."""
    return np.full(len(held_out), float(training.mean()) if len(training) else otherwise)
