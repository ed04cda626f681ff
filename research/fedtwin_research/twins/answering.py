"""What a twin answers to a patient's file: beliefs, forecasts, side by side, and a regimen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from fedtwin_research.twins.asking import Question
from fedtwin_research.twins.meals import cautions_of_what_follows
from fedtwin_research.twins.side_effects import Risks, risks_of
from fedtwin_research.twins.wanted import Wanted
from fedtwin_twins.advice.assessment import Assessment, Outlook, assess
from fedtwin_twins.advice.explanation import Shift, shifts
from fedtwin_twins.advice.limits import broken_limits
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.sampling import Informative, most_informative
from fedtwin_twins.patient_twin import Advised, Twin, TwinForecast, build
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Unfit, Unreachable
from fedtwin_twins.twin.schedule import Dose, Schedule

NOTHING: Final = Schedule()
LEVEL_HOURS: Final = 48
"""Times that are looked at for the next level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of one model before and after the measurements.

    Attributes:
        model: whose.
        name: of the parameter.
        unit: UCUM.
        before: median and 5 and 95 % quantile for a patient with these traits.
        after: the same with what was measured.
    """

    model: str
    name: str
    unit: str
    before: tuple[float, float, float]
    after: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Believed:
    """One model's belief in numbers.

    Attributes:
        model: by name.
        share: how far it is believed among the models.
        effective_sample_size: independent draws that the draws are worth.
        draws: how many there are.
        misfit_p: how probable data as odd as these are under the model; 1 without any.
    """

    model: str
    share: float
    effective_sample_size: float
    draws: int
    misfit_p: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Everything that is shown.

    Attributes:
        question: that was asked.
        twin: with what was measured.
        beliefs: of each model.
        parameters: before and after.
        before: forecast of the population's belief, over the question's grid.
        after: of the twin's.
        planned: in words, what is given in `before` and `after` beyond the record.
        proposed: forecast under the proposed regimen; none: there is none.
        what_if: forecasts by name.
        advised: a regimen with reasons; none: not asked, or refused.
        refusal: why no regimen is proposed; empty: one is, or none was asked for.
        candidates: assessed ones, the best first.
        risks: of side effects, by regimen.
        next_level: when one more level would teach most of the first target, by the model that is
            believed most; none: nothing is proposed.
        cautions: all of them.
    """

    question: Question
    twin: Twin
    beliefs: tuple[Believed, ...]
    parameters: tuple[Parameter, ...]
    before: TwinForecast
    after: TwinForecast
    planned: str
    proposed: TwinForecast | None
    what_if: Mapping[str, TwinForecast]
    advised: Advised | None
    refusal: tuple[Problem, ...]
    candidates: tuple[Assessment, ...]
    risks: Risks
    next_level: Informative | None
    cautions: tuple[Problem, ...]


def answer_to(question: Question, tell: Callable[[str], None] | None = None) -> Answer:
    """Ask the twin.

    Args:
        question: checked.
        tell: told what is being done.

    Raises:
        Refusal: an engine cannot compute what is asked, such as a steady state that does not exist.
    """
    say = tell or (lambda _: None)
    torch.set_num_threads(1)
    seed, hours = question.settings.seed, question.hours.grid
    say("what the population says")
    unmeasured = replace(question.patient, observations=())
    measured = _measured(question)
    prior = build(question.models, unmeasured, seed=seed, only_told=measured)
    say("what the measurements add")
    twin = build(question.models, question.patient, seed=seed) if measured else prior
    current = None if question.wanted is None else question.wanted.current
    planned = NOTHING if current is None else given_from(question, current)
    advised: Advised | None = None
    refusal: tuple[Problem, ...] = ()
    candidates: tuple[Assessment, ...] = ()
    outlooks = twin.outlooks()
    if question.wanted is not None:
        say(f"{len(question.wanted.regimens)} candidates")
        advised, refusal, candidates = _advised(twin, question.wanted, outlooks)
    say("forecasts")
    chosen = None if advised is None else advised.proposal.assessment.regimen
    proposed, later = None, []
    if chosen is not None:
        proposed = twin.forecast(hours, schedule=given_from(question, chosen))
        later = cautions_of_what_follows(question.models, question.hours, proposed)
    return Answer(
        question=question,
        twin=twin,
        beliefs=tuple(_beliefs(twin)),
        parameters=tuple(_parameters(prior.outlooks(), outlooks)),
        before=prior.forecast(hours, schedule=planned),
        after=twin.forecast(hours, schedule=planned),
        planned="nothing more is given" if current is None else f"as now, {current}",
        proposed=proposed,
        what_if=twin.compare(question.what_if, hours),
        advised=advised,
        refusal=refusal,
        candidates=candidates,
        risks=_risks(question, outlooks, candidates, current),
        next_level=None if chosen is None else _next_level(question, outlooks, chosen),
        cautions=tuple(dict.fromkeys((*later, *question.cautions, *twin.cautions))),
    )


def given_from(question: Question, regimen: Regimen) -> Schedule:
    """A regimen from the start to the end of the forecast."""
    start, end = question.hours.horizon.start_h, question.hours.end
    count = 0 if regimen.once else max(0, int((end - start) / regimen.interval_h - 1e-9))
    first = regimen.loading or regimen.amount
    duration = Quantity(regimen.duration_h, "h") if regimen.duration_h else None
    interval = Quantity(regimen.interval_h, "h")
    doses = [Dose(time=Quantity(start, "h"), amount=first, route=regimen.route, duration=duration)]
    if count:
        doses.append(
            Dose(
                time=Quantity(start + regimen.interval_h, "h"),
                amount=regimen.amount,
                route=regimen.route,
                duration=duration,
                interval=interval,
                additional=count - 1,
            )
        )
    return Schedule(tuple(doses))


def _next_level(
    question: Question, outlooks: Sequence[Outlook], regimen: Regimen
) -> Informative | None:
    """In the first two intervals of the proposal, after its first dose; in one of a single dose."""
    if question.wanted is None:
        return None
    horizon = question.hours.horizon
    step = (1.0 if regimen.once else 2.0) * regimen.interval_h / LEVEL_HOURS
    hours = [horizon.start_h + step * place for place in range(1, LEVEL_HOURS + 1)]
    believed = max(outlooks, key=lambda one: one.share)
    target = question.wanted.goal.targets[0]
    return most_informative(believed, regimen, target, horizon, hours)


def _measured(question: Question) -> bool:
    return bool(question.patient.observations)


def _advised(
    twin: Twin, wanted: Wanted, outlooks: Sequence[Outlook]
) -> tuple[Advised | None, tuple[Problem, ...], tuple[Assessment, ...]]:
    """The proposal or the refusal, and what was assessed."""
    if wanted.limits.forbidden:
        return None, tuple(wanted.limits.forbidden), ()
    try:
        found = twin.advise(
            wanted.goal, wanted.limits, wanted.regimens, wanted.horizon, current=wanted.current
        )
    except Unfit as refusal:
        return None, refusal.problems, ()
    except Unreachable as refusal:
        allowed = [
            one for one in wanted.regimens if not broken_limits(one, wanted.limits, wanted.current)
        ]
        assessed = assess(outlooks, allowed, wanted.goal.targets, wanted.horizon) if allowed else []
        ranked = sorted(assessed, key=lambda one: -one.all_inside)
        return None, refusal.problems, tuple(ranked)
    return found, (), (found.choice.best, *found.choice.others)


def _beliefs(twin: Twin) -> list[Believed]:
    return [
        Believed(
            model=one.model.name,
            share=one.share,
            effective_sample_size=float(one.posterior.effective_sample_size[0]),
            draws=int(one.posterior.draws.shape[1]),
            misfit_p=float(one.posterior.misfit_p[0]),
        )
        for one in twin.members
    ]


def _parameters(before: Sequence[Outlook], after: Sequence[Outlook]) -> list[Parameter]:
    return [
        Parameter(
            model=outlook.model.name,
            name=new.parameter,
            unit=new.unit,
            before=_middle_and_band(old),
            after=_middle_and_band(new),
        )
        for first, outlook in zip(before, after, strict=True)
        for old, new in zip(shifts(first), shifts(outlook), strict=True)
    ]


def _middle_and_band(shift: Shift) -> tuple[float, float, float]:
    return shift.middle, shift.band[0], shift.band[1]


def _risks(
    question: Question,
    outlooks: Sequence[Outlook],
    candidates: Sequence[Assessment],
    current: Regimen | None,
) -> Risks:
    if question.wanted is None:
        return Risks(by_regimen={}, not_used=())
    regimens = [one.regimen for one in candidates]
    regimens += [current] if current is not None and current not in regimens else []
    drug = question.models[0].card.drug.name
    horizon = question.hours.horizon
    return risks_of(drug, outlooks, regimens, horizon, question.content.baseline_risks)
