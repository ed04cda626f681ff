"""The training app of the built-in families: counts, updates, the hold-out table, the local report.

What `answer` returns may leave the site; what `local_report` and `cohort_sizes` return may not.
"""

from collections.abc import Mapping
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from fedtwin_client.cohort.rows import CohortRows, build_cohort
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.learner import make_learner
from fedtwin_client.training.local_reports import local_report, scores_for
from fedtwin_client.training.noise import CryptographicNoise, NoiseSource, noised
from fedtwin_client.training.training_rows import rows_of
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.hold_out import make_table
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.risk import logistic
from fedtwin_twins.survival import known_at_horizon


class BuiltIn:
    """Answers the tasks of a study on one site's rows.

    Args:
        plan: the study's plan.
        rows: the site's cohort.
        noise: the source of noise, or the key of a cryptographic one.
    """

    def __init__(self, plan: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> None:
        self._plan = plan
        self._noise = CryptographicNoise(noise) if isinstance(noise, bytes) else noise
        kept = ~rows.holdout
        self._training, self._held_out = rows_of(rows, kept), rows_of(rows, rows.holdout)
        self._learner = make_learner(plan, self._training)

    def answer(self, task: TaskInput) -> Payload:
        """The content of an answer.

        Raises:
            PlanError: a kind of task that this family does not know, or one out of order.
        """
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
        """True numbers of training and held-out patients; they stay here."""
        return len(self._training), len(self._held_out)

    def local_report(self, parameters: Mapping[str, Array]) -> dict[str, Any]:
        """A model on this site's held-out patients; it stays here (`local_reports`)."""
        return local_report(self._plan, parameters, self._training, self._held_out)

    def _count(self) -> float:
        """The noised count of training patients, at least the smallest cohort, whole."""
        sd = self._plan.privacy.cohort_count_noise if self._plan.privacy.mode == "local" else 0.0
        count = noised(np.array([float(len(self._training))]), sd, self._noise)[0]
        return float(max(round(count), self._plan.sites.smallest_cohort))

    def _table(self, parameters: Mapping[str, Array]) -> list[float]:
        sd = self._plan.privacy.evaluation_noise
        if sd is None:
            raise PlanError("the plan buys no evaluation")
        held_out = self._held_out
        if held_out.days is not None:  # what became of the others by the horizon is not known
            horizon = self._plan.endpoint.horizon_days
            held_out = held_out.where(known_at_horizon(held_out.days, held_out.outcomes, horizon))
        risks = logistic(scores_for(self._plan, parameters, held_out))
        exact = make_table(risks, held_out.outcomes, self._plan.evaluation.bins)
        local = sd if self._plan.privacy.mode == "local" else 0.0
        return [float(cell) for cell in noised(exact, local, self._noise).ravel()]


def _proximal(task: TaskInput) -> float:
    """What the strategy says of the pull towards the global model; 0 where it says nothing."""
    value = task.payload.config.get("config", {}).get("proximal-mu", 0.0)
    if not isinstance(value, float | int) or not 0 <= value < inf:
        raise PlanError(f"expected a proximal-mu of at least 0, got {value!r:.60}")
    return float(value)


def load_rows(plan: StudyPlan, store: Path, now: datetime) -> CohortRows:
    """The site's cohort, from its timelines.

    Raises:
        CohortError: it cannot be built, or is too small.
        RecordError: there are no records yet.
    """
    return build_cohort(Timeline.open(store), plan, now)
