"""One patient's twin: what models believe of the patient, and the five verbs of every organ.

    twin = build(models, patient, seed=1)          # from traits alone: the population's belief
    twin = twin.update(observations=[...])         # in any order, late, missing, odd
    twin.forecast(hours)                           # quantiles over time
    twin.compare({"as now": a, "less": b}, hours)  # schedules side by side, on the same draws
    twin.advise(goal, limits, regimens, horizon)   # a proposal with reasons, or a refusal

A twin is a value: `update` makes another one from the whole record, so that the order in which
measurements arrive changes nothing. Several models of one drug share the belief by how well each
explains the patient (`belief.averaging`); what each says alone stays visible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedtwin_twins.advice.assessment import Horizon, Outlook, future
from fedtwin_twins.advice.explanation import (
    contributions,
    disagreement,
    in_words,
    lessons,
    shifts,
)
from fedtwin_twins.advice.limits import Limits
from fedtwin_twins.advice.proposal import Proposal
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import Choice, Goal, choose
from fedtwin_twins.belief.averaging import Candidate, Scheme, average_forecast, model_weights
from fedtwin_twins.belief.forecast import LEVELS, Asked, future_effects
from fedtwin_twins.belief.posterior import USUAL, Inference, Posterior, infer
from fedtwin_twins.patient_model import PatientModel
from fedtwin_twins.twin.batch import Batch, Observed
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.refusals import Problem, Refusal, Unfit, refuse_if_any
from fedtwin_twins.twin.schedule import Dose, Meal, Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One model's belief.

    Attributes:
        model: whose.
        batch: the patient's doses and traits, one row.
        observed: the measurements, one row.
        posterior: of one patient.
        share: how far the model is believed among the twin's.
    """

    model: PatientModel
    batch: Batch
    observed: Observed
    posterior: Posterior
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinForecast:
    """Quantiles over time under one schedule.

    Attributes:
        hours: from the origin, (times,).
        levels: of the quantiles, ascending.
        quantiles: (times, levels), in `unit`.
        point: the most probable course, (times,).
        by_model: each model's most probable course, (times,).
        observable: by name.
        unit: UCUM.
        cautions: what must be shown beside it.
    """

    hours: Tensor
    levels: tuple[float, ...]
    quantiles: Tensor
    point: Tensor
    by_model: Mapping[str, Tensor]
    observable: str
    unit: str
    cautions: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Advised:
    """The answer to "which dose?".

    Attributes:
        proposal: the best regimen, to be signed by a clinician.
        choice: what else was possible, and what was set aside and why.
    """

    proposal: Proposal
    choice: Choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """What is believed of one patient; made by `build`.

    Attributes:
        patient: the whole record.
        members: one for each model.
        seed: of all draws.
        how: beliefs are come by.
        scheme: by which models share the belief.
        cautions: what must be shown beside every result.
    """

    patient: Patient
    members: tuple[Member, ...]
    seed: int
    how: Inference
    scheme: Scheme
    cautions: tuple[Problem, ...]

    def update(
        self,
        *,
        observations: Sequence[Observation] = (),
        interventions: Sequence[Dose | Meal] = (),
        covariates: Mapping[str, Recorded] | None = None,
    ) -> "Twin":
        """The same twin with more of the record.

        Args:
            observations: measured since, or found late.
            interventions: done since, or found late.
            covariates: by name; each takes the place of what was known of it.

        Raises:
            Refusal: see `tabulate`.
        """
        old = self.patient
        patient = replace(
            old,
            observations=(*old.observations, *observations),
            schedule=Schedule((*old.schedule.interventions, *interventions)),
            covariates={**old.covariates, **(covariates or {})},
        )
        models = [one.model for one in self.members]
        return build(models, patient, seed=self.seed, how=self.how, scheme=self.scheme)

    def forecast(
        self,
        hours: Sequence[float],
        *,
        schedule: Schedule | None = None,
        observable: str = "",
        with_error: bool = False,
        levels: Sequence[float] = LEVELS,
    ) -> TwinForecast:
        """What will be seen of the patient.

        Args:
            hours: from the origin, at least one.
            schedule: to come after what was done; none: nothing more is done.
            observable: by name; empty: the model's first.
            with_error: as it will be measured; without, the truth.
            levels: of the quantiles.

        Raises:
            Refusal: no hours, an observable that a model does not have, or a schedule that cannot
                be read, or has no steady state.
        """
        if not hours:
            raise Refusal(Problem(field="hours", allowed="at least one"))
        name = observable or self.members[0].model.observables[0].name
        times = torch.tensor([list(hours)], dtype=torch.float64)
        candidates = [self._candidate(one, schedule, name) for one in self.members]
        shares = torch.tensor([[one.share for one in self.members]], dtype=torch.float64)
        asked = Asked(times=times, with_error=with_error, levels=tuple(levels))
        found = average_forecast(candidates, shares, asked, self._generator())
        with torch.no_grad():
            alone = {
                one.model.name: one.model.predict(one.batch, one.posterior.mode, times, one.kind)[0]
                for one in candidates
            }
        return TwinForecast(
            hours=times[0],
            levels=tuple(levels),
            quantiles=found.quantiles[0],
            point=found.point[0],
            by_model=alone,
            observable=name,
            unit=candidates[0].model.observables[candidates[0].kind].unit,
            cautions=self.cautions,
        )

    def compare(
        self, schedules: Mapping[str, Schedule], hours: Sequence[float], *, observable: str = ""
    ) -> dict[str, TwinForecast]:
        """Schedules side by side, on the same draws.

        Raises:
            Refusal: see `forecast`.
        """
        return {
            name: self.forecast(hours, schedule=schedule, observable=observable)
            for name, schedule in schedules.items()
        }

    def advise(
        self,
        goal: Goal,
        limits: Limits,
        regimens: Sequence[Regimen],
        horizon: Horizon,
        *,
        current: Regimen | None = None,
    ) -> Advised:
        """The regimen that best meets a goal within hard limits, with reasons.

        Args:
            goal: targets, and how probable they must be.
            limits: that nothing may break.
            regimens: that can be given.
            horizon: when the regimen starts, and when it is judged.
            current: what the patient has now.

        A model that the patient's data do not fit, or of which too few draws count, has no say.

        Raises:
            Unreachable: nothing that is allowed meets the goal; with the reasons.
            Unfit: no model may have a say.
            Refusal: something that a model does not know.
        """
        members = self._trusted()
        outlooks = [self._outlook(one) for one in members]
        refused = _impossible(members, outlooks, regimens, horizon)
        choice = choose(outlooks, regimens, goal, limits, horizon, current, refused=refused)
        proposal = Proposal(
            assessment=choice.best,
            limits=limits,
            current=current,
            reasons=tuple(_reasons(choice, members, outlooks)),
            cautions=self.cautions,
        )
        return Advised(proposal=proposal, choice=choice)

    def outlooks(self) -> list[Outlook]:
        """The patient as each model sees them, for questions of `advice`."""
        return [self._outlook(one) for one in self.members]

    def _trusted(self) -> list[Member]:
        """The members that may carry advice.

        Raises:
            Unfit: none.
        """
        doubts = [one.posterior.unfit() for one in self.members]
        if all(doubts):
            raise Unfit(
                *(
                    _of(one.model, problem, named=True)
                    for one, problems in zip(self.members, doubts, strict=True)
                    for problem in problems
                )
            )
        return [one for one, found in zip(self.members, doubts, strict=True) if not found]

    def _candidate(self, member: Member, schedule: Schedule | None, observable: str) -> Candidate:
        names = [one.name for one in member.model.observables]
        if observable not in names:
            raise Refusal(
                Problem(
                    field="observable",
                    value=observable,
                    allowed=" or ".join(names),
                    remedy=f"{member.model.name} does not predict it",
                )
            )
        batch = member.batch
        if schedule is not None:
            both = (*self.patient.schedule.interventions, *schedule.interventions)
            patient = replace(self.patient, schedule=Schedule(both), observations=())
            batch = tabulate([patient], member.model.intake).batch
            refuse_if_any(member.model.impossible(batch, member.posterior.mode).values())
        return Candidate(
            model=member.model,
            posterior=member.posterior,
            batch=batch,
            kind=names.index(observable),
        )

    def _outlook(self, member: Member) -> Outlook:
        effects = future_effects(member.model, member.posterior, member.batch, self._generator())
        return Outlook(
            model=member.model,
            batch=member.batch,
            effects=effects[0],
            weights=member.posterior.weights[0],
            share=member.share,
        )

    def _generator(self) -> torch.Generator:
        """The same for every question, so that answers are compared on the same draws."""
        return torch.Generator().manual_seed(self.seed)


def build(
    models: Sequence[PatientModel],
    patient: Patient,
    *,
    seed: int,
    how: Inference = USUAL,
    scheme: Scheme = "marginal",
    only_told: bool = False,
) -> Twin:
    """A twin from a patient's record.

    Args:
        models: of one drug, at least one.
        patient: traits, what was done, what was measured.
        seed: of all draws: the same seed and record give the same numbers.
        how: beliefs are come by.
        scheme: by which several models share the belief.
        only_told: a steady state that cannot exist is a caution; else it is refused.

    Raises:
        Refusal: no model, or a record from which no number may be computed.
    """
    if not models:
        raise Refusal(Problem(field="models", allowed="at least one"))
    tables = [tabulate([patient], model.intake) for model in models]
    posteriors = [
        infer(model, one.batch, one.observed, torch.Generator().manual_seed(seed), how)
        for model, one in zip(models, tables, strict=True)
    ]
    impossible = [
        problem
        for model, one, posterior in zip(models, tables, posteriors, strict=True)
        for problem in model.impossible(one.batch, posterior.mode).values()
    ]
    refuse_if_any([] if only_told else impossible)
    shares = model_weights(posteriors, scheme)[0] if len(models) > 1 else torch.ones(1)
    members = tuple(
        Member(
            model=model,
            batch=one.batch,
            observed=one.observed,
            posterior=posterior,
            share=float(share),
        )
        for model, one, posterior, share in zip(models, tables, posteriors, shares, strict=True)
    )
    named = len(models) > 1
    cautions = [
        problem
        for model, one, posterior in zip(models, tables, posteriors, strict=True)
        for problem in (
            *(_of(model, each, named) for each in (*one.cautions[0], *posterior.cautions[0])),
            *model.cautions,
        )
    ]
    return Twin(
        patient=patient,
        members=members,
        seed=seed,
        how=how,
        scheme=scheme,
        cautions=tuple(dict.fromkeys([*impossible, *cautions])),
    )


def _impossible(
    members: Sequence[Member],
    outlooks: Sequence[Outlook],
    regimens: Sequence[Regimen],
    horizon: Horizon,
) -> list[list[Problem]]:
    """For each regimen, why a model has no steady state of it in this patient."""
    found: list[list[Problem]] = [[] for _ in regimens]
    if horizon.judged_h is not None or any(one.once for one in regimens):
        return found
    for member, outlook in zip(members, outlooks, strict=True):
        batch, _ = future(outlook, regimens, horizon)
        mode = member.posterior.mode[:, : len(member.model.effects)].expand(len(regimens), -1)
        for place, problem in member.model.impossible(batch, mode).items():
            found[place].append(_of(member.model, problem, len(members) > 1))
    return found


def _reasons(choice: Choice, members: Sequence[Member], outlooks: Sequence[Outlook]) -> list[str]:
    """From the model that is believed most."""
    place = max(range(len(outlooks)), key=lambda number: outlooks[number].share)
    member, outlook = members[place], outlooks[place]
    intake = member.model.intake
    units = {name: one.range.unit for name, one in intake.covariates.items()}
    units.update({one.range.name: one.range.unit for one in intake.derived})
    parts: list[Sequence[object]] = [
        in_words(choice.best),
        [f"as now, {one}" for one in in_words(choice.current)] if choice.current else [],
        shifts(outlook),
        contributions(member.model.covariate_factors(member.batch), member.batch, units),
        lessons(member.model, member.batch, member.observed, member.posterior.mode),
        disagreement(choice.best),
    ]
    return [str(one) for part in parts for one in part]


def _of(model: PatientModel, problem: Problem, named: bool) -> Problem:
    """A caution that says by which of several models it is one."""
    return replace(problem, field=f"{model.name}: {problem.field}") if named else problem
