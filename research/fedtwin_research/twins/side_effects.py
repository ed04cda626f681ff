"""The risk of side effects under a regimen, where a study leads from an exposure to a risk.

For a threshold, the risk is p R_above + (1 - p) R_below with p the probability that the patient's
exposure lies above it; both ends of the interval likewise. For a share of draws it is that share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedtwin_twins.advice.assessment import Assessment, Horizon, Outlook, assess
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.targets import Target, TargetKind
from fedtwin_twins.pharmacology.adverse_event_models import ADVERSE_EVENTS
from fedtwin_twins.pharmacology.adverse_events import AdverseEventModel, AdverseRisk
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """How a study's exposure is computed for a regimen.

    Attributes:
        kind: of the target that measures it.
        observable: of the model.
        differs: how it differs from what the study measured; empty: it does not.
    """

    kind: TargetKind
    observable: str
    differs: str = ""


EXPOSURES: Final[Mapping[str, Exposure]] = {
    name: Exposure(
        kind="area_24h",
        observable="concentration",
        differs="the study measured the first day; here it is the day that is judged",
    )
    for name in ("vancomycin_kidney_chavada_2017", "vancomycin_kidney_zasowski_2018")
}
"""Studies whose exposure a regimen determines, by the name of their model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegimenRisk:
    """One risk under one regimen.

    Attributes:
        name: of the model of the side effect.
        above: probability that the exposure lies above the study's threshold.
        threshold: with its unit, in words.
        risk: with its interval.
        differs: how the exposure differs from the study's.
    """

    name: str
    above: float
    threshold: str
    risk: AdverseRisk
    differs: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Risks:
    """By regimen, as text; and why a study was not used."""

    by_regimen: Mapping[str, tuple[RegimenRisk, ...]]
    not_used: tuple[Problem, ...]


def risks_of(
    drug: str,
    outlooks: Sequence[Outlook],
    regimens: Sequence[Regimen],
    horizon: Horizon,
    baselines: Mapping[str, float],
) -> Risks:
    """Every risk of a drug that a regimen determines.

    Args:
        drug: international name.
        outlooks: the patient.
        regimens: that are looked at.
        horizon: when they are judged.
        baselines: the hospital's own rates, by name of the model.
    """
    used: dict[str, AdverseEventModel] = {}
    not_used = []
    for name, exposure in EXPOSURES.items():
        model = ADVERSE_EVENTS[name]
        if model.drug != drug or exposure.observable not in _observables(outlooks):
            continue
        if not model.rates and name not in baselines:
            remedy = (
                f"the study gives a ratio alone: write your own rate under baseline_risks: {name}"
            )
            not_used.append(Problem(field=model.source, value="not used", remedy=remedy))
            continue
        used[name] = model
    if not used or not regimens:
        return Risks(by_regimen={}, not_used=tuple(not_used))
    targets = [_target(name, model) for name, model in used.items()]
    found = assess(outlooks, regimens, targets, horizon)
    return Risks(
        by_regimen={str(one.regimen): _risks(one, used, baselines) for one in found},
        not_used=tuple(not_used),
    )


def _observables(outlooks: Sequence[Outlook]) -> set[str]:
    return {one.name for outlook in outlooks for one in outlook.model.observables}


def _target(name: str, model: AdverseEventModel) -> Target:
    exposure = EXPOSURES[name]
    limit = Quantity(model.window[1], model.unit)
    return Target(kind=exposure.kind, observable=exposure.observable, high=limit)


def _risks(
    assessed: Assessment, used: Mapping[str, AdverseEventModel], baselines: Mapping[str, float]
) -> tuple[RegimenRisk, ...]:
    found = []
    for attainment, (name, model) in zip(assessed.attainments, used.items(), strict=True):
        threshold = model.window[1]
        low = model.risk(0.0, baseline=baselines.get(name))
        high = model.risk(2.0 * threshold, baseline=baselines.get(name))
        found.append(
            RegimenRisk(
                name=name,
                above=attainment.above,
                threshold=f"{threshold:g} {model.unit}",
                risk=_mixed(low, high, attainment.above),
                differs=EXPOSURES[name].differs,
            )
        )
    return tuple(found)


def _mixed(below: AdverseRisk, above: AdverseRisk, share: float) -> AdverseRisk:
    def between(first: float, second: float) -> float:
        return (1.0 - share) * first + share * second

    kind = below.interval_kind
    if kind != above.interval_kind:
        kind = f"{below.interval_kind} below, {above.interval_kind} above"
    return AdverseRisk(
        event=below.event,
        drug=below.drug,
        risk=between(below.risk, above.risk),
        low=between(below.low, above.low),
        high=between(below.high, above.high),
        interval_kind=kind,
        source=below.source,
        verified=below.verified,
        note=below.note,
    )
