"""Who is absent from a task is asked before every task, and their row is nowhere in the answer."""

from dataclasses import replace

import numpy as np
import pytest

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.absence import any_of
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan

PLAN = StudyPlan.model_validate(
    {
        "study": "absence",
        "consortium": "demo",
        "title": "A study",
        "purpose": "To be left",
        "cohort": {"index": {"codes": ["TEST//visit"]}, "holdout_fraction": 0.25},
        "features": [{"name": "age", "kind": "age", "unit": "a", "center": 60, "scale": 10}],
        "endpoint": {
            "name": "outcome",
            "kind": "event",
            "codes": ["TEST//outcome"],
            "horizon_days": 2,
        },
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 3, "learning_rate": 0.5},
        "privacy": {
            "mode": "none",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 100.0,
            "cohort_count_noise": 20.0,
            "evaluation_noise": 20.0,
        },
        "sites": {"quorum": 2, "smallest_cohort": 5},
        "evaluation": {"bins": 4},
    }
)


def cohort(patients: int = 12) -> CohortRows:
    rng = np.random.default_rng(1)
    return CohortRows(
        subject_ids=np.arange(100, 100 + patients),
        features=rng.normal(size=(patients, len(PLAN.contract.columns))),
        labels=(rng.random(patients) < 0.5).astype(float),
        holdout=np.arange(patients) % 4 == 0,
        columns=PLAN.contract.columns,
        exclusions={},
        missing={},
        implausible={},
    )


def answers(app: BuiltIn) -> dict[str, object]:
    """Everything that a study would ask for, exact because the plan adds no noise."""
    model = Payload(arrays={"arrays": initial_parameters(PLAN)})

    def ask(kind: str) -> Payload:
        return app.answer(TaskInput(kind=kind, round_number=1, payload=model, reported_count=9.0))

    return {
        "update": ask("train").arrays["arrays"]["gradient_sum"].tolist(),
        "count": ask("query.cohort").metrics["metrics"]["cohort-count"],
        "table": ask("evaluate").metrics["metrics"]["hold-out-table"],
        "sizes": app.cohort_sizes(),
        "report": app.local_report(initial_parameters(PLAN)),
    }


@pytest.mark.parametrize("gone", [{100}, {101}, {100, 103, 111}])
def test_the_absent_are_in_no_answer_from_the_next_task_on(gone: set[int]) -> None:
    """One held out, one in training, several: the same as if they had never been there."""
    absent: frozenset[int] = frozenset()
    app = BuiltIn(PLAN, cohort(), b"n" * 32, lambda: absent)
    assert answers(app) == answers(BuiltIn(PLAN, cohort(), b"n" * 32))
    absent = frozenset(gone)
    without = answers(BuiltIn(PLAN, cohort().without(gone), b"n" * 32))
    assert answers(app) == without
    absent = frozenset()
    assert answers(app) != without


def test_a_study_stops_here_when_too_few_are_left() -> None:
    absent: frozenset[int] = frozenset()
    app = BuiltIn(PLAN, cohort(5), b"n" * 32, lambda: absent)
    answers(app)
    absent = frozenset({102})
    with pytest.raises(CohortError, match="at least 5 patients"):
        app.cohort_sizes()


def test_the_cohort_without_somebody_keeps_the_others_as_they_were() -> None:
    rows = cohort()
    assert rows.without(()).subject_ids.tolist() == rows.subject_ids.tolist()
    left = rows.without({103, 999})
    keep = rows.subject_ids != 103
    for name in ("subject_ids", "features", "labels", "holdout"):
        assert getattr(left, name).tolist() == getattr(rows, name)[keep].tolist()
    assert replace(left, exclusions={}).columns == rows.columns


def test_several_sources_of_absence_are_one_set_that_stays_while_they_stay() -> None:
    first, second = frozenset({1}), frozenset({2})
    union = any_of(lambda: first, lambda: second)
    seen = union()
    assert seen == {1, 2}
    assert union() is seen
    second = frozenset({3})
    assert union() == {1, 3}
    assert any_of()() == frozenset()
