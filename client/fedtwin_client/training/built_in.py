"""The training app of the built-in families: counts, updates, the hold-out table, the local report.

What `answer` returns may leave the site; what `local_report` and `cohort_sizes` return may not.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.cohort.rows import CohortRows, build_cohort, require_enough
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.absence import Absent, nobody
from fedtwin_client.training.apps import SumPart, TaskInput
from fedtwin_client.training.learner import ClippedSum, make_learner
from fedtwin_client.training.local_reports import local_report, scores_for
from fedtwin_client.training.noise import CryptographicNoise, Floats, NoiseSource, noised
from fedtwin_client.training.training_rows import TrainingRows, rows_of
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.hold_out import make_table
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.votes import GOOD, VOTE, VOTE_TASK, exact_vote
from fedtwin_twins.risk import logistic
from fedtwin_twins.survival import known_at_horizon


class BuiltIn:
    """Answers the tasks of a study on one site's rows.

    Args:
        plan: the study's plan.
        rows: the site's cohort.
        noise: the source of noise, or the key of a cryptographic one.
        absent: who is left out, asked before every task.

    Attributes:
        noise: the source of noise.
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
        self.noise = CryptographicNoise(noise) if isinstance(noise, bytes) else noise
        self._absent = absent
        self._left_out: frozenset[int] = frozenset()
        self._seat(rows)

    def answer(self, task: TaskInput) -> Payload:
        """The content of an answer, made of the patients who are present now.

        Raises:
            PlanError: a kind of task that this family does not know, one out of order, or one that
                mode `secure` does not answer.
            CohortError: too few patients are present.
        """
        self._call_roll()
        parameters = task.payload.arrays.get("arrays", {})
        if task.kind == VOTE_TASK:
            vote = self._vote(parameters, task.payload.arrays.get(GOOD, {}))
            return Payload(metrics={"metrics": {VOTE: vote}})
        if self._plan.privacy.mode == "secure":
            raise PlanError("in mode 'secure' nothing leaves but masked parts of sums, and votes")
        if task.kind == "query.cohort":
            return Payload(metrics={"metrics": {"cohort-count": self._count()}})
        if task.reported_count is None:
            raise PlanError(f"a task '{task.kind}' came before the cohort count was asked for")
        weight = {"num-examples": task.reported_count}
        if task.kind == "train":
            arrays = self._learner.update(
                parameters, task.reported_count, self.noise, _proximal(task)
            )
            return Payload(arrays={"arrays": arrays}, metrics={"metrics": weight})
        if task.kind == "evaluate":
            table = self._table(parameters)
            return Payload(metrics={"metrics": {**weight, "hold-out-table": table}})
        raise PlanError(f"no built-in family knows a task of kind '{task.kind}'")

    def part(self, task: TaskInput) -> SumPart:
        """This site's part of a secure sum, made of the patients who are present now.

        Raises:
            PlanError: no such sum, or the plan's mechanism is no sum.
            CohortError: too few patients are present.
        """
        self._call_roll()
        privacy = self._plan.privacy
        if task.kind == "query.cohort":
            count = np.array([float(len(self._training))])
            return SumPart(exact=count, largest=1.0, noise_multiplier=privacy.cohort_count_noise)
        parameters = task.payload.arrays.get("arrays", {})
        if task.kind == "train" and isinstance(self._learner, ClippedSum):
            return SumPart(
                exact=self._learner.exact(parameters, self.noise),
                largest=privacy.clipping_norm,
                noise_multiplier=privacy.noise_multiplier,
            )
        if task.kind == "evaluate" and privacy.evaluation_noise is not None:
            return SumPart(
                exact=self._exact_table(parameters).ravel(),
                largest=1.0,
                noise_multiplier=privacy.evaluation_noise,
            )
        raise PlanError(f"the plan has no secure sum of kind '{task.kind[:30]}'")

    def patients(self) -> list[int]:
        """Pseudonyms of the patients who are present; they stay here.

        Raises:
            CohortError: too few patients are present.
        """
        self._call_roll()
        return [int(patient) for patient in self._rows.subject_ids]

    def cohort_sizes(self) -> tuple[int, int]:
        """True numbers of training and held-out patients who are present; they stay here.

        Raises:
            CohortError: too few patients are present.
        """
        self._call_roll()
        return len(self._training), len(self._held_out)

    def local_report(self, parameters: Mapping[str, Array]) -> dict[str, Any]:
        """A model on this site's held-out patients; it stays here (`local_reports`).

        Raises:
            CohortError: too few patients are present.
        """
        self._call_roll()
        return local_report(self._plan, parameters, self._training, self._held_out)

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
        self._training, self._held_out = rows_of(rows, kept), rows_of(rows, rows.holdout)
        self._learner = make_learner(self._plan, self._training)

    def _count(self) -> float:
        """The noised count of training patients, at least the smallest cohort, whole."""
        sd = self._plan.privacy.cohort_count_noise if self._plan.privacy.mode == "local" else 0.0
        count = noised(np.array([float(len(self._training))]), sd, self.noise)[0]
        return float(max(round(count), self._plan.sites.smallest_cohort))

    def _vote(self, candidate: Mapping[str, Array], good: Mapping[str, Array]) -> float:
        """Whether held-out patients are worse off with a candidate; 0 and noise without any."""
        sd = self._plan.privacy.vote_noise
        if sd is None:
            raise PlanError("the plan buys no votes")
        judged = self._judged()
        with np.errstate(all="ignore"):
            scores = [scores_for(self._plan, model, judged) for model in (candidate, good)]
        exact = np.array([exact_vote(scores[0], scores[1], judged.outcomes)])
        own = sd if self._plan.privacy.mode != "none" else 0.0
        return float(noised(exact, own, self.noise)[0])

    def _table(self, parameters: Mapping[str, Array]) -> list[float]:
        sd = self._plan.privacy.evaluation_noise
        if sd is None:
            raise PlanError("the plan buys no evaluation")
        exact = self._exact_table(parameters)
        local = sd if self._plan.privacy.mode == "local" else 0.0
        return [float(cell) for cell in noised(exact, local, self.noise).ravel()]

    def _exact_table(self, parameters: Mapping[str, Array]) -> Floats:
        """(bins, 2) counts of held-out patients by predicted risk and outcome."""
        judged = self._judged()
        risks = logistic(scores_for(self._plan, parameters, judged))
        return make_table(risks, judged.outcomes, self._plan.evaluation.bins)

    def _judged(self) -> TrainingRows:
        """The held-out patients of whom it is known what became of them by the horizon."""
        held_out = self._held_out
        if held_out.days is None:
            return held_out
        horizon = self._plan.endpoint.horizon_days
        return held_out.where(known_at_horizon(held_out.days, held_out.outcomes, horizon))


def _proximal(task: TaskInput) -> float:
    """What the strategy says of the pull towards the global model; 0 where it says nothing."""
    value = task.payload.config.get("config", {}).get("proximal-mu", 0.0)
    if not isinstance(value, float | int) or not 0 <= value < inf:
        raise PlanError(f"expected a proximal-mu of at least 0, got {value!r:.60}")
    return float(value)


def load_rows(
    plan: StudyPlan,
    store: Path,
    now: datetime,
    keyring: Keyring | None = None,
    without: Collection[str] = (),
) -> CohortRows:
    """The site's cohort, from its timelines; whoever is absent is still in it.

    Args:
        plan: the study.
        store: folder of the timelines.
        now: the time.
        keyring: the node's; none: the one of its folder, if it has one.
        without: features that count as missing for everybody.

    Raises:
        CohortError: it cannot be built, or is too small.
        RecordError: there are no records yet.
    """
    return build_cohort(Timeline.open(store, keyring), plan, now, without)
