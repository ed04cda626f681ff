"""An answer as one HTML page: no script, nothing from elsewhere, no clock."""

from collections.abc import Iterable, Sequence
from html import escape

from fedtwin_protocol.page import fact_table, plain_table, section, whole_page
from fedtwin_research.twins.answering import Answer, given_from
from fedtwin_research.twins.facts import versions_of
from fedtwin_research.twins.plots import Given, Level, candidates_plot, course_plot
from fedtwin_research.twins.sentences import (
    NOTICE,
    candidate_rows,
    effect_lines,
    interaction_lines,
    next_level_lines,
    recommendation_lines,
    refusal_lines,
    risk_lines,
    set_aside_lines,
    target_words,
)
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.patient_twin import TwinForecast
from fedtwin_twins.twin.moments import Clock
from fedtwin_twins.twin.schedule import Schedule

MOST_BARS = 20
"""Candidates that are drawn."""


def twin_page(answer: Answer) -> str:
    """Render an answer."""
    question = answer.question
    drug = question.models[0].card.drug.name
    title = f"{question.content.name or 'A patient'} on {drug}: a twin's answer"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<section class="note"><p>{escape(NOTICE)}</p></section>',
        _cautions(answer),
        section("What is proposed", _proposal(answer)) if question.wanted else "",
        section("Levels", _courses(answer)),
        section("Models and parameters", _models(answer)),
        _candidates(answer),
        _genes(answer),
        section("What the answer hangs on", fact_table(versions_of(answer))),
    ]
    return whole_page(title, parts)


def _items(lines: Iterable[str]) -> str:
    inside = "".join(f"<li>{escape(one)}</li>" for one in lines)
    return f"<ul>{inside}</ul>" if inside else ""


def _cautions(answer: Answer) -> str:
    if not answer.cautions:
        return ""
    lines = _items(map(str, answer.cautions))
    return f'<section class="note"><h2>Cautions</h2>{lines}</section>'


def _proposal(answer: Answer) -> str:
    if answer.advised is None:
        return "<p>Nothing is proposed:</p>" + _items(refusal_lines(answer))
    proposal = answer.advised.proposal
    text = f"<p><strong>{escape(str(proposal.assessment.regimen))}</strong></p>"
    return (
        text + _items([*proposal.reasons, *next_level_lines(answer)]) + _items(risk_lines(answer))
    )


def _courses(answer: Answer) -> str:
    question = answer.question
    levels, window, wanted = _levels(answer), _window(answer), question.wanted
    chosen = None if answer.advised is None else answer.advised.proposal.assessment.regimen
    done = _given(answer, question.patient.schedule)
    text = course_plot(
        f"Median, 50 and 90 % bands with what was measured; dashed: before it. {answer.planned}",
        answer.after,
        before=answer.before,
        levels=levels,
        doses=[*done, *_planned(answer, None if wanted is None else wanted.current)],
        window=window,
    )
    if answer.proposed is not None:
        text += course_plot(
            "Under the proposed regimen: median, 50 and 90 % bands",
            answer.proposed,
            before=None,
            levels=levels,
            doses=[*done, *_planned(answer, chosen)],
            window=window,
        )
    for name, forecast in answer.what_if.items():
        text += course_plot(
            f"{name}: median, 50 and 90 % bands",
            forecast,
            before=None,
            levels=levels,
            doses=[*done, *_given(answer, question.what_if[name])],
            window=window,
        )
    return text


def _levels(answer: Answer) -> list[Level]:
    member = answer.twin.members[0]
    observed, names = member.observed, [one.name for one in member.model.observables]
    kind = names.index(answer.after.observable)
    rows = zip(
        observed.time[0].tolist(),
        observed.value[0].tolist(),
        observed.below[0].tolist(),
        observed.kind[0].tolist(),
        observed.present[0].tolist(),
        strict=True,
    )
    return [
        Level(hour=hour, value=value, below=bool(below))
        for hour, value, below, of, present in rows
        if present and of == kind
    ]


def _planned(answer: Answer, regimen: Regimen | None) -> list[Given]:
    return [] if regimen is None else _given(answer, given_from(answer.question, regimen))


def _given(answer: Answer, schedule: Schedule) -> list[Given]:
    clock = Clock(answer.question.patient.origin)
    doses, _ = schedule.given(clock)
    return [
        Given(
            hour=one.hour,
            until=one.hour + one.duration_h,
            amount=one.amount.value,
            unit=one.amount.unit,
        )
        for one in doses
    ]


def _window(answer: Answer) -> tuple[float, float] | None:
    """A target that is a range of the plotted observable itself, such as a trough."""
    if answer.question.wanted is None:
        return None
    forecast: TwinForecast = answer.after
    for one in answer.question.wanted.goal.targets:
        if one.kind in {"trough", "peak", "mean"} and one.observable == forecast.observable:
            low, high = one.low, one.high
            if low is not None and high is not None:
                return low.to(forecast.unit), high.to(forecast.unit)
    return None


def _models(answer: Answer) -> str:
    rows = [
        (
            one.model,
            f"{one.share:.0%}",
            f"{one.effective_sample_size:.0f} of {one.draws}",
            f"{one.misfit_p:.2g}",
        )
        for one in answer.beliefs
    ]
    heads = ("Model", "Believed", "Effective sample size", "Fit, p")
    text = plain_table("How far each model is believed, and how well it fits", heads, rows)
    parameters = [
        (one.model, f"{one.name}, {one.unit}", _band(one.before), _band(one.after))
        for one in answer.parameters
    ]
    heads = ("Model", "Parameter", "Before", "With what was measured")
    return text + plain_table("Median (5 to 95 %)", heads, parameters)


def _band(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.3g} ({values[1]:.3g} to {values[2]:.3g})"


def _candidates(answer: Answer) -> str:
    if not answer.candidates:
        return ""
    best = answer.candidates[:MOST_BARS]
    text = "".join(
        candidates_plot(target_words(one), best, place)
        for place, one in enumerate(best[0].attainments)
    )
    heads, rows = candidate_rows(answer, MOST_BARS)
    text += f'<div class="wide">{plain_table("The best candidates", heads, rows)}</div>'
    more = len(answer.candidates) - len(best)
    lines: Sequence[str] = [f"{more} more candidates are not shown"] if more else []
    return section("Candidates", text + _items([*lines, *set_aside_lines(answer)]))


def _genes(answer: Answer) -> str:
    effects, said = effect_lines(answer), recommendation_lines(answer)
    others = interaction_lines(answer)
    text = ""
    if answer.question.beside.results:
        shown = [f"{one.gene} {one.shown}" for one in answer.question.beside.results]
        sides = [("; ".join(effects) or "no number", "; ".join(said) or "nothing is said")]
        heads = ("What the models make of it", "What guidelines say")
        text = plain_table(", ".join(shown), heads, sides)
    return section("Genes and other drugs", text + _items(others)) if text or others else ""
