"""What may not be done whatever the model says, checked after the search and again at the border.

A limit is hard: a regimen that breaks one is refused with the reason, and no probability makes up
for it. `largest_change` is measured on the daily amount against what the patient has now.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.targets import Target
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """How often a harmful exposure may be exceeded at most.

    Attributes:
        exposure: a target whose upper limit is where harm begins.
        most: the largest probability of lying above it.
    """

    exposure: Target
    most: float

    def __post_init__(self) -> None:
        found = []
        if self.exposure.high is None:
            found.append(Problem(field="ceiling.exposure.high", allowed="an upper limit"))
        if not 0.0 <= self.most < 1.0:
            allowed = "a probability from 0 to below 1"
            found.append(Problem(field="ceiling.most", value=f"{self.most:g}", allowed=allowed))
        refuse_if_any(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The hard limits of one drug for one patient.

    Attributes:
        largest_dose: single, a loading dose too.
        largest_daily: in 24 h, without a loading dose.
        smallest_interval_h: between doses.
        largest_rate: of an infusion, in amount per hour.
        largest_change: of the daily amount, as a fraction of the present one; none: any.
        ceilings: on harmful exposures.
        forbidden: why the drug may not be given at all, such as a contraindication of a genotype
            or of another drug; empty: it may.
    """

    largest_dose: Quantity
    largest_daily: Quantity
    smallest_interval_h: float = 1.0
    largest_rate: Quantity | None = None
    largest_change: float | None = 0.5
    ceilings: Sequence[Ceiling] = ()
    forbidden: Sequence[Problem] = ()


def broken_limits(
    regimen: Regimen, limits: Limits, current: Regimen | None = None
) -> list[Problem]:
    """What a regimen breaks of the limits that need no model; empty: nothing.

    Args:
        regimen: that is proposed.
        limits: of the drug and the patient.
        current: what the patient has now; none: nothing.
    """
    unit = limits.largest_dose.unit
    found = list(limits.forbidden)
    single, most = regimen.largest(unit), limits.largest_dose.value
    if single > most * _ROUNDING:
        found.append(_above("amount", single, most, unit, "the largest single dose"))
    daily, most = regimen.daily(unit), limits.largest_daily.to(unit)
    if daily > most * _ROUNDING:
        found.append(_above("daily amount", daily, most, unit, "the largest daily dose"))
    if regimen.interval_h < limits.smallest_interval_h / _ROUNDING:
        found.append(
            Problem(
                field="regimen.interval_h",
                value=f"{regimen.interval_h:g}",
                unit="h",
                allowed=f"at least {limits.smallest_interval_h:g}",
            )
        )
    found.extend(_rate_problems(regimen, limits))
    if current is not None and limits.largest_change is not None:
        found.extend(_change_problems(regimen, current, limits.largest_change, unit))
    return found


def check_limits(regimen: Regimen, limits: Limits, current: Regimen | None = None) -> None:
    """Refuse a regimen that breaks a limit.

    Raises:
        Refusal: with everything that it breaks.
    """
    refuse_if_any(broken_limits(regimen, limits, current))


_ROUNDING = 1.0 + 1e-9


def _above(name: str, value: float, most: float, unit: str, what: str) -> Problem:
    return Problem(
        field=f"regimen.{name}",
        value=f"{value:.4g}",
        unit=unit,
        allowed=f"at most {most:g}, {what}",
    )


def _rate_problems(regimen: Regimen, limits: Limits) -> list[Problem]:
    if limits.largest_rate is None or regimen.duration_h == 0:
        return []
    unit = limits.largest_rate.unit
    rate = Quantity(
        regimen.largest(regimen.amount.unit) / regimen.duration_h, f"{regimen.amount.unit}/h"
    ).to(unit, field="regimen.rate")
    if rate <= limits.largest_rate.value * _ROUNDING:
        return []
    return [_above("rate", rate, limits.largest_rate.value, unit, "the largest infusion rate")]


def _change_problems(
    regimen: Regimen, current: Regimen, largest: float, unit: str
) -> list[Problem]:
    if largest < 0:
        raise Refusal(Problem(field="limits.largest_change", value=f"{largest:g}", allowed="0 up"))
    before, after = current.daily(unit), regimen.daily(unit)
    change = after / before - 1.0
    if abs(change) <= largest * _ROUNDING:
        return []
    low, high = before * max(0.0, 1.0 - largest), before * (1.0 + largest)
    return [
        Problem(
            field="regimen.daily amount",
            value=f"{after:.4g}",
            unit=unit,
            allowed=f"{low:.4g} to {high:.4g}, within {largest:.0%} of the present {before:.4g}",
            remedy="go there in steps, with a level in between",
        )
    ]
