"""Virtual patients under a plan's arms: what both sides of a trial, and its past, are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

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
from fedtwin_twins.trials.prognosis import HistoryModel, learn_from_history
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


class Conduct:
    """A plan with the models that it names.

    Args:
        plan: checked.
        laboratory: what it is run with.
    """

    def __init__(self, plan: TrialPlan, laboratory: Laboratory) -> None:
        self.plan, self.laboratory = plan, laboratory
        self.truth = laboratory.find_model(plan.drug.truth.model)
        name = plan.drug.dosing_model
        self.dosing = None if name is None else laboratory.find_model(name)

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
        streams = Streams(seed=plan.seed, replicates=(_HISTORY,), first=0, count=size)
        patients = draw_population(plan.population, streams, self.laboratory.rows)
        leaves = plan.population.dropout.days(patients.covariates, streams)
        truth = self.truth_of(patients, streams, self.truth)
        group = self.group(patients, np.arange(size), streams, truth, leaves)
        outcome = self.outcomes(self.course(plan.control, group), group)[0]
        name = f"regression on {size} earlier patients under {plan.analysis.control}"
        return learn_from_history(patients, outcome, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinForecast:
    """What the dosing model foretells of patients under the control arm, as a mean over draws.

    It sees what is known before the trial, and draws random effects of its own.
    """

    conduct: Conduct
    draws: int

    @property
    def name(self) -> str:
        """For the report."""
        return f"forecast by {self.conduct.plan.drug.dosing_model}, mean of {self.draws} draws"

    def predict(self, patients: VirtualPatients) -> Floats:
        """The expected primary outcome under the control arm, (patients,)."""
        conduct, size = self.conduct, len(patients)
        assert conduct.dosing is not None  # the plan was checked
        streams = Streams(
            seed=conduct.plan.seed,
            replicates=tuple(_GHOSTS + draw for draw in range(self.draws)),
            first=0,
            count=size,
        )
        ghosts = patients.take(np.tile(np.arange(size), self.draws))
        truth = conduct.truth_of(ghosts, streams, conduct.dosing)
        stays = np.full(streams.patients, np.inf)
        group = conduct.group(ghosts, np.arange(streams.patients), streams, truth, stays)
        found = conduct.outcomes(conduct.course(conduct.plan.control, group), group)[0]
        return np.asarray(found.reshape(self.draws, size).mean(axis=0), dtype=np.float64)
