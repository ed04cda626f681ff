"""An answer as plain values for machines (JSON): numbers with units, nothing rounded."""

from typing import Any

from fedtwin_research.twins.answering import Answer
from fedtwin_research.twins.facts import versions_of
from fedtwin_research.twins.sentences import (
    NOTICE,
    effect_lines,
    interaction_lines,
    recommendation_lines,
)
from fedtwin_twins.advice.assessment import Assessment, Attainment
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.patient_twin import TwinForecast
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem

FORMAT = "fedtwin-twin-answer/1"


def machine_answer(answer: Answer) -> dict[str, Any]:
    """Everything of an answer that another program could want."""
    question = answer.question
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "patient": question.content.name,
        "drug": question.models[0].card.drug.model_dump(),
        "hangs_on": dict(versions_of(answer)),
        "models": [
            {
                "name": one.model,
                "share": one.share,
                "effective_sample_size": one.effective_sample_size,
                "draws": one.draws,
                "misfit_p": one.misfit_p,
            }
            for one in answer.beliefs
        ],
        "parameters": [
            {
                "model": one.model,
                "name": one.name,
                "unit": one.unit,
                "before": dict(zip(("median", "q05", "q95"), one.before, strict=True)),
                "after": dict(zip(("median", "q05", "q95"), one.after, strict=True)),
            }
            for one in answer.parameters
        ],
        "planned": answer.planned,
        "forecast_before": _forecast(answer.before),
        "forecast": _forecast(answer.after),
        "forecast_proposed": None if answer.proposed is None else _forecast(answer.proposed),
        "what_if": {name: _forecast(one) for name, one in answer.what_if.items()},
        "proposal": None if answer.advised is None else _proposal(answer),
        "next_level": None
        if answer.next_level is None
        else {"hour": answer.next_level.hour, "explained": answer.next_level.explained},
        "refusal": [_problem(one) for one in answer.refusal],
        "candidates": [_assessment(answer, one) for one in answer.candidates],
        "genes": {
            "results": {one.gene: one.shown for one in question.beside.results},
            "effects": effect_lines(answer),
            "recommendations": recommendation_lines(answer),
        },
        "other_drugs": interaction_lines(answer),
        "cautions": [_problem(one) for one in answer.cautions],
    }


def _forecast(one: TwinForecast) -> dict[str, Any]:
    return {
        "observable": one.observable,
        "unit": one.unit,
        "hours": one.hours.tolist(),
        "levels": list(one.levels),
        "quantiles": one.quantiles.tolist(),
    }


def _proposal(answer: Answer) -> dict[str, Any]:
    assert answer.advised is not None
    proposal, choice = answer.advised.proposal, answer.advised.choice
    return {
        "regimen": _regimen(proposal.assessment.regimen),
        "reasons": list(proposal.reasons),
        "signed": proposal.is_signed,
        "set_aside": [
            {"regimen": _regimen(one.regimen), "reasons": [_problem(it) for it in one.reasons]}
            for one in choice.set_aside
        ],
        "current": None if choice.current is None else _assessment(answer, choice.current),
    }


def _regimen(one: Regimen) -> dict[str, Any]:
    return {
        "amount": _quantity(one.amount),
        "interval_h": None if one.once else one.interval_h,
        "duration_h": one.duration_h,
        "route": one.route,
        "loading": None if one.loading is None else _quantity(one.loading),
    }


def _quantity(one: Quantity) -> dict[str, Any]:
    return {"value": one.value, "unit": one.unit}


def _assessment(answer: Answer, one: Assessment) -> dict[str, Any]:
    return {
        "regimen": _regimen(one.regimen),
        "all_in_range": one.all_inside,
        "targets": [_attainment(each) for each in one.attainments],
        "risks": [
            {
                "event": it.risk.event,
                "risk": it.risk.risk,
                "low": it.risk.low,
                "high": it.risk.high,
                "interval": it.risk.interval_kind,
                "source": it.risk.source,
                "verified": it.risk.verified,
                "threshold": it.threshold,
                "above_threshold": it.above,
                "differs": it.differs,
            }
            for it in answer.risks.by_regimen.get(str(one.regimen), ())
        ],
    }


def _attainment(one: Attainment) -> dict[str, Any]:
    low, high = one.limits.low, one.limits.high
    return {
        "kind": one.target.kind,
        "observable": one.target.observable,
        "unit": one.limits.unit,
        "low": low if low > -float("inf") else None,
        "high": high if high < float("inf") else None,
        "source": one.target.source,
        "below": one.below,
        "in_range": one.inside,
        "above": one.above,
        "median": one.middle,
        "q05": one.band[0],
        "q95": one.band[1],
        "in_range_by_model": one.by_model,
    }


def _problem(one: Problem) -> dict[str, str]:
    return {
        "field": one.field,
        "value": one.value,
        "unit": one.unit,
        "allowed": one.allowed,
        "remedy": one.remedy,
        "sentence": str(one),
    }
