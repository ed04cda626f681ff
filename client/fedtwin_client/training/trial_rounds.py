"""What a node would send in a study, on made-up patients: the same code, and no record is read.

In mode `local` that is the answer to a task. In mode `secure` nobody sees an answer, so it is the
sum over as many sites as are honest and present in the worst case the plan allows: each adds its
share of the noise, one of them has the patients. Masks cancel in the sum and are left out.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.cohort.sequences import Sequences
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.masked_part import noisy_whole_numbers
from fedtwin_client.training.noise import Floats
from fedtwin_protocol.made_up import made_up_records, made_up_rows
from fedtwin_protocol.parameters import flatten
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.votes import GOOD, VOTE, VOTE_TASK
from fedtwin_twins.audits.moments import Claim

FAR: Final = 1e3
"""Size of the columns of patients whose contribution must be clipped."""
REPORTED: Final = 500.0
"""The cohort count that divides steps at a site."""
_MOST_RECORDS: Final = 4
AppOf = Callable[[StudyPlan, CohortRows, bytes], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Made-up patients.

    Attributes:
        features: (patients, columns).
        outcomes: 0 or 1, (patients,).
        days: to the event or out of sight, (patients,), for a time to event.
        sequences: records, for families that read them.
    """

    features: Floats
    outcomes: Floats
    days: Floats | None = None
    sequences: Sequences | None = None

    def __len__(self) -> int:
        return len(self.outcomes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, patients along their first axis."""
        found: dict[str, NDArray[Any]] = {"features": self.features, "outcomes": self.outcomes}
        if self.days is not None:
            found["days"] = self.days
        if self.sequences is not None:
            found |= {"codes": self.sequences.codes, "numbers": self.sequences.numbers}
        return found

    def and_these(self, others: "Made") -> "Made":
        """Both; of one plan."""
        more = others.arrays()
        return made_of({name: np.concatenate([a, more[name]]) for name, a in self.arrays().items()})

    def repeated(self, patients: int) -> "Made":
        """These and the first of them so many times more."""
        first = {name: array[[0] * patients] for name, array in self.arrays().items()}
        return self.and_these(made_of(first))


def made_of(arrays: Mapping[str, NDArray[Any]]) -> Made:
    """Patients of arrays by name, as `Made.arrays` gives them."""
    sequences = None
    if "codes" in arrays:
        sequences = Sequences(codes=arrays["codes"], numbers=arrays["numbers"])
    return Made(
        features=arrays["features"],
        outcomes=arrays["outcomes"],
        days=arrays.get("days"),
        sequences=sequences,
    )


def make_up(plan: StudyPlan, patients: int, seed: int) -> Made:
    """Patients of the plan's columns with outcomes by the toss of a coin.

    A time to event is drawn evenly up to the horizon; of records, each patient has none to a few.
    """
    outcomes = np.random.Generator(np.random.PCG64(seed + 1)).random(patients) < 0.5
    generator = np.random.Generator(np.random.PCG64(seed + 3))
    lengths = generator.integers(0, _MOST_RECORDS + 1, patients)
    return _made(
        plan,
        made_up_rows(plan.contract, patients, seed),
        outcomes.astype(np.float64),
        generator.integers(1, max(plan.endpoint.horizon_days, 1) + 1, patients),
        _records(plan, lengths, seed),
    )


def all_alike(plan: StudyPlan, features: Floats, outcome: float, patients: int) -> Made:
    """So many patients with the same columns, outcome, time and record.

    A time to event is in the first interval, or there is no event by the horizon.

    Args:
        plan: the study.
        features: (columns,).
        outcome: 0 or 1.
        patients: how many.
    """
    days = (*plan.endpoint.interval_days, plan.endpoint.horizon_days)[0 if outcome else -1]
    one = _records(plan, np.ones(1, np.int64), 1)
    return _made(
        plan,
        np.tile(features, (patients, 1)),
        np.full(patients, outcome),
        np.full(patients, days),
        None if one is None else one.where(np.zeros(patients, np.intp)),
    )


def _made(
    plan: StudyPlan,
    features: Floats,
    outcomes: Floats,
    days: NDArray[np.integer[Any]],
    sequences: Sequences | None,
) -> Made:
    timed = plan.endpoint.kind == "time_to_event"
    return Made(
        features=features,
        outcomes=outcomes,
        days=days.astype(np.float64) if timed else None,
        sequences=sequences,
    )


def _records(plan: StudyPlan, lengths: NDArray[np.integer[Any]], seed: int) -> Sequences | None:
    if plan.sequence is None:
        return None
    codes, numbers = made_up_records(plan.sequence, lengths, seed + 4)
    return Sequences(codes=codes, numbers=numbers)


class TrialRounds:
    """Rounds of one kind of task; each set of patients has one app, as a study has one worker.

    Args:
        plan: the study, in mode `local` or `secure`.
        kind: train, query.cohort, query.vote or evaluate.
        parameters: the model that every task brings; for a vote it is the last good one, and the
            candidate says the opposite of it, loudly.
        app_of: makes the app that answers tasks.
    """

    def __init__(
        self,
        plan: StudyPlan,
        kind: str,
        parameters: Mapping[str, Array],
        app_of: AppOf = BuiltIn,
    ) -> None:
        self._plan, self._kind, self._parameters, self._app_of = plan, kind, parameters, app_of
        self._apps: dict[int, list[Any]] = {}

    def claim(self, clip: float, sigma: float) -> Claim:
        """What the plan promises of a release whose largest contribution and noise are these."""
        if not self._summed:
            return Claim(patient_bound=clip, noise_sd=sigma * clip)
        numbers = sum(array.size for array in self._parameters.values())
        rounding = sqrt(numbers) * clip / secure_terms(self._plan).scale
        return Claim(patient_bound=clip, noise_sd=sigma * clip, rounding=rounding)

    def release(self, made: Made, number: int) -> Floats:
        """What is seen outside the sites of one round, (numbers,)."""
        task = TaskInput(
            kind=self._kind,
            round_number=number,
            payload=self._payload(),
            reported_count=None if self._kind == "query.cohort" else REPORTED,
        )
        if self._summed:
            return self._sum(self._apps_of(made, secure_terms(self._plan).honest_present), task)
        return self._sent(self._apps_of(made, 1)[0].answer(task))

    @property
    def _summed(self) -> bool:
        """Whether only the sum over the sites is seen; a vote is each site's own."""
        return self._plan.privacy.mode == "secure" and self._kind != VOTE_TASK

    def _payload(self) -> Payload:
        if self._kind != VOTE_TASK:
            return Payload(arrays={"arrays": self._parameters})
        opposite = {name: -FAR * array for name, array in self._parameters.items()}
        return Payload(arrays={"arrays": opposite, GOOD: self._parameters})

    def _sent(self, answer: Payload) -> Floats:
        """The numbers of an answer; parameters that moved are the sum that moved them."""
        metrics: Any = answer.metrics["metrics"]
        if self._kind == "query.cohort":
            return np.array([float(metrics["cohort-count"])])
        if self._kind == VOTE_TASK:
            return np.array([float(metrics[VOTE])])
        if self._kind == "evaluate":
            return np.array(metrics["hold-out-table"], np.float64)
        sent = flatten(answer.arrays["arrays"])
        if self._plan.training.mechanism != "local_steps":
            return sent
        batch = REPORTED * self._plan.privacy.sampling_rate
        return (flatten(self._parameters) - sent) * batch / self._plan.training.learning_rate

    def _sum(self, apps: list[Any], task: TaskInput) -> Floats:
        terms = secure_terms(self._plan)
        total: Any = 0
        parts = [app.part(task) for app in apps]
        for app, part in zip(apps, parts, strict=True):
            total = total + noisy_whole_numbers(
                part.exact, part.largest, part.noise_multiplier, terms, app.noise
            )
        signed = total.view(f"<i{terms.modulus_bits // 8}")
        return np.asarray(signed * (parts[0].largest / terms.scale), np.float64)

    def _apps_of(self, made: Made, sites: int) -> list[Any]:
        if id(made) not in self._apps:
            nobody = made_of({name: array[:0] for name, array in made.arrays().items()})
            self._apps[id(made)] = [
                self._app_of(self._plan, self._cohort(whose), os.urandom(32))
                for whose in [made] + [nobody] * (sites - 1)
            ]
        return self._apps[id(made)]

    def _cohort(self, made: Made) -> CohortRows:
        patients = len(made.outcomes)
        return CohortRows(
            subject_ids=np.arange(patients),
            features=made.features,
            labels=made.outcomes,
            days=made.days,
            sequences=made.sequences,
            holdout=np.full(patients, self._kind in {"evaluate", VOTE_TASK}),
            columns=self._plan.contract.columns,
            exclusions={},
            missing={},
            implausible={},
        )
