"""The regimen that best meets a goal within hard limits, or a refusal with its reasons.

1. Regimens that break a limit are set aside with the reason.
2. The others are assessed; one that passes a ceiling too often is set aside too.
3. The best is the one most likely to meet all targets at once; among those within `TIE` of it the
   smallest daily amount, then the longest interval.
4. It is good enough if it meets them with at least the goal's probability. If none does, the answer
   is a refusal that says how far the best one got and what was in the way of the others.
5. The limits are checked again on the answer, and once more when a proposal is made from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fedtwin_twins.advice.assessment import Assessment, Horizon, Outlook, assess
from fedtwin_twins.advice.limits import Limits, broken_limits, check_limits
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.targets import Target
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal, Unreachable, refuse_if_any

TIE: Final = 0.01
"""Probabilities closer than this are the same: a thousand draws cannot tell them apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What is wanted.

    Attributes:
        targets: all of them are to be met at once.
        least_probability: with which the chosen regimen must meet them.
    """

    targets: Sequence[Target]
    least_probability: float = 0.5

    def __post_init__(self) -> None:
        found = []
        if not self.targets:
            found.append(Problem(field="goal.targets", allowed="at least one"))
        if not 0.0 < self.least_probability < 1.0:
            value = f"{self.least_probability:g}"
            allowed = "a probability above 0 and below 1"
            found.append(Problem(field="goal.least_probability", value=value, allowed=allowed))
        refuse_if_any(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """A regimen that may not be given.

    Attributes:
        regimen: which.
        reasons: every limit that it breaks.
        assessment: what it would do, where that was computed.
    """

    regimen: Regimen
    reasons: tuple[Problem, ...]
    assessment: Assessment | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The answer of a search.

    Attributes:
        best: the regimen to propose.
        others: allowed ones, the best first.
        set_aside: what may not be given, and why.
        current: what the patient has now, assessed whether it is allowed or not.
    """

    best: Assessment
    others: tuple[Assessment, ...] = ()
    set_aside: tuple[SetAside, ...] = field(default=())
    current: Assessment | None = None


def regimens_of(
    amounts: Sequence[Quantity],
    intervals_h: Sequence[float],
    route: str,
    durations_h: Sequence[float] = (0.0,),
    loading: Sequence[Quantity | None] = (None,),
) -> list[Regimen]:
    """Every combination that can be given: no infusion lasts longer than its interval."""
    return [
        Regimen(amount=amount, interval_h=interval, route=route, duration_h=lasting, loading=first)
        for amount in amounts
        for interval in intervals_h
        for lasting in durations_h
        for first in loading
        if lasting <= interval
    ]


def choose(
    outlooks: Sequence[Outlook],
    regimens: Sequence[Regimen],
    goal: Goal,
    limits: Limits,
    horizon: Horizon,
    current: Regimen | None = None,
    *,
    refused: Sequence[Sequence[Problem]] = (),
) -> Choice:
    """The best regimen.

    Args:
        outlooks: the patient, by one model or several.
        regimens: that can be given.
        goal: what is wanted.
        limits: that nothing may break.
        horizon: when it starts, and when it is judged.
        current: what the patient has now.
        refused: for each regimen what else forbids it; none: nothing.

    Raises:
        Unreachable: none is allowed, or none is likely enough to meet the goal.
        Refusal: a route, observable or unit that a model does not know.
    """
    if not regimens:
        raise Refusal(Problem(field="regimens", allowed="at least one that can be given"))
    more = refused or [()] * len(regimens)
    aside = [
        [*broken_limits(one, limits, current), *also]
        for one, also in zip(regimens, more, strict=True)
    ]
    allowed = [one for one, reasons in zip(regimens, aside, strict=True) if not reasons]
    set_aside = [
        SetAside(regimen=one, reasons=tuple(reasons))
        for one, reasons in zip(regimens, aside, strict=True)
        if reasons
    ]
    asked = [*allowed, *([current] if current is not None else [])]
    harms = [one.exposure for one in limits.ceilings]
    assessed = assess(outlooks, asked, goal.targets, horizon, harms) if asked else []
    now = assessed[-1] if current is not None else None
    good: list[Assessment] = []
    for one in assessed[: len(allowed)]:
        reasons = _harmful(one, limits)
        if reasons:
            set_aside.append(SetAside(regimen=one.regimen, reasons=reasons, assessment=one))
        else:
            good.append(one)
    ranked = _ranked(good, limits.largest_dose.unit)
    if not ranked or ranked[0].all_inside < goal.least_probability:
        raise Unreachable(*_why_not(ranked, set_aside, goal))
    check_limits(ranked[0].regimen, limits, current)
    return Choice(best=ranked[0], others=tuple(ranked[1:]), set_aside=tuple(set_aside), current=now)


def _harmful(one: Assessment, limits: Limits) -> tuple[Problem, ...]:
    """The ceilings that a regimen passes too often."""
    return tuple(
        Problem(
            field=f"probability of {ceiling.exposure.words} above {ceiling.exposure.high}",
            value=f"{found.above:.0%}",
            allowed=f"at most {ceiling.most:.0%}",
        )
        for ceiling, found in zip(limits.ceilings, one.harms, strict=True)
        if found.above > ceiling.most
    )


def _ranked(assessed: Sequence[Assessment], unit: str) -> list[Assessment]:
    """By probability; those too close to the best to be told apart by amount and interval."""
    ordered = sorted(assessed, key=lambda one: -one.all_inside)
    if not ordered:
        return []
    close = [one for one in ordered if one.all_inside >= ordered[0].all_inside - TIE]
    close.sort(key=lambda one: (one.regimen.daily(unit), -one.regimen.interval_h))
    return close + ordered[len(close) :]


def _why_not(
    ranked: Sequence[Assessment], refused: Sequence[SetAside], goal: Goal
) -> list[Problem]:
    found = []
    if ranked:
        best = ranked[0]
        found.append(
            Problem(
                field="probability of meeting the goal",
                value=f"{best.all_inside:.0%} with {best.regimen}",
                allowed=f"at least {goal.least_probability:.0%}",
                remedy="allow other doses or intervals, ask for less, or take a level first",
            )
        )
    else:
        found.append(
            Problem(
                field="regimens",
                value="none is allowed",
                allowed="at least one within the hard limits",
                remedy="see what each of them breaks, below",
            )
        )
    found.extend(
        Problem(field=f"{one.regimen}", value="set aside", remedy="; ".join(map(str, one.reasons)))
        for one in refused
    )
    return found
