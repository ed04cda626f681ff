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

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.masked_part import noisy_whole_numbers
from fedtwin_client.training.noise import Floats
from fedtwin_protocol.made_up import made_up_rows
from fedtwin_protocol.parameters import flatten
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.audits.moments import Claim

REPORTED: Final = 500.0
"""The cohort count that divides steps at a site."""
AppOf = Callable[[StudyPlan, CohortRows, bytes], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Made-up patients: columns (patients, columns) and outcomes (patients,)."""

    features: Floats
    outcomes: Floats

    def more(self, features: Floats, outcome: float, patients: int) -> "Made":
        """These and so many patients of one kind."""
        return Made(
            features=np.concatenate([self.features, np.tile(features, (patients, 1))]),
            outcomes=np.concatenate([self.outcomes, np.full(patients, outcome)]),
        )

    def repeated(self, patients: int) -> "Made":
        """These and the first of them so many times more."""
        return self.more(self.features[0], float(self.outcomes[0]), patients)


def make_up(plan: StudyPlan, patients: int, seed: int) -> Made:
    """Patients of the plan's columns with outcomes by the toss of a coin."""
    outcomes = np.random.Generator(np.random.PCG64(seed + 1)).random(patients) < 0.5
    return Made(
        features=made_up_rows(plan.contract, patients, seed), outcomes=outcomes.astype(np.float64)
    )


class TrialRounds:
    """Rounds of one kind of task; each set of patients has one app, as a study has one worker.

    Args:
        plan: the study, in mode `local` or `secure`.
        kind: train, query.cohort or evaluate.
        parameters: the model that every task brings.
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
        if self._plan.privacy.mode != "secure":
            return Claim(patient_bound=clip, noise_sd=sigma * clip)
        numbers = sum(array.size for array in self._parameters.values())
        rounding = sqrt(numbers) * clip / secure_terms(self._plan).scale
        return Claim(patient_bound=clip, noise_sd=sigma * clip, rounding=rounding)

    def release(self, made: Made, number: int) -> Floats:
        """What is seen outside the sites of one round, (numbers,)."""
        task = TaskInput(
            kind=self._kind,
            round_number=number,
            payload=Payload(arrays={"arrays": self._parameters}),
            reported_count=None if self._kind == "query.cohort" else REPORTED,
        )
        if self._plan.privacy.mode == "secure":
            return self._sum(self._apps_of(made, secure_terms(self._plan).honest_present), task)
        return self._sent(self._apps_of(made, 1)[0].answer(task))

    def _sent(self, answer: Payload) -> Floats:
        """The numbers of an answer; parameters that moved are the sum that moved them."""
        metrics: Any = answer.metrics["metrics"]
        if self._kind == "query.cohort":
            return np.array([float(metrics["cohort-count"])])
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
            nobody = Made(features=made.features[:0], outcomes=made.outcomes[:0])
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
            holdout=np.full(patients, self._kind == "evaluate"),
            columns=self._plan.contract.columns,
            exclusions={},
            missing={},
            implausible={},
        )
