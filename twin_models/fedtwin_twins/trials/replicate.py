"""One repetition of a trial: draw patients, freeze the score, randomise, treat, compare.

Every step has chance of its own (`streams`), so that repetitions may be done in any order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from fedtwin_twins.trials.allocation import Allocation, allocate
from fedtwin_twins.trials.analysis import Estimate, difference, procova
from fedtwin_twins.trials.course import Course, Group, run_arm
from fedtwin_twins.trials.covariates import Rows
from fedtwin_twins.trials.dosing import Doser, Fit
from fedtwin_twins.trials.drug import (
    Truth,
    as_tensor,
    doses_of,
    draw_effects,
    scale_parameters,
    traits_of,
)
from fedtwin_twins.trials.endpoints import outcomes
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.population import VirtualPatients, draw_population
from fedtwin_twins.trials.prognosis import (
    FrozenScore,
    HistoryModel,
    PrognosticModel,
    freeze,
    learn_from_history,
)
from fedtwin_twins.trials.streams import Floats, Integers, Streams
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.model import TwinModel

_HISTORY: Final = 2**31
"""Number of the replicate that plays the past; repetitions of the trial are far below."""
_GHOSTS: Final = 2**31 + 1
"""Numbers of the replicates that give a twin its random effects begin here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Laboratory:
    """What a trial is run with, beside its plan.

    Attributes:
        find_model: a twin model by name.
        fit: how a dosing model learns from levels.
        rows: covariates of real patients, if the population is drawn from them.
    """

    find_model: Callable[[str], TwinModel]
    fit: Fit
    rows: Rows | None = None


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicate:
    """What is kept of one repetition.

    Attributes:
        number: which one.
        cells: by arm, endpoint and subgroup; subgroup '' is everybody.
        comparisons: of every arm but the control, for every endpoint.
        score_correlation: of the score with the primary outcome in the control arm; NaN without.
        levels: quantiles 5, 25, 50, 75, 95 % of the true level in each arm over `hours`,
            (arms, quantiles, hours); of the first replicate only.
        hours: of `levels`.
        amounts: median prescribed amount in each arm on each day, (arms, days); likewise.
        left: patients who left before the end.
    """

    number: int
    cells: Mapping[tuple[int, int, str], Cell]
    comparisons: tuple[Comparison, ...]
    score_correlation: float
    levels: Floats
    hours: Floats
    amounts: Floats
    left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One repetition as a piece of work that can be sent to another process."""

    plan: TrialPlan
    laboratory: Laboratory
    history: HistoryModel | None = None

    def __call__(self, number: int) -> Replicate:
        """Do it."""
        torch.set_num_threads(1)
        return _Run(self.plan, self.laboratory).replicate(number, self.history)


def learn_history(plan: TrialPlan, laboratory: Laboratory) -> HistoryModel | None:
    """What earlier patients under the control arm teach, if the plan's score is made of it."""
    prognosis = plan.analysis.prognosis
    if prognosis is None or prognosis.by != "history":
        return None
    return _Run(plan, laboratory).history(prognosis.patients)


class _Run:
    def __init__(self, plan: TrialPlan, laboratory: Laboratory) -> None:
        self.plan, self.laboratory = plan, laboratory
        self.truth = laboratory.find_model(plan.drug.truth.model)
        name = plan.drug.dosing_model
        self.dosing = None if name is None else laboratory.find_model(name)

    def replicate(self, number: int, history: HistoryModel | None) -> Replicate:
        plan = self.plan
        streams = Streams(seed=plan.seed, replicate=number, first=0, count=plan.patients)
        patients = draw_population(plan.population, streams, self.laboratory.rows)
        model = history or self._twin(patients)
        score = None if model is None else freeze(model, patients)
        allocation = allocate([arm.share for arm in plan.arms], streams, score)
        leaves = plan.population.dropout.days(patients.covariates, streams)
        truth = self.truth_of(patients, streams, self.truth)
        found = np.full((len(plan.endpoints), len(patients)), np.nan)
        levels, amounts = [], []
        for place, _ in enumerate(plan.arms):
            chosen = np.flatnonzero(allocation.arm == place)
            group = self.group(patients, chosen, streams, truth, leaves)
            course = self.course(place, group)
            found[:, chosen] = self.outcomes(course, group)
            if number == 0:
                levels.append(self._levels(course, group))
                amounts.append(_daily(course, plan.days))
        return Replicate(
            number=number,
            cells=self._cells(patients, allocation, found),
            comparisons=tuple(self._comparisons(patients, allocation, score, found)),
            score_correlation=_correlation(score, found[0], allocation.arm == plan.control),
            levels=np.array(levels),
            hours=self._hours() if number == 0 else np.zeros(0),
            amounts=np.array(amounts),
            left=int((leaves < plan.days).sum()),
        )

    def truth_of(self, patients: VirtualPatients, streams: Streams, model: TwinModel) -> Truth:
        """What really goes on in these patients if a model is right."""
        every = self.plan.drug.truth.occasion_days
        starts = [] if every is None else list(np.arange(every, self.plan.days, every) * 24.0)
        occasions = 1 + len(starts) if model.occasion_effects else 0
        traits = traits_of(model, patients, starts)
        effects = draw_effects(model, streams, occasions)
        if model is self.truth and (factors := self._factors(patients)):
            nothing = doses_of(
                model, np.zeros(0), np.zeros((len(patients), 0)), 0.0, self.plan.drug.route
            )
            batch = Batch(doses=nothing, traits=traits)
            effects = scale_parameters(model, batch, effects, factors)
        return Truth(model=model, traits=traits, effects=as_tensor(effects))

    def _factors(self, patients: VirtualPatients) -> dict[str, Floats]:
        given = self.plan.drug.truth.parameter_factors
        found = {name: np.full(len(patients), factor) for name, factor in given.items()}
        for condition in self.plan.population.conditions:
            has = patients.conditions[condition.name]
            for name, factor in condition.parameter_factors.items():
                before = found.get(name, np.ones(len(patients)))
                found[name] = np.where(has, before * factor, before)
        return found

    def group(
        self,
        patients: VirtualPatients,
        places: Integers,
        streams: Streams,
        truth: Truth,
        leaves: Floats,
    ) -> Group:
        """Some of the patients, with all that befalls them."""
        some = patients.take(places)
        chosen = torch.from_numpy(places)
        doser = None
        if self.dosing is not None:
            doser = Doser(
                model=self.dosing,
                traits=traits_of(self.dosing, some),
                route=self.plan.drug.route,
                fit=self.laboratory.fit,
            )
        nothing = doses_of(
            truth.model, np.zeros(0), np.zeros((len(patients), 0)), 0.0, self.plan.drug.route
        )
        traits = Batch(doses=nothing, traits=truth.traits).where(chosen).traits
        return Group(
            patients=some,
            places=places,
            streams=streams,
            truth=Truth(model=truth.model, traits=traits, effects=truth.effects[chosen]),
            leaves_day=leaves[places],
            doser=doser,
            route=self.plan.drug.route,
        )

    def course(self, arm: int, group: Group) -> Course:
        """Let an arm run over a group."""
        found = self.plan.arms[arm]
        doses = len(np.arange(0.0, self.plan.days * 24.0, found.doses.interval_h))
        taken = self.plan.population.adherence.taken(doses, group.streams)[group.places]
        return run_arm(found, group, taken, self.plan.days)

    def outcomes(self, course: Course, group: Group) -> Floats:
        """Of every endpoint, (endpoints, patients)."""
        uniforms = {
            one.name: group.streams.uniforms(f"event {one.name}")[group.places]
            for one in self.plan.endpoints
            if one.event is not None
        }
        return np.stack([outcomes(one, course, group, uniforms) for one in self.plan.endpoints])

    def history(self, size: int) -> HistoryModel:
        """A regression on earlier patients under the control arm."""
        plan = self.plan
        streams = Streams(seed=plan.seed, replicate=_HISTORY, first=0, count=size)
        patients = draw_population(plan.population, streams, self.laboratory.rows)
        leaves = plan.population.dropout.days(patients.covariates, streams)
        truth = self.truth_of(patients, streams, self.truth)
        group = self.group(patients, np.arange(size), streams, truth, leaves)
        outcome = self.outcomes(self.course(plan.control, group), group)[0]
        name = f"regression on {size} earlier patients under {plan.analysis.control}"
        return learn_from_history(patients, outcome, name)

    def _twin(self, patients: VirtualPatients) -> PrognosticModel | None:
        prognosis = self.plan.analysis.prognosis
        if prognosis is None or self.dosing is None:
            return None
        return TwinForecast(run=self, draws=prognosis.draws)

    def _hours(self) -> Floats:
        return np.linspace(0.0, self.plan.days * 24.0, 24 * 20 + 1)[1:]

    def _levels(self, course: Course, group: Group) -> Floats:
        with torch.no_grad():
            times = as_tensor(self._hours()).repeat(course.batch.patients, 1)
            levels = group.truth.model.predict(course.batch, group.truth.effects, times).numpy()
        stays = group.leaves_day[:, None] > self._hours()[None, :] / 24.0
        shown = np.where(stays, levels, np.nan)
        there = stays.any(axis=0)
        found = np.full((5, levels.shape[1]), np.nan)
        found[:, there] = np.nanquantile(shown[:, there], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        return found

    def _cells(
        self, patients: VirtualPatients, allocation: Allocation, found: Floats
    ) -> dict[tuple[int, int, str], Cell]:
        gene = self.plan.analysis.subgroup_gene
        groups = {"": np.ones(len(patients), dtype=bool)}
        if gene is not None:
            each = np.array(patients.genotypes[gene].phenotype())
            groups.update({f"{gene} {name}": each == name for name in sorted(set(each.tolist()))})
        return {
            (arm, endpoint, name): _cell(found[endpoint][(allocation.arm == arm) & inside])
            for arm in range(len(self.plan.arms))
            for endpoint in range(len(self.plan.endpoints))
            for name, inside in groups.items()
        }

    def _comparisons(
        self,
        patients: VirtualPatients,
        allocation: Allocation,
        score: FrozenScore | None,
        found: Floats,
    ) -> list[Comparison]:
        control, confidence = self.plan.control, self.plan.analysis.confidence
        results = []
        for arm in range(len(self.plan.arms)):
            if arm == control:
                continue
            both = np.isin(allocation.arm, (arm, control))
            treated = allocation.arm[both] == arm
            for endpoint, outcome in enumerate(found):
                seen = np.isfinite(outcome[both])
                enough = min((seen & treated).sum(), (seen & ~treated).sum()) >= 2
                use = score is not None and endpoint == 0 and enough
                results.append(
                    Comparison(
                        arm=arm,
                        endpoint=endpoint,
                        plain=difference(outcome[both], treated, confidence) if enough else None,
                        adjusted=procova(
                            outcome, patients, (arm, control), allocation, score, confidence
                        )
                        if use and score is not None
                        else None,
                    )
                )
        return results


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinForecast:
    """What the dosing model foretells of patients under the control arm, as a mean over draws."""

    run: _Run
    draws: int

    @property
    def name(self) -> str:
        """For the report."""
        return f"forecast by {self.run.plan.drug.dosing_model}, mean of {self.draws} draws"

    def predict(self, patients: VirtualPatients) -> Floats:
        """The expected primary outcome under the control arm, (patients,)."""
        run, size = self.run, len(patients)
        assert run.dosing is not None
        total = np.zeros(size)
        for draw in range(self.draws):
            streams = Streams(seed=run.plan.seed, replicate=_GHOSTS + draw, first=0, count=size)
            truth = run.truth_of(patients, streams, run.dosing)
            stays = np.full(size, np.inf)
            group = run.group(patients, np.arange(size), streams, truth, stays)
            total += run.outcomes(run.course(run.plan.control, group), group)[0]
        return total / self.draws


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


def _daily(course: Course, days: float) -> Floats:
    """Median amount prescribed on each day."""
    day = (course.times_h // 24).astype(int)
    found = [np.median(course.prescribed[:, day == one].sum(axis=1)) for one in range(int(days))]
    return np.array(found)
