"""The training app of the built-in families: counts, updates, the hold-out table, the local report.

What `answer` returns may leave the site; what `local_report` and `cohort_sizes` return may not.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.cohort.rows import CohortRows, build_cohort, require_enough
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.absence import Absent, nobody
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.learner import TrainingRows, make_learner
from fedtwin_client.training.noise import CryptographicNoise, NoiseSource, noised
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.hold_out import make_table
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.risk import logistic, predict_probability, predict_score, quality, recalibrate


class BuiltIn:
    """Answers the tasks of a study on one site's rows.

    Args:
        plan: the study's plan.
        rows: the site's cohort.
        noise: the source of noise, or the key of a cryptographic one.
        absent: who is left out, asked before every task.
    """

    def __init__(
        self,
        plan: StudyPlan,
        rows: CohortRows,
        noise: NoiseSource | bytes,
        absent: Absent = nobody,
    ) -> None:
        self._plan = plan
        self._everybody = rows
        self._noise = CryptographicNoise(noise) if isinstance(noise, bytes) else noise
        self._absent = absent
        self._left_out: frozenset[int] = frozenset()
        self._seat(rows)

    def answer(self, task: TaskInput) -> Payload:
        """The content of an answer, made of the patients who are present now.

        Raises:
            PlanError: a kind of task that this family does not know, or one out of order.
            CohortError: too few patients are present.
        """
        self._call_roll()
        if task.kind == "query.cohort":
            return Payload(metrics={"metrics": {"cohort-count": self._count()}})
        if task.reported_count is None:
            raise PlanError(f"a task '{task.kind}' came before the cohort count was asked for")
        parameters = task.payload.arrays.get("arrays", {})
        weight = {"num-examples": task.reported_count}
        if task.kind == "train":
            arrays = self._learner.update(
                parameters, task.reported_count, self._noise, _proximal(task)
            )
            return Payload(arrays={"arrays": arrays}, metrics={"metrics": weight})
        if task.kind == "evaluate":
            table = self._table(parameters)
            return Payload(metrics={"metrics": {**weight, "hold-out-table": table}})
        raise PlanError(f"no built-in family knows a task of kind '{task.kind}'")

    def cohort_sizes(self) -> tuple[int, int]:
        """True numbers of training and held-out patients who are present; they stay here.

        Raises:
            CohortError: too few patients are present.
        """
        self._call_roll()
        return len(self._training.outcomes), int(self._rows.holdout.sum())

    def local_report(self, parameters: Mapping[str, Array]) -> dict[str, Any]:
        """A model on this site's held-out patients, before and after local recalibration.

        The recalibration is fitted on the training patients alone. All of it stays here.

        Raises:
            CohortError: too few patients are present.
        """
        self._call_roll()
        held_out = self._rows.holdout
        features, outcomes = self._rows.features[held_out], self._rows.labels[held_out]
        local = recalibrate(
            predict_score(parameters, self._training.features), self._training.outcomes
        )
        scores = predict_score(parameters, features)
        return {
            "study": self._plan.study,
            "training_patients": len(self._training.outcomes),
            "held_out_patients": len(outcomes),
            "before": asdict(quality(logistic(scores), outcomes)),
            "after": asdict(quality(local.apply(scores), outcomes)),
            "recalibration": asdict(local),
        }

    def _call_roll(self) -> None:
        """Leave out who is absent now, from training, counts and evaluation alike."""
        absent = self._absent()
        if absent is not self._left_out and absent != self._left_out:
            self._seat(self._everybody.without(absent))
        self._left_out = absent
        require_enough(self._plan, len(self._rows.labels), self._rows.exclusions)

    def _seat(self, rows: CohortRows) -> None:
        self._rows = rows
        kept = ~rows.holdout
        self._training = TrainingRows(features=rows.features[kept], outcomes=rows.labels[kept])
        self._learner = make_learner(self._plan, self._training)

    def _count(self) -> float:
        """The noised count of training patients, at least the smallest cohort, whole."""
        sd = self._plan.privacy.cohort_count_noise if self._plan.privacy.mode == "local" else 0.0
        count = noised(np.array([float(len(self._training.outcomes))]), sd, self._noise)[0]
        return float(max(round(count), self._plan.sites.smallest_cohort))

    def _table(self, parameters: Mapping[str, Array]) -> list[float]:
        sd = self._plan.privacy.evaluation_noise
        if sd is None:
            raise PlanError("the plan buys no evaluation")
        held_out = self._rows.holdout
        probabilities = predict_probability(parameters, self._rows.features[held_out])
        exact = make_table(probabilities, self._rows.labels[held_out], self._plan.evaluation.bins)
        local = sd if self._plan.privacy.mode == "local" else 0.0
        return [float(cell) for cell in noised(exact, local, self._noise).ravel()]


def _proximal(task: TaskInput) -> float:
    """What the strategy says of the pull towards the global model; 0 where it says nothing."""
    value = task.payload.config.get("config", {}).get("proximal-mu", 0.0)
    if not isinstance(value, float | int) or not 0 <= value < inf:
        raise PlanError(f"expected a proximal-mu of at least 0, got {value!r:.60}")
    return float(value)


def load_rows(
    plan: StudyPlan, store: Path, now: datetime, keyring: Keyring | None = None
) -> CohortRows:
    """The site's cohort, from its timelines; whoever is absent is still in it.

    Raises:
        CohortError: it cannot be built, or is too small.
        RecordError: there are no records yet.
    """
    return build_cohort(Timeline.open(store, keyring), plan, now)
