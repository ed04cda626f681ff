"""Run a trial with all its what-ifs, here or elsewhere; the results do not know where."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from fedtwin_protocol.errors import PlanError
from fedtwin_twins.trials.conduct import Conduct, Laboratory
from fedtwin_twins.trials.dosing import first_amounts
from fedtwin_twins.trials.drug import cautions_of
from fedtwin_twins.trials.executor import Executor, run_all
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.population import draw_population
from fedtwin_twins.trials.prognosis import HistoryModel
from fedtwin_twins.trials.replicate import Replicate, Work, chunks, learn_history
from fedtwin_twins.trials.streams import Streams
from fedtwin_twins.trials.summary import TrialResult, summarise
from fedtwin_twins.twin.freed_memory import keep_freed_memory
from fedtwin_twins.twin.refusals import Refusal

_FEW = 64
"""Patients that a plan is tried out with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """What one changed setting does to the primary endpoint.

    Attributes:
        label: for people.
        setting: its path in the plan.
        values: low and high.
        effects: by arm, mean effect at low and at high over the replicates of a what-if.
    """

    label: str
    setting: str
    values: tuple[float, float]
    effects: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A trial that was run.

    Attributes:
        plan: of the trial.
        result: over all replicates.
        replicates: each of them, in order.
        unchanged: by arm, the primary effect over as many replicates as a what-if has.
        changed: the what-ifs, in the plan's order.
        cautions: what a reader must know of models and patients, sentences.
        score: name of the prognostic model; empty without one.
    """

    plan: TrialPlan
    result: TrialResult
    replicates: tuple[Replicate, ...]
    unchanged: dict[str, float]
    changed: tuple[Changed, ...]
    cautions: tuple[str, ...]
    score: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """Repetitions of the trial, or of one of its changed forms."""

    work: Work
    numbers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lesson:
    plan: TrialPlan
    laboratory: Laboratory


def pieces_of(plan: TrialPlan) -> int:
    """How many repetitions there are to do, what-ifs included."""
    return plan.replicates + 2 * len(plan.what_if) * plan.what_if_replicates


def check_trial(plan: TrialPlan, laboratory: Laboratory) -> list[str]:
    """Whether the plan, its models and its population fit one another; cautions, as sentences.

    Raises:
        PlanError: they do not.
    """
    torch.set_num_threads(1)
    try:
        cautions = _cautions(plan, laboratory)
        for variant in (plan, *_variants(plan)):
            _try_out(variant, laboratory)
    except Refusal as error:
        raise PlanError(f"the trial {plan.name} cannot be run:\n{error}") from error
    return cautions


def _try_out(plan: TrialPlan, laboratory: Laboratory) -> None:
    """Few patients, their truth, and the first dose of every arm."""
    conduct = Conduct(plan, laboratory)
    streams = Streams(seed=plan.seed, replicates=(0,), first=0, count=_FEW)
    patients = draw_population(plan.population, streams, laboratory.rows)
    leaves = plan.population.dropout.days(patients.covariates, streams)
    truth = conduct.truth_of(patients, streams, conduct.truth)
    group = conduct.group(patients, np.arange(_FEW), streams, truth, leaves)
    for arm in plan.arms:
        first_amounts(arm, patients, group.doser)


def _variants(plan: TrialPlan) -> list[TrialPlan]:
    return [
        plan.changed(one.setting, value) for one in plan.what_if for value in (one.low, one.high)
    ]


def run_trial(
    plan: TrialPlan,
    laboratory: Laboratory,
    executor: Executor | None = None,
    done: Callable[[int], None] | None = None,
) -> Finished:
    """Run a trial.

    Args:
        plan: checked.
        laboratory: models, and rows if the plan draws from rows.
        executor: who works; none: this process alone.
        done: told how many more of `pieces_of` are finished.

    Raises:
        PlanError: the plan does not fit the models or the population.
    """
    torch.set_num_threads(1)
    try:
        return _run(plan, laboratory, executor, done)
    except Refusal as error:
        raise PlanError(f"the trial {plan.name} cannot be run:\n{error}") from error


def _run(
    plan: TrialPlan,
    laboratory: Laboratory,
    executor: Executor | None,
    done: Callable[[int], None] | None,
) -> Finished:
    cautions = _cautions(plan, laboratory)
    variants = _variants(plan)
    lessons = [_Lesson(plan=one, laboratory=laboratory) for one in (plan, *variants)]
    learned = run_all(_learn, lessons, executor)
    pieces = []
    for variant, history in zip((plan, *variants), learned, strict=True):
        count = plan.replicates if variant is plan else plan.what_if_replicates
        work = Work(plan=variant, laboratory=laboratory, history=history)
        pieces += [_Piece(work=work, numbers=numbers) for numbers in chunks(variant, count)]
    sizes = iter([len(piece.numbers) for piece in pieces])
    tell = None if done is None else lambda _: done(next(sizes))
    found = [one for some in run_all(_do, pieces, executor, tell) for one in some]
    main, rest = tuple(found[: plan.replicates]), found[plan.replicates :]
    size = plan.what_if_replicates
    groups = [rest[place : place + size] for place in range(0, len(rest), size)]
    return Finished(
        plan=plan,
        result=summarise(plan, main),
        replicates=main,
        unchanged=_primary_effects(plan, main[:size]),
        changed=tuple(_changed(plan, groups)),
        cautions=tuple(cautions),
        score=_score_name(plan, learned[0]),
    )


def _do(piece: _Piece) -> list[Replicate]:
    return piece.work(piece.numbers)


def _learn(lesson: _Lesson) -> HistoryModel | None:
    torch.set_num_threads(1)
    return learn_history(lesson.plan, lesson.laboratory)


def _score_name(plan: TrialPlan, history: HistoryModel | None) -> str:
    prognosis = plan.analysis.prognosis
    if history is not None:
        return history.name
    if prognosis is None:
        return ""
    return f"forecast by {plan.drug.dosing_model}, mean of {prognosis.draws} draws"


def _cautions(plan: TrialPlan, laboratory: Laboratory) -> list[str]:
    streams = Streams(seed=plan.seed, replicates=(0,), first=0, count=plan.patients)
    try:
        patients = draw_population(plan.population, streams, laboratory.rows)
    except Refusal:
        raise
    except ValueError as error:
        raise PlanError(f"the population of {plan.name} cannot be drawn: {error}") from error
    names = [plan.drug.truth.model, plan.drug.dosing_model]
    found = []
    for name in names:
        if name is not None:
            model = laboratory.find_model(name)
            _check_units(plan, name, model.amount_unit, model.observables[0].unit)
            found += cautions_of(model, patients)
    return found


def _check_units(plan: TrialPlan, name: str, amount: str, level: str) -> None:
    given = (
        ("dose_unit", plan.drug.dose_unit, amount),
        ("level_unit", plan.drug.level_unit, level),
    )
    for field, said, needed in given:
        if said != needed:
            raise PlanError(f"drug.{field} is {said}, but {name} is in {needed}: convert the plan")


def _primary_effects(plan: TrialPlan, replicates: tuple[Replicate, ...]) -> dict[str, float]:
    result = summarise(plan, replicates)
    primary = plan.endpoints[0].name
    return {
        one.arm: one.effect.mean
        for one in result.effects
        if one.endpoint == primary and not one.adjusted
    }


def _changed(plan: TrialPlan, groups: list[list[Replicate]]) -> Iterator[Changed]:
    for place, one in enumerate(plan.what_if):
        low = _primary_effects(plan, tuple(groups[2 * place]))
        high = _primary_effects(plan, tuple(groups[2 * place + 1]))
        yield Changed(
            label=one.label,
            setting=one.setting,
            values=(one.low, one.high),
            effects={arm: (low[arm], high[arm]) for arm in low},
        )


@contextmanager
def local_processes(workers: int) -> Iterator[Executor | None]:
    """Processes of this machine; with one worker, this process itself.

    Every process computes with one thread: threads would only wait for each other.
    """
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _prepared) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepared() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    keep_freed_memory()
