"""A twin's answer on the screen."""

from fedtwin.paper import say, show_table
from fedtwin_research.twins.answering import Answer
from fedtwin_research.twins.sentences import (
    NOTICE,
    candidate_rows,
    effect_lines,
    interaction_lines,
    next_level_lines,
    recommendation_lines,
    risk_lines,
    set_aside_lines,
    target_words,
)
from fedtwin_twins.patient_twin import TwinForecast

_MOST = 8
"""Candidates that are shown."""


def show_answer(answer: Answer) -> None:
    """Everything in the order in which it is read: beliefs, forecast, proposal, cautions."""
    question = answer.question
    drug = question.models[0].card.drug
    say(f"{question.content.name or 'the patient'} on {drug.name} (ATC {drug.atc})")
    rows = [
        [
            one.model,
            f"{one.share:.0%}",
            f"{one.effective_sample_size:.0f} of {one.draws}",
            f"{one.misfit_p:.2g}",
        ]
        for one in answer.beliefs
    ]
    heads = ["model", "believed", "effective sample size", "fit, p"]
    show_table("Models", heads, rows)
    _genes_and_drugs(answer)
    rows = [
        [one.model, one.name, one.unit, _band(one.before), _band(one.after)]
        for one in answer.parameters
    ]
    heads = ["model", "parameter", "unit", "before", "with what was measured"]
    show_table("Parameters, median (5 to 95 %)", heads, rows)
    _forecasts(answer)
    if question.wanted is not None:
        _advice(answer)
    if answer.cautions:
        say("Cautions:", *(f"  {one}" for one in answer.cautions))
    say(NOTICE)


def _band(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.3g} ({values[1]:.3g} to {values[2]:.3g})"


def _genes_and_drugs(answer: Answer) -> None:
    for title, lines in (
        ("What the models make of the genes:", effect_lines(answer)),
        ("What guidelines say of the genes:", recommendation_lines(answer)),
        ("Other drugs:", interaction_lines(answer)),
    ):
        if lines:
            say(title, *(f"  {line}" for line in lines))


def _forecasts(answer: Answer) -> None:
    named: dict[str, TwinForecast] = {"before": answer.before, "now": answer.after}
    if answer.proposed is not None:
        named["as proposed"] = answer.proposed
    named.update(answer.what_if)
    hours = answer.after.hours.tolist()
    rows = []
    for hour in answer.question.hours.shown:
        place = min(range(len(hours)), key=lambda n: abs(hours[n] - hour))
        cells = []
        for one in named.values():
            low, middle, high = (float(one.quantiles[place, column]) for column in (0, 2, 4))
            cells.append(f"{middle:.3g} ({low:.3g} to {high:.3g})")
        rows.append([f"{hour:g}", *cells])
    title = f"Forecast of {answer.after.observable}, {answer.after.unit}, median (5 to 95 %)"
    show_table(title, ["hour", *named], rows)
    say(f"before, now: {answer.planned}")


def _advice(answer: Answer) -> None:
    if answer.candidates:
        say(*(f"Goal: {target_words(one)}" for one in answer.candidates[0].attainments))
        heads, rows = candidate_rows(answer, _MOST)
        show_table("Candidates, the best first", heads, rows)
        more = len(answer.candidates) - len(rows)
        if more > 0:
            say(f"{more} more candidates: see --json or --report")
    if answer.advised is not None:
        proposal = answer.advised.proposal
        say(f"Proposed: {proposal.assessment.regimen}")
        say(*(f"  {line}" for line in (*proposal.reasons, *next_level_lines(answer))))
    say(*risk_lines(answer), *set_aside_lines(answer))
