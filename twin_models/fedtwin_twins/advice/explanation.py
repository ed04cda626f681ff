"""Why: sentences that are made from numbers, and the numbers themselves.

- prior and posterior of every parameter that varies between patients;
- what each covariate does to it, in percent, against the model's reference patient;
- what each measurement taught: the same parameter as it would be without it;
- where several models disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isclose

import torch
from torch import Tensor

from fedtwin_twins.advice.assessment import Assessment, Attainment, Outlook, quantiles_of
from fedtwin_twins.belief.likelihood import evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.belief.posterior import Posterior
from fedtwin_twins.twin.batch import Batch, Observed
from fedtwin_twins.twin.model import TwinModel

_SAME = 0.005
"""Changes smaller than half a percent are not told."""
_LEARNT = 0.02
"""A measurement that moved a parameter by less taught nothing about it worth telling."""
ALONE = 24
"""So many measurements of an observable are spoken of one by one."""
STRETCHES = 8
"""In so many stretches of time those of a sensor are spoken of."""
_DISAGREE = 0.2
"""Models whose probabilities lie so far apart are said to disagree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """One parameter before and after this patient's measurements.

    Attributes:
        parameter: by name.
        unit: UCUM.
        expected: for a patient with these traits, before any measurement.
        middle: of the posterior.
        band: 5 % and 95 % quantile of the posterior.
    """

    parameter: str
    unit: str
    expected: float
    middle: float
    band: tuple[float, float]

    def __str__(self) -> str:
        change = self.middle / self.expected - 1.0 if self.expected else 0.0
        return (
            f"{self.parameter}: {self.expected:.3g} {self.unit} expected for such a patient, "
            f"{self.middle:.3g} "
            f"({self.band[0]:.3g} to {self.band[1]:.3g}) with what was measured, {change:+.0%}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Contribution:
    """What one covariate does to one parameter.

    Attributes:
        covariate: by name.
        value: of the patient.
        unit: of the value.
        parameter: that it changes.
        change: a fraction: 0.2 is 20 % more than in the model's reference patient.
    """

    covariate: str
    value: float
    unit: str
    parameter: str
    change: float

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit != "1" else ""
        if self.change > 1.0 and isclose(1.0 + self.change, self.value):
            return f"{self.covariate} {self.value:.4g}{unit}: {self.parameter} in proportion to it"
        change = f"{self.change:+.0%}" if abs(self.change) < 1.0 else f"x {1.0 + self.change:.3g}"
        return f"{self.covariate} {self.value:.4g}{unit}: {self.parameter} {change}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """What one measurement, or several in a row, taught about one parameter.

    Attributes:
        hour: of the measurement, or the first of several.
        until: of the last one.
        count: how many.
        observable: by name.
        value: that was measured, in `unit`; the limit where it lay below; the mean of several.
        unit: of the value.
        parameter: that is spoken of.
        without: the parameter's most likely value if this measurement had not been made.
        with_it: with all of them.
        below: whether it (all of several) is known only to lie below the limit.
    """

    hour: float
    until: float
    count: int
    observable: str
    value: float
    unit: str
    parameter: str
    without: float
    with_it: float
    below: bool = False

    def __str__(self) -> str:
        change = self.with_it / self.without - 1.0 if self.without else 0.0
        unit = f" {self.unit}" if self.unit != "1" else ""
        value = f"below {self.value:.3g}" if self.below else f"{self.value:.3g}"
        seen = f"{self.observable} {value}{unit} at {self.hour:.4g} h"
        if self.count > 1:
            when = f"from {self.hour:.4g} to {self.until:.4g} h"
            seen = f"{self.count} of {self.observable} {when}, {value}{unit} on average,"
        return f"{seen} moved {self.parameter} by {change:+.0%}, to {self.with_it:.3g}"


def shifts(outlook: Outlook) -> list[Shift]:
    """Every parameter that varies between patients, now, by the last span of the traits."""
    model, none = outlook.model, torch.zeros(1, outlook.effects.shape[1], dtype=torch.float64)
    expected = latest(model.individual(outlook.batch, none), outlook.batch)
    draws = outlook.batch.repeated(outlook.effects.shape[0])
    drawn = latest(model.individual(draws, outlook.effects), draws)
    weights = outlook.weights / outlook.weights.sum()
    found = []
    for one in model.parameters:
        if one.name not in model.effects:
            continue
        low, middle, high = quantiles_of(drawn[one.name], weights, (0.05, 0.5, 0.95))
        found.append(
            Shift(
                parameter=one.name,
                unit=one.unit,
                expected=float(expected[one.name][0]),
                middle=middle,
                band=(low, high),
            )
        )
    return found


def contributions(
    factors: Mapping[str, Mapping[str, Tensor]], batch: Batch, units: Mapping[str, str]
) -> list[Contribution]:
    """What each covariate does to each parameter now, where it does anything.

    Args:
        factors: by parameter and covariate, each (1, spans): what the typical value is times.
        batch: one row.
        units: of the covariates.
    """
    found = []
    for parameter, by_covariate in factors.items():
        now = latest(by_covariate, batch)
        known = {name: batch.traits.values[name] for name in now if name in batch.traits.values}
        values = latest(known, batch)
        for name, factor in now.items():
            change = float(factor[0]) - 1.0
            if abs(change) > _SAME and name in values:
                found.append(
                    Contribution(
                        covariate=name,
                        value=float(values[name][0]),
                        unit=units.get(name, "1"),
                        parameter=parameter,
                        change=change,
                    )
                )
    return found


def lessons(
    model: TwinModel, batch: Batch, observed: Observed, posterior: Posterior
) -> list[Lesson]:
    """What each measurement taught about the varying parameters that it moved, by a fit without it.

    Of a sensor's many readings one alone teaches nothing: more than `ALONE` measurements of an
    observable are left out so many in a row that there are `STRETCHES` of them.

    Args:
        model: that was fitted.
        batch: one row.
        observed: one row.
        posterior: of one patient, with all measurements.
    """
    mode = posterior.mode
    groups = _groups(observed)
    if not groups:
        return []
    each = torch.zeros(len(groups), dtype=torch.int64)
    fewer = observed.where(each)
    present = fewer.present.clone()
    for number, group in enumerate(groups):
        present[number, group] = False
    many = batch.where(each)
    evidence = evidence_of(model, many, replace(fewer, present=present))
    without = find_mode(
        evidence,
        begin=mode.expand(len(groups), -1),
        covariance=posterior.covariance.expand(len(groups), -1, -1),
        arrive=False,
    ).effects
    before = latest(model.individual(many, without), many)
    after = latest(model.individual(batch, mode), batch)
    learnt = [
        Lesson(
            hour=float(observed.time[0, group].min()),
            until=float(observed.time[0, group].max()),
            count=len(group),
            observable=model.observables[int(observed.kind[0, group[0]])].name,
            value=float(observed.value[0, group].mean()),
            unit=model.observables[int(observed.kind[0, group[0]])].unit,
            parameter=one.name,
            without=float(before[one.name][row]),
            with_it=float(after[one.name][0]),
            below=bool(observed.below[0, group].all()),
        )
        for row, group in enumerate(groups)
        for one in model.parameters
        if one.name in model.effects
    ]
    return [one for one in learnt if abs(one.with_it - one.without) > _LEARNT * abs(one.without)]


def _groups(observed: Observed) -> list[Tensor]:
    """Places of measurements that are left out together, in order of time."""
    found: list[Tensor] = []
    for kind in torch.unique(observed.kind[0, observed.present[0]]).tolist():
        mine = (observed.present[0] & (observed.kind[0] == kind)).nonzero()[:, 0]
        mine = mine[observed.time[0, mine].argsort(stable=True)]
        parts = len(mine) if len(mine) <= ALONE else STRETCHES
        found.extend(torch.tensor_split(mine, parts))
    return sorted(found, key=lambda group: float(observed.time[0, group[0]]))


def disagreement(assessment: Assessment) -> list[str]:
    """Where the models say clearly different things of one regimen."""
    return [
        _apart(one)
        for one in assessment.attainments
        if one.by_model and max(one.by_model.values()) - min(one.by_model.values()) > _DISAGREE
    ]


def in_words(assessment: Assessment) -> list[str]:
    """One sentence for each target of a regimen."""
    return [_attained(assessment, one) for one in assessment.attainments]


def latest(values: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Each parameter in the last filled span of every row, (rows,)."""
    last = (batch.traits.starts < torch.inf).sum(dim=1, keepdim=True) - 1
    return {name: _wide(value, batch).gather(1, last)[:, 0] for name, value in values.items()}


def _wide(value: Tensor, batch: Batch) -> Tensor:
    return value.expand(batch.patients, batch.traits.spans)


def _attained(assessment: Assessment, one: Attainment) -> str:
    limits = one.limits
    unit = f" {limits.unit}" if limits.unit not in {"1", "%"} else limits.unit.replace("1", "")
    low, high = one.band
    return (
        f"{assessment.regimen}: {one.target.words} "
        f"{one.middle:.3g}{unit} ({low:.3g} to {high:.3g}); {one.inside:.0%} in range, "
        f"{one.below:.0%} below, {one.above:.0%} above"
    )


def _apart(one: Attainment) -> str:
    ordered = sorted(one.by_model.items(), key=lambda item: item[1])
    (lowest, least), (highest, most) = ordered[0], ordered[-1]
    return (
        f"models disagree on {one.target.words}: {least:.0%} in range by "
        f"{lowest} (middle {one.middle_by_model[lowest]:.3g}), {most:.0%} by {highest} "
        f"(middle {one.middle_by_model[highest]:.3g})"
    )
