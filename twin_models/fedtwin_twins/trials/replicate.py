"""Repetitions of a trial: draw patients, freeze the score, randomise, treat, compare.

Every step has chance of its own (`streams`), so that repetitions may be done in any order. Several
are computed at once: equations cost hardly more for a thousand patients than for fifty.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fedtwin_twins.trials.allocation import Allocation, allocate
from fedtwin_twins.trials.analysis import Estimate, difference, procova
from fedtwin_twins.trials.conduct import Conduct, Laboratory, TwinForecast
from fedtwin_twins.trials.course import Course, Group
from fedtwin_twins.trials.drug import as_tensor
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.population import VirtualPatients, draw_population
from fedtwin_twins.trials.prognosis import FrozenScore, HistoryModel, PrognosticModel, freeze
from fedtwin_twins.trials.streams import Floats, Integers, Streams

_AT_ONCE = 6000
"""Patients that are computed together; replicates are never cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Sums over the patients of an arm, or of a subgroup in an arm.

    Attributes:
        patients: randomised.
        observed: with an outcome.
        total: sum of the outcomes.
        squares: sum of their squares.
    """

    patients: int
    observed: int
    total: float
    squares: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """An arm against the control, for one endpoint.

    Attributes:
        arm: place of the arm.
        endpoint: place of the endpoint.
        plain: not adjusted; none where too few patients have an outcome.
        adjusted: for the prognostic score, if the plan has one; primary endpoint only.
    """

    arm: int
    endpoint: int
    plain: Estimate | None
    adjusted: Estimate | None


_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_POINTS = 480


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """How an arm went on, for a plot.

    Attributes:
        hours: (hours,).
        levels: quantiles 5, 25, 50, 75, 95 % of the true level of who is still there, (5, hours).
        amounts: median amount prescribed on each day, (days,).
    """

    hours: Floats
    levels: Floats
    amounts: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicate:
    """What is kept of one repetition.

    Attributes:
        number: which one.
        cells: by arm, endpoint and subgroup; subgroup '' is everybody.
        comparisons: of every arm but the control, for every endpoint.
        score_correlation: of the score with the primary outcome in the control arm; NaN without.
        curves: of each arm, of the first repetition only.
        left: patients who left before the end.
    """

    number: int
    cells: Mapping[tuple[int, int, str], Cell]
    comparisons: tuple[Comparison, ...]
    score_correlation: float
    curves: tuple[Curves, ...]
    left: int


def chunks(plan: TrialPlan, count: int) -> list[tuple[int, ...]]:
    """Numbers of repetitions that are computed together; the plan alone decides."""
    size = max(1, _AT_ONCE // plan.patients)
    return [tuple(range(first, min(first + size, count))) for first in range(0, count, size)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Repetitions as a piece of work that can be sent to another process."""

    plan: TrialPlan
    laboratory: Laboratory
    history: HistoryModel | None = None

    def __call__(self, numbers: tuple[int, ...]) -> list[Replicate]:
        """Do some of them at once."""
        torch.set_num_threads(1)
        return _Repetitions(self.plan, self.laboratory, numbers).run(self.history)


def learn_history(plan: TrialPlan, laboratory: Laboratory) -> HistoryModel | None:
    """What earlier patients under the control arm teach, if the plan's score is made of it."""
    prognosis = plan.analysis.prognosis
    if prognosis is None or prognosis.by != "history":
        return None
    return Conduct(plan, laboratory).history(prognosis.patients)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Randomised:
    """One repetition's patients, their frozen score, and their arms."""

    number: int
    patients: VirtualPatients
    score: FrozenScore | None
    allocation: Allocation


class _Repetitions:
    """Some repetitions, side by side."""

    def __init__(self, plan: TrialPlan, laboratory: Laboratory, numbers: tuple[int, ...]) -> None:
        self._plan, self._numbers = plan, numbers
        self._conduct = Conduct(plan, laboratory)
        self._streams = self._streams_of(numbers)
        self._patients = draw_population(plan.population, self._streams, laboratory.rows)

    def _streams_of(self, numbers: tuple[int, ...]) -> Streams:
        plan = self._plan
        return Streams(seed=plan.seed, replicates=numbers, first=0, count=plan.patients)

    def run(self, history: HistoryModel | None) -> list[Replicate]:
        """All of them, in order."""
        plan, conduct = self._plan, self._conduct
        model = history or self._twin()
        trials = [self._randomised(place, model) for place in range(len(self._numbers))]
        arms = np.concatenate([one.allocation.arm for one in trials])
        leaves = plan.population.dropout.days(self._patients.covariates, self._streams)
        truth = conduct.truth_of(self._patients, self._streams, conduct.truth)
        found = np.full((len(plan.endpoints), len(self._patients)), np.nan)
        curves: list[Curves] = []
        for arm, _ in enumerate(plan.arms):
            chosen = np.flatnonzero(arms == arm)
            group = conduct.group(self._patients, chosen, self._streams, truth, leaves)
            course = conduct.course(arm, group)
            found[:, chosen] = conduct.outcomes(course, group)
            if self._numbers[0] == 0:
                shown = np.flatnonzero(chosen < plan.patients)
                curves.append(_curves(course, group, plan.days, shown))
        return [
            self._replicate(place, one, found, leaves, tuple(curves) if place == 0 else ())
            for place, one in enumerate(trials)
        ]

    def _twin(self) -> PrognosticModel | None:
        prognosis = self._plan.analysis.prognosis
        if prognosis is None:
            return None
        return TwinForecast(conduct=self._conduct, draws=prognosis.draws)

    def _rows(self, place: int) -> slice:
        return slice(place * self._plan.patients, (place + 1) * self._plan.patients)

    def _randomised(self, place: int, model: PrognosticModel | None) -> _Randomised:
        rows = np.arange(len(self._patients))[self._rows(place)]
        patients = self._patients.take(rows)
        score = None if model is None else freeze(model, patients)
        streams = self._streams_of((self._numbers[place],))
        allocation = allocate([arm.share for arm in self._plan.arms], streams, score)
        return _Randomised(
            number=self._numbers[place], patients=patients, score=score, allocation=allocation
        )

    def _replicate(
        self,
        place: int,
        one: _Randomised,
        found: Floats,
        leaves: Floats,
        curves: tuple[Curves, ...],
    ) -> Replicate:
        outcomes, rows = found[:, self._rows(place)], self._rows(place)
        control = one.allocation.arm == self._plan.control
        return Replicate(
            number=one.number,
            cells=_cells(self._plan, one, outcomes),
            comparisons=tuple(_comparisons(self._plan, one, outcomes)),
            score_correlation=_correlation(one.score, outcomes[0], control),
            curves=curves,
            left=int((leaves[rows] < self._plan.days).sum()),
        )


def _cells(plan: TrialPlan, one: _Randomised, found: Floats) -> dict[tuple[int, int, str], Cell]:
    gene = plan.analysis.subgroup_gene
    groups = {"": np.ones(len(one.patients), dtype=bool)}
    if gene is not None:
        each = np.array(one.patients.genotypes[gene].phenotype())
        groups.update({f"{gene} {name}": each == name for name in sorted(set(each.tolist()))})
    return {
        (arm, endpoint, name): _cell(found[endpoint][(one.allocation.arm == arm) & inside])
        for arm in range(len(plan.arms))
        for endpoint in range(len(plan.endpoints))
        for name, inside in groups.items()
    }


def _comparisons(plan: TrialPlan, one: _Randomised, found: Floats) -> list[Comparison]:
    others = [arm for arm in range(len(plan.arms)) if arm != plan.control]
    return [
        _comparison(plan, one, (arm, endpoint), outcome)
        for arm in others
        for endpoint, outcome in enumerate(found)
    ]


def _comparison(
    plan: TrialPlan, one: _Randomised, key: tuple[int, int], outcome: Floats
) -> Comparison:
    arm, endpoint = key
    confidence = plan.analysis.confidence
    both = np.isin(one.allocation.arm, (arm, plan.control))
    treated = one.allocation.arm[both] == arm
    seen = np.isfinite(outcome[both])
    plain = adjusted = None
    if min((seen & treated).sum(), (seen & ~treated).sum()) >= 2:
        plain = difference(outcome[both], treated, confidence)
        if endpoint == 0 and one.score is not None:
            arms = (arm, plan.control)
            adjusted = procova(outcome, one.patients, arms, one.allocation, one.score, confidence)
    return Comparison(arm=arm, endpoint=endpoint, plain=plain, adjusted=adjusted)


def _curves(course: Course, group: Group, days: float, shown: Integers) -> Curves:
    hours = np.linspace(0.0, days * 24.0, _POINTS + 1)[1:]
    rows = torch.from_numpy(shown)
    with torch.no_grad():
        times = as_tensor(hours).repeat(len(shown), 1)
        model, effects = group.truth.model, group.truth.effects[rows]
        levels = model.predict(course.batch.where(rows), effects, times).numpy()
    stays = group.leaves_day[shown, None] > hours[None, :] / 24.0
    there = stays.any(axis=0)
    found = np.full((len(_QUANTILES), len(hours)), np.nan)
    values = np.where(stays, levels, np.nan)[:, there]
    found[:, there] = np.nanquantile(values, _QUANTILES, axis=0)
    day = (course.times_h // 24).astype(int)
    given = course.prescribed[shown]
    amounts = [np.median(given[:, day == one].sum(axis=1)) for one in range(int(days))]
    return Curves(hours=hours, levels=found, amounts=np.array(amounts))


def _cell(values: Floats) -> Cell:
    seen = values[np.isfinite(values)]
    return Cell(
        patients=len(values),
        observed=len(seen),
        total=float(seen.sum()),
        squares=float((seen**2).sum()),
    )


def _correlation(score: FrozenScore | None, outcome: Floats, control: np.ndarray) -> float:
    chosen = control & np.isfinite(outcome)
    if score is None or chosen.sum() < 3:
        return float("nan")
    first, second = score.values[chosen], outcome[chosen]
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
