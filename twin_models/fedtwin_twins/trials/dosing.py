"""How an arm chooses doses: from covariates and genes, from a level, or by a model's belief.

What chooses knows what a clinician would: covariates, genotypes, the prescribed doses and the
measured levels. It does not know the truth, nor which doses were missed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.trials.arms import Adjustment, Arm, Start, Target
from fedtwin_twins.trials.arms import Doses as Amounts
from fedtwin_twins.trials.drug import doses_of
from fedtwin_twins.trials.population import VirtualPatients
from fedtwin_twins.trials.streams import Floats, Integers
from fedtwin_twins.twin.batch import Batch, Observed, Traits
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any

Fit = Callable[[TwinModel, Batch, Observed], Tensor]
"""The belief about patients after some observations: most probable effects, (patients, effects)."""
_MOST_CANDIDATES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Doser:
    """The dosing model at the bedside of some patients.

    Attributes:
        model: not the truth.
        traits: of the patients, as this model sees them.
        route: of every dose.
        fit: how it learns from levels.
    """

    model: TwinModel
    traits: Traits
    route: str
    fit: Fit

    def batch(self, times_h: Floats, amounts: Floats, infusion_h: float) -> Batch:
        """The patients under a schedule, amounts (patients, doses)."""
        doses = doses_of(self.model, times_h, amounts, infusion_h, self.route)
        return Batch(doses=doses, traits=self.traits)

    def no_effects(self) -> Tensor:
        """Typical patients, (patients, effects)."""
        patients = self.traits.starts.shape[0]
        return torch.zeros((patients, len(self.model.effects)), dtype=torch.float64)


def most_probable(model: TwinModel, batch: Batch, observed: Observed) -> Tensor:
    """The usual way to learn from levels: the most probable effects, (patients, effects).

    Where the search ends before the mode, the best found so far is taken.
    """
    return find_mode(evidence_of(model, batch, observed)).effects


def rounded(amounts: Floats, allowed: Amounts) -> Floats:
    """The nearest amounts that there are."""
    steps = np.round(amounts / allowed.step) * allowed.step
    return np.asarray(np.clip(steps, allowed.lowest, allowed.highest), dtype=np.float64)


def first_amounts(arm: Arm, patients: VirtualPatients, doser: Doser | None) -> Floats:
    """What each patient is given first, without the loading factor, (patients,).

    Raises:
        Refusal: the plan speaks of a covariate or a gene that there is not, or lacks a model.
    """
    start = arm.start
    if start.amount is None:
        return _first_by_model(arm, patients, doser)
    amounts = np.full(len(patients), start.amount)
    if start.per is not None:
        refuse_if_any(_unknown(arm.name, "per", start.per, tuple(patients.covariates)))
        amounts = amounts * patients.covariates[start.per]
    if start.gene is not None:
        refuse_if_any(_unknown(arm.name, "gene", start.gene, tuple(patients.genotypes)))
        amounts = amounts * _factors(start, patients)
    return rounded(amounts, arm.doses)


def _factors(start: Start, patients: VirtualPatients) -> Floats:
    found = patients.genotypes[str(start.gene)]
    each = np.array([start.factors.get(name, 1.0) for name in found.phenotypes])
    return np.asarray(each[found.index], dtype=np.float64)


def _unknown(arm: str, what: str, name: str, there: tuple[str, ...]) -> list[Problem]:
    if name in there:
        return []
    allowed = " or ".join(there) or "something that the population has"
    return [Problem(field=f"arm {arm}: start.{what}", value=name, allowed=allowed)]


def _first_by_model(arm: Arm, patients: VirtualPatients, doser: Doser | None) -> Floats:
    if doser is None or arm.start.target is None:
        problem = Problem(field=f"arm {arm.name}: dosing", remedy="name a dosing model in the plan")
        raise Refusal(problem)
    ahead = arm.adjust.horizon_h if arm.adjust is not None else 3 * 24.0
    choice = _Choice(
        doser=doser,
        past_times=np.zeros(0),
        past=np.zeros((len(patients), 0)),
        now_h=0.0,
        horizon_h=ahead,
    )
    return choice.best(doser.no_effects(), arm.doses, arm.start.target, None)


def in_proportion(last: Floats, level: Floats, adjust: Adjustment, allowed: Amounts) -> Floats:
    """The next amounts by the rule of three; the last ones where the level is in the window.

    Args:
        last: amounts so far, (patients,).
        level: troughs, (patients,); NaN where none was measured.
        adjust: window and largest change.
        allowed: amounts that there are.
    """
    target = adjust.target
    outside = np.isfinite(level) & ((level < target.low) | (level > target.high))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(outside, target.aim / level, 1.0)
    bounded = np.clip(factor, 1 / adjust.largest_change, adjust.largest_change)
    return np.where(outside, rounded(last * bounded, allowed), last)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choice:
    """Which amount to go on with, by what a model foretells of each."""

    doser: Doser
    past_times: Floats
    past: Floats
    now_h: float
    horizon_h: float

    def best(
        self,
        effects: Tensor,
        allowed: Amounts,
        target: Target,
        bounds: tuple[Floats, Floats] | None,
    ) -> Floats:
        """The amount whose foretold measure is nearest to the aim, as a ratio, (patients,)."""
        candidates = _candidates(allowed)
        wanted = np.ones((self.past.shape[0], len(candidates)), dtype=bool)
        if bounds is not None:
            within = (candidates >= bounds[0][:, None]) & (candidates <= bounds[1][:, None])
            # Where no amount lies within, the nearest to the aim of all there are is taken.
            wanted = within | ~within.any(axis=1, keepdims=True)
        rows, options = np.nonzero(wanted)
        found = self._measures(effects, allowed, target, (rows, candidates[options]))
        distance = np.full(wanted.shape, np.inf)
        distance[rows, options] = np.abs(np.log(np.maximum(found, 1e-12) / target.aim))
        return np.asarray(candidates[distance.argmin(axis=1)], dtype=np.float64)

    def _measures(
        self,
        effects: Tensor,
        allowed: Amounts,
        target: Target,
        asked: tuple[Integers, Floats],
    ) -> Floats:
        """Foretold for some patients, by place, and an amount for each, (asked,)."""
        rows, coming = asked
        future = self.now_h + np.arange(0.0, self.horizon_h, allowed.interval_h)
        end = float(future[-1] + allowed.interval_h)
        later = coming[:, None].repeat(len(future), axis=1)
        amounts = np.concatenate([self.past[rows], later], axis=1)
        times = np.concatenate([self.past_times, future])
        model, places = self.doser.model, torch.from_numpy(rows)
        now = self.doser.batch(self.past_times, self.past, allowed.infusion_h)
        doses = doses_of(model, times, amounts, allowed.infusion_h, self.doser.route)
        batch = Batch(doses=doses, traits=now.where(places).traits)
        # What passed with an occasion does not come again: its effects are 0 from now on.
        lasting = effects[:, : len(model.effects)]
        return measure(model, batch, lasting[places], end, target.measure)


def _candidates(allowed: Amounts) -> Floats:
    """Amounts to try: all there are, or some of them spread evenly on the logarithm."""
    first, last = round(allowed.lowest / allowed.step), round(allowed.highest / allowed.step)
    steps = np.arange(max(first, 1), last + 1)
    if len(steps) > _MOST_CANDIDATES:
        steps = np.unique(np.round(np.geomspace(steps[0], steps[-1], _MOST_CANDIDATES)))
    return np.asarray(steps * allowed.step, dtype=np.float64)


def measure(model: TwinModel, batch: Batch, effects: Tensor, at_h: float, kind: str) -> Floats:
    """A trough at an hour, or the area over the 24 hours before it, (patients,)."""
    with torch.no_grad():
        if kind == "trough":
            times = torch.full((batch.patients, 1), at_h, dtype=torch.float64)
            found = model.predict(batch, effects, times)[:, 0]
        else:
            ends = torch.tensor([max(at_h - 24.0, 0.0), at_h], dtype=torch.float64)
            areas = model.exposure(batch, effects, ends.repeat(batch.patients, 1))
            found = areas[:, 1] - areas[:, 0]
    return np.asarray(found.numpy(), dtype=np.float64)


def by_belief(
    doser: Doser,
    adjust: Adjustment,
    allowed: Amounts,
    past: tuple[Floats, Floats],
    observed: Observed,
    now_h: float,
) -> Floats:
    """The next amounts by the dosing model's belief after the levels so far, (patients,).

    Args:
        doser: the model and the patients.
        adjust: target, horizon and largest change.
        allowed: amounts that there are.
        past: times (doses,) and prescribed amounts (patients, doses) before `now_h`.
        observed: levels so far.
        now_h: when the next dose is given.
    """
    times, amounts = past
    effects = doser.fit(doser.model, doser.batch(times, amounts, allowed.infusion_h), observed)
    choice = _Choice(
        doser=doser, past_times=times, past=amounts, now_h=now_h, horizon_h=adjust.horizon_h
    )
    last = amounts[:, -1]
    bounds = (last / adjust.largest_change, last * adjust.largest_change)
    chosen = choice.best(effects, allowed, adjust.target, bounds)
    # Nobody's dose is changed who was not measured.
    return np.where(observed.present.any(dim=1).numpy(), chosen, last)
