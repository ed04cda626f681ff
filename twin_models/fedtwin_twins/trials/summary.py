"""What a trial says over all its replicates: arms, effects, power, subgroups, Monte-Carlo error.

A single trial is one row of luck. The mean over replicates is the effect in this population under
this truth; the spread between replicates is what one trial would show by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from fedtwin_twins.trials.analysis import (
    Estimate,
    OverReplicates,
    holm,
    mean_interval,
    over_replicates,
    risk_interval,
)
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.replicate import Cell, Comparison, Replicate
from fedtwin_twins.trials.sample_size import Question, Size, patients_needed, sample_size_panel

CORRELATIONS = tuple(place / 20 for place in range(19))
"""Of the panel of sample sizes: 0 to .9."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmResult:
    """An arm, or a subgroup of it, for one endpoint, all replicates together.

    Attributes:
        arm: its name.
        endpoint: its name.
        subgroup: empty for everybody.
        patients: randomised.
        observed: with an outcome.
        mean: mean, or share.
        low: lower end of the interval, by the number of virtual patients.
        high: upper end.
        sd: of the outcome between patients.
    """

    arm: str
    endpoint: str
    subgroup: str
    patients: int
    observed: int
    mean: float
    low: float
    high: float
    sd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectResult:
    """An arm against the control, over the replicates.

    Attributes:
        arm: its name.
        endpoint: its name.
        adjusted: for the prognostic score.
        effect: mean over the replicates with its Monte-Carlo error and spread.
        error: mean of the standard errors that single trials state.
        low: mean of the lower ends of their intervals.
        high: mean of the upper ends.
        power: share of trials with a p value below alpha, corrected for several arms if planned.
        power_error: Monte-Carlo error of that share.
        not_analysed: replicates in which too few patients had an outcome.
    """

    arm: str
    endpoint: str
    adjusted: bool
    effect: OverReplicates
    error: float
    low: float
    high: float
    power: float
    power_error: float
    not_analysed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large a real trial should be, for the arm with the largest effect.

    Attributes:
        arm: its name.
        question: what it should find; inflated and deflated as planned.
        correlation: of the score with the outcome in the control arm, as seen; 0 without a score.
        planned: size with the seen correlation.
        panel: sizes for correlations 0 to .9.
    """

    arm: str
    question: Question
    correlation: float
    planned: Size
    panel: tuple[Size, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """All that is written down of a trial.

    Attributes:
        arms: results by arm and endpoint.
        subgroups: the same by phenotype.
        effects: arms against the control.
        correlation: of the score with the primary outcome in the control arm.
        variance_ratio: realised variance of the adjusted estimates over that of the others, by
            arm; NaN without a score or with one replicate.
        sizes: none where no difference was seen or stated.
        left: share of patients who left before the end.
    """

    arms: tuple[ArmResult, ...]
    subgroups: tuple[ArmResult, ...]
    effects: tuple[EffectResult, ...]
    correlation: OverReplicates
    variance_ratio: dict[str, float]
    sizes: Sizes | None
    left: float


def summarise(plan: TrialPlan, replicates: Sequence[Replicate]) -> TrialResult:
    """Put the replicates of a trial together.

    Args:
        plan: of the trial.
        replicates: at least one, in order.
    """
    rows = _arm_results(plan, replicates)
    effects = _effects(plan, replicates)
    correlation = over_replicates([one.score_correlation for one in replicates])
    everybody = tuple(row for row in rows if not row.subgroup)
    return TrialResult(
        arms=everybody,
        subgroups=tuple(row for row in rows if row.subgroup),
        effects=effects,
        correlation=correlation,
        variance_ratio=_variance_ratios(plan, effects),
        sizes=_sizes(plan, everybody, effects, correlation.mean),
        left=sum(one.left for one in replicates) / (len(replicates) * plan.patients),
    )


def _arm_results(plan: TrialPlan, replicates: Sequence[Replicate]) -> list[ArmResult]:
    keys = sorted({key for one in replicates for key in one.cells}, key=lambda key: (key[2], *key))
    found = []
    for arm, endpoint, subgroup in keys:
        cells = [
            one.cells[key] for one in replicates if (key := (arm, endpoint, subgroup)) in one.cells
        ]
        found.append(_arm_result(plan, (arm, endpoint, subgroup), cells))
    return found


def _arm_result(plan: TrialPlan, key: tuple[int, int, str], cells: Sequence[Cell]) -> ArmResult:
    arm, endpoint, subgroup = key
    observed = sum(cell.observed for cell in cells)
    total = sum(cell.total for cell in cells)
    mean = total / observed if observed else nan
    spread = sum(cell.squares for cell in cells) - observed * mean**2 if observed > 1 else nan
    sd = sqrt(max(spread, 0.0) / (observed - 1)) if observed > 1 else nan
    confidence = plan.analysis.confidence
    low, high = (nan, nan)
    if plan.endpoints[endpoint].is_share and observed:
        low, high = risk_interval(round(total), observed, confidence)
    elif observed > 1:
        low, high = mean_interval(mean, sd, observed, confidence)
    return ArmResult(
        arm=plan.arms[arm].name,
        endpoint=plan.endpoints[endpoint].name,
        subgroup=subgroup,
        patients=sum(cell.patients for cell in cells),
        observed=observed,
        mean=mean,
        low=low,
        high=high,
        sd=sd,
    )


def _effects(plan: TrialPlan, replicates: Sequence[Replicate]) -> tuple[EffectResult, ...]:
    found = []
    for endpoint, _ in enumerate(plan.endpoints):
        for adjusted in (False, True):
            table = [_estimates(one, endpoint, adjusted) for one in replicates]
            if adjusted and not any(any(row.values()) for row in table):
                continue
            corrected = [_p_values(plan, row) for row in table]
            for arm, _ in enumerate(plan.arms):
                if arm != plan.control:
                    estimates = [row.get(arm) for row in table]
                    chances = [row[arm] for row in corrected if arm in row]
                    found.append(_effect(plan, (arm, endpoint, adjusted), estimates, chances))
    return tuple(found)


def _estimates(one: Replicate, endpoint: int, adjusted: bool) -> dict[int, Estimate | None]:
    def chosen(comparison: Comparison) -> Estimate | None:
        return comparison.adjusted if adjusted else comparison.plain

    return {row.arm: chosen(row) for row in one.comparisons if row.endpoint == endpoint}


def _p_values(plan: TrialPlan, row: dict[int, Estimate | None]) -> dict[int, float]:
    there = {arm: one.p_value for arm, one in row.items() if one is not None}
    if plan.analysis.multiplicity == "none":
        return there
    return dict(zip(there, holm(list(there.values())), strict=True))


def _effect(
    plan: TrialPlan,
    key: tuple[int, int, bool],
    estimates: Sequence[Estimate | None],
    chances: Sequence[float],
) -> EffectResult:
    arm, endpoint, adjusted = key
    there = [one for one in estimates if one is not None]
    power = sum(chance < plan.analysis.alpha for chance in chances) / len(chances) if there else nan
    return EffectResult(
        arm=plan.arms[arm].name,
        endpoint=plan.endpoints[endpoint].name,
        adjusted=adjusted,
        effect=over_replicates([one.effect for one in there]),
        error=_mean([one.error for one in there]),
        low=_mean([one.low for one in there]),
        high=_mean([one.high for one in there]),
        power=power,
        power_error=sqrt(power * (1 - power) / len(there)) if there else nan,
        not_analysed=len(estimates) - len(there),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else nan


def _variance_ratios(plan: TrialPlan, effects: Sequence[EffectResult]) -> dict[str, float]:
    primary = plan.endpoints[0].name
    spread = {(one.arm, one.adjusted): one.effect.sd for one in effects if one.endpoint == primary}
    return {
        arm: (sd / spread[arm, False]) ** 2 if spread.get((arm, False)) else nan
        for (arm, adjusted), sd in spread.items()
        if adjusted
    }


def _sizes(
    plan: TrialPlan,
    arms: Sequence[ArmResult],
    effects: Sequence[EffectResult],
    correlation: float,
) -> Sizes | None:
    primary = plan.endpoints[0].name
    seen = [one for one in effects if one.endpoint == primary and not one.adjusted]
    seen = [one for one in seen if np.isfinite(one.effect.mean)]
    if not seen:
        return None
    best = max(seen, key=lambda one: abs(one.effect.mean))
    wanted = plan.sample_size.difference
    difference = best.effect.mean if wanted is None else wanted
    spreads = {row.arm: row.sd for row in arms if row.endpoint == primary}
    pair = (spreads[best.arm], spreads[plan.analysis.control])
    sd = sqrt((pair[0] ** 2 + pair[1] ** 2) / 2)
    if difference == 0 or not sd > 0:
        return None
    question = Question(
        difference=difference,
        sd=sd,
        alpha=plan.analysis.alpha,
        power=plan.sample_size.power,
        dropout=_without_outcome(arms, primary),
        sd_inflation=plan.sample_size.sd_inflation,
        correlation_deflation=plan.sample_size.correlation_deflation,
    )
    used = correlation if np.isfinite(correlation) else 0.0
    return Sizes(
        arm=best.arm,
        question=question,
        correlation=used,
        planned=patients_needed(question, used),
        panel=tuple(sample_size_panel(question, CORRELATIONS)),
    )


def _without_outcome(arms: Sequence[ArmResult], endpoint: str) -> float:
    rows = [row for row in arms if row.endpoint == endpoint]
    patients = sum(row.patients for row in rows)
    return 1 - sum(row.observed for row in rows) / patients
