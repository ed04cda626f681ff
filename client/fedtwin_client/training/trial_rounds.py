"""What a node would send in a study, on made-up patients: the same code, and no record is read.

In mode `local` that is the answer to a task. In mode `secure` nobody sees an answer, so it is the
sum over as many sites as are honest and present in the worst case the plan allows: each adds its
share of the noise, one of them has the patients. Masks cancel in the sum and are left out.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
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
AppOf = Callable[[StudyPlan, CohortRows, bytes], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Made-up patients.

    Attributes:
        features: (patients, columns).
        outcomes: (patients,) 0 or 1, which every kind of endpoint can be.
        days: (patients,) to the event or out of sight, for a time to event.
        codes: (patients, records) of a sequence, for families that read records.
        numbers: (patients, records, 3), beside `codes`.
    """

    features: Floats
    outcomes: Floats
    days: Floats | None = None
    codes: NDArray[np.int32] | None = None
    numbers: NDArray[np.float32] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What there is, by name; `Made(**arrays)` is the same patients."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: array for name, array in named if array is not None}

    def more(self, features: Floats, outcome: float, patients: int, day: float = 1.0) -> "Made":
        """These and so many patients of one kind, in sight until a day, with full sequences."""
        alike: dict[str, Any] = {
            "features": features,
            "outcomes": outcome,
            "days": day,
            "codes": 1,
            "numbers": 1.0,
        }
        grown = {}
        for name, array in self.arrays().items():
            shape = (patients, *array.shape[1:])
            one = np.broadcast_to(alike[name], shape).astype(array.dtype)
            grown[name] = np.concatenate([array, one])
        return Made(**grown)

    def repeated(self, patients: int) -> "Made":
        """These and the first of them so many times more."""
        return Made(
            **{
                name: np.concatenate([array, np.repeat(array[:1], patients, axis=0)])
                for name, array in self.arrays().items()
            }
        )


def make_up(plan: StudyPlan, patients: int, seed: int) -> Made:
    """Patients of the plan's columns and records with outcomes by the toss of a coin."""
    generator = np.random.Generator(np.random.PCG64(seed + 1))
    outcomes = (generator.random(patients) < 0.5).astype(np.float64)
    days = codes = numbers = None
    if plan.endpoint.kind == "time_to_event":
        days = plan.endpoint.horizon_days * (1 - generator.random(patients))
    if plan.sequence is not None:
        lengths = generator.integers(0, plan.sequence.most_records + 1, patients)
        codes, numbers = made_up_records(plan.sequence, lengths, seed + 3)
    return Made(
        features=made_up_rows(plan.contract, patients, seed),
        outcomes=outcomes,
        days=days,
        codes=codes,
        numbers=numbers,
    )


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
            nobody = Made(**{name: array[:0] for name, array in made.arrays().items()})
            self._apps[id(made)] = [
                self._app_of(self._plan, self._cohort(whose), os.urandom(32))
                for whose in [made] + [nobody] * (sites - 1)
            ]
        return self._apps[id(made)]

    def _cohort(self, made: Made) -> CohortRows:
        patients = len(made.outcomes)
        sequences = None
        if made.codes is not None and made.numbers is not None:
            sequences = Sequences(codes=made.codes, numbers=made.numbers)
        return CohortRows(
            subject_ids=np.arange(patients),
            features=made.features,
            labels=made.outcomes,
            days=made.days,
            sequences=sequences,
            holdout=np.full(patients, self._kind in {"evaluate", VOTE_TASK}),
            columns=self._plan.contract.columns,
            exclusions={},
            missing={},
            implausible={},
        )
