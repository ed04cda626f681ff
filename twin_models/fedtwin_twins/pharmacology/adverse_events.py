"""The risk of side effects from exposure: always a risk with its interval, never a yes or no.

Four functions lead from exposure to risk:

- `threshold`: one rate below a bound and one above it, each with the interval of its own counts;
  with a hospital's own rate below, the published odds or risk ratio is applied to that;
- `per allele`: a rate without the allele, and odds that are multiplied for each one;
- `by count`: one rate for each number of alleles;
- `share of draws`: the share of a model's draws (of a level, a nadir, a time) beyond a limit. Its
  interval holds the chance of drawing alone: what the model itself does not know is in the draws.

An exposure that is itself uncertain is given as draws: the risk is then averaged over them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fedtwin_twins.pharmacology.tables import HOW_CHECKED, Verified
from fedtwin_twins.twin.refusals import Problem, Refusal

if TYPE_CHECKING:
    from torch import Tensor

Function = Literal["threshold", "per allele", "by count", "share of draws"]
Exposure: TypeAlias = "float | Sequence[float] | Tensor"
"""One number, or draws of it."""
_NORMAL_97_5: Final = 1.959963984540054
_FEWEST_DRAWS: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the number.
        low: lower end.
        high: upper end.
        kind: of the interval, such as `95 % confidence interval`.
    """

    value: float
    low: float
    high: float
    kind: str = "95 % confidence interval"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdverseRisk:
    """The risk of a side effect.

    Attributes:
        event: what may happen.
        drug: international name.
        risk: 0 to 1.
        low: lower end of its interval.
        high: upper end.
        interval_kind: how the interval came about.
        source: of the numbers.
        verified: how far they were checked.
        note: for whom they hold, and what else to know.
    """

    event: str
    drug: str
    risk: float
    low: float
    high: float
    interval_kind: str
    source: str
    verified: Verified
    note: str

    def __str__(self) -> str:
        ends = f"{100 * self.low:.3g} to {100 * self.high:.3g} %"
        return (
            f"{self.event}: {100 * self.risk:.3g} % ({self.interval_kind}: {ends}; {self.source}; "
            f"{HOW_CHECKED[self.verified]})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdverseEventModel:
    """From an exposure to a risk.

    Attributes:
        kind: the side effect.
        drug: international name.
        metric: the exposure, in words.
        unit: UCUM, of the exposure.
        function: which of the four.
        rates: of the groups, by threshold `below` and `above`, or by number of alleles.
        ratio: odds ratio of `threshold` and `per allele`; none where there is none.
        relative: the ratio is one of risks, not of odds.
        window: exposures from and to which nothing counts; for thresholds, the upper end.
        source: of the numbers.
        verified: how far they were checked.
        note: for whom they hold, and what else to know.
    """

    kind: str
    drug: str
    metric: str
    unit: str
    function: Function
    rates: Mapping[str, Estimate] = field(default_factory=dict)
    ratio: Estimate | None = None
    relative: bool = False
    window: tuple[float, float] = (float("-inf"), float("inf"))
    source: str
    verified: Verified
    note: str = ""

    def risk(self, exposure: Exposure, *, baseline: float | None = None) -> AdverseRisk:
        """The risk at an exposure.

        Args:
            exposure: one number or draws of it, in `unit`; alleles as 0, 1 or 2.
            baseline: the hospital's own rate of those below the threshold or without the allele,
                0 to 1; none: the study's.

        Raises:
            Refusal: an exposure that cannot be, too few draws, or no baseline where the study
                gives none.
        """
        values = _numbers(exposure)
        self._check(values, baseline)
        if self.function == "share of draws":
            return self._answer(share_outside(values, self.window))
        groups = self._groups(baseline)
        parts = [groups[self._group(value)] for value in values]
        return self._answer(
            Estimate(
                value=sum(part.value for part in parts) / len(parts),
                low=sum(part.low for part in parts) / len(parts),
                high=sum(part.high for part in parts) / len(parts),
                kind=parts[0].kind if len({part.kind for part in parts}) == 1 else "mixed",
            )
        )

    def _answer(self, found: Estimate) -> AdverseRisk:
        return AdverseRisk(
            event=self.kind,
            drug=self.drug,
            risk=found.value,
            low=found.low,
            high=found.high,
            interval_kind=found.kind,
            source=self.source,
            verified=self.verified,
            note=self.note,
        )

    def _check(self, values: Sequence[float], baseline: float | None) -> None:
        alleles = self.function in {"per allele", "by count"}
        allowed = "0, 1 or 2" if alleles else "0 or more"
        for value in values:
            if not isfinite(value) or value < 0 or (alleles and value not in {0, 1, 2}):
                raise self._refusal(self.metric, f"{value:g}", allowed)
        if self.function == "share of draws" and len(values) < _FEWEST_DRAWS:
            raise self._refusal("draws", str(len(values)), f"at least {_FEWEST_DRAWS}")
        if baseline is not None and not 0.0 < baseline < 1.0:
            raise self._refusal("baseline", f"{baseline:g}", "a rate between 0 and 1")
        if baseline is not None and self.ratio is None:
            remedy = "leave the baseline out: this model knows rates alone"
            raise self._refusal("baseline", f"{baseline:g}", "none", remedy)
        if baseline is None and self.ratio is not None and not self.rates:
            remedy = "the study gives a ratio alone: give your own rate below the threshold"
            raise self._refusal("baseline", "", "a rate between 0 and 1", remedy)

    def _refusal(self, name: str, value: str, allowed: str, remedy: str = "") -> Refusal:
        where = f"{self.drug}, {self.kind}: {name}"
        unit = self.unit if name == self.metric else ""
        return Refusal(Problem(field=where, value=value, unit=unit, allowed=allowed, remedy=remedy))

    def _group(self, value: float) -> str:
        if self.function == "threshold":
            return "above" if value > self.window[1] else "below"
        return str(int(value))

    def _groups(self, baseline: float | None) -> Mapping[str, Estimate]:
        """The rate of every group."""
        if self.ratio is None or (baseline is None and self.function == "threshold"):
            return self.rates
        first = "below" if self.function == "threshold" else "0"
        if baseline is None:
            start = self.rates[first]
        else:
            start = Estimate(value=baseline, low=baseline, high=baseline, kind="as given")
        if self.function == "threshold":
            return {"below": start, "above": self._raised(start, 1)}
        return {"0": start, "1": self._raised(start, 1), "2": self._raised(start, 2)}

    def _raised(self, start: Estimate, times: int) -> Estimate:
        """A rate after the ratio was applied so many times; only the ratio's interval counts."""
        assert self.ratio is not None
        ends = [self.ratio.value, self.ratio.low, self.ratio.high]
        value, low, high = (self._apply(start.value, end**times) for end in ends)
        named = f"{self.ratio.kind} of the {'risk' if self.relative else 'odds'} ratio"
        return Estimate(value=value, low=low, high=high, kind=named)

    def _apply(self, rate: float, ratio: float) -> float:
        if self.relative:
            return min(1.0, rate * ratio)
        odds = rate / (1.0 - rate) * ratio
        return odds / (1.0 + odds)


def wilson(events: float, people: float, kind: str = "95 % interval of Wilson") -> Estimate:
    """A rate with its interval (Wilson EB, J Am Stat Assoc 1927;22:209).

    Raises:
        ValueError: nobody, or more events than people.
    """
    if not 0 <= events <= people or people <= 0:
        raise ValueError("expected 0 <= events <= people and at least one of them")
    rate, z = events / people, _NORMAL_97_5
    middle = (rate + z * z / (2 * people)) / (1 + z * z / people)
    half = z * sqrt(rate * (1 - rate) / people + z * z / (4 * people**2)) / (1 + z * z / people)
    low = 0.0 if events == 0 else max(0.0, middle - half)
    high = 1.0 if events == people else min(1.0, middle + half)
    return Estimate(value=rate, low=low, high=high, kind=kind)


def share_outside(values: Sequence[float], window: tuple[float, float]) -> Estimate:
    """The share of draws below or above a window, with the chance of drawing."""
    outside = sum(not window[0] <= value <= window[1] for value in values)
    return wilson(outside, len(values), f"95 % interval of {len(values)} draws")


def time_beyond(shares: Sequence[float]) -> Estimate:
    """The expected share of time beyond a limit, from one share (0 to 1) for each draw.

    Raises:
        Refusal: fewer than 100 draws, or a share that is none.
    """
    values = sorted(_numbers(shares))
    if len(values) < _FEWEST_DRAWS or not 0.0 <= values[0] <= values[-1] <= 1.0:
        allowed = f"at least {_FEWEST_DRAWS} draws, each 0 to 1"
        raise Refusal(
            Problem(field="shares of time", value=f"{len(values)} draws", allowed=allowed)
        )
    place = (len(values) - 1) * 0.025
    return Estimate(
        value=sum(values) / len(values),
        low=values[int(place)],
        high=values[len(values) - 1 - int(place)],
        kind=f"95 % of {len(values)} draws",
    )


def _numbers(exposure: "Exposure | Iterable[float]") -> list[float]:
    if isinstance(exposure, (int, float)):
        return [float(exposure)]
    found = exposure.tolist() if hasattr(exposure, "tolist") else list(exposure)
    return [float(value) for value in (found if isinstance(found, list) else [found])]
