"""Everything that can leave a site is charged, fixed by the plan, or says nothing of patients."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.node.study_desk import LIVE
from fedtwin_client.node.task_desk import FAULTS, KINDS, OTHER_FAULT
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_protocol.charge_kinds import KINDS as CHARGES
from fedtwin_protocol.charges import planned_charges
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan, plan_from_value
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.votes import GOOD, VOTE

# Every field that a site can fill, and why it costs no patient anything. `content` is taken apart
# below: in it alone there are numbers made of patients.
FREE = {
    "hello.protocol": "the program's version",
    "hello.software": "the program's version",
    "hello.sent_ms": "the time",
    "held_log_head.root_version": "of the signers' public keys",
    "held_log_head.statement": "the public log's, as the coordinator signed it",
    "held_log_head.signature": "the public log's, as the coordinator signed it",
    "pulse.sent_ms": "the time",
    "pulse.catalogue_digest": "filled by the coordinator only",
    "decision.study": "the plan's",
    "decision.plan_hash": "the plan's",
    "decision.take_part": "the hospital's policy and its smallest cohort; never with a reason",
    "answer.task_id": "the coordinator's",
    "answer.study": "the plan's",
    "answer.plan_hash": "the plan's",
    "answer.round": "the coordinator's",
    "answer.fault.code": "the name of a kind of error, without its text",
    "answer.fault.text": "one of a few fixed sentences",
    "want.sha256": "the coordinator's",
    "want.offset": "how much of its content has arrived",
}
# What an answer's content may hold, and which charge pays for it.
PAID = {
    "cohort-count": "count",
    "gradient_sum": "train",
    "hold-out-table": "evaluate",
    VOTE: "vote",
    "num-examples": "count",  # the very count that was sent before, so nothing new
}


def fields(descriptor: Any, path: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        here = f"{path}{field.name}"
        if field.message_type is None or here == "answer.content":
            yield here
        else:
            yield from fields(field.message_type, f"{here}.")


def test_every_field_of_every_message_of_a_site_is_accounted_for() -> None:
    """A new kind of message or field breaks this until somebody says what pays for it."""
    assert set(fields(pb.FromSite.DESCRIPTOR)) == {*FREE, "answer.content"}


def test_refusals_are_fixed_sentences_without_a_number() -> None:
    sentences = {*FAULTS.values(), OTHER_FAULT}
    assert len(sentences) <= 5
    assert not any(character.isdigit() for text in sentences for character in text)
    assert LIVE == ("open", "running")


def plan(**changes: Any) -> StudyPlan:
    value: dict[str, Any] = {
        "study": "leaving",
        "consortium": "demo",
        "title": "What leaves",
        "purpose": "To be watched",
        "cohort": {"index": {"codes": ["TEST//visit"]}, "holdout_fraction": 0.25},
        "features": [{"name": "age", "kind": "age"}, {"name": "sex", "kind": "sex"}],
        "endpoint": {"name": "o", "kind": "event", "codes": ["TEST//o"], "horizon_days": 2},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 2, "learning_rate": 0.5},
        "privacy": {
            "mode": "none",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 5.0,
            "cohort_count_noise": 20.0,
            "evaluation_noise": 20.0,
        },
        "sites": {"quorum": 3, "smallest_cohort": 5},
        "evaluation": {"bins": 4},
    }
    for name, change in changes.items():
        part, _, key = name.partition("__")
        value[part] = {**value.get(part, {}), key: change} if key else change
    return plan_from_value(value, "the test's plan")


def rows(seed: int, patients: int) -> CohortRows:
    rng = np.random.default_rng(seed)
    return CohortRows(
        subject_ids=np.arange(patients),
        features=rng.normal(size=(patients, len(plan().contract.columns))),
        labels=(rng.random(patients) < 0.5).astype(float),
        holdout=np.arange(patients) % 4 == 0,
        columns=plan().contract.columns,
        exclusions={},
        missing={},
        implausible={},
    )


def leaves(cohort: CohortRows) -> dict[str, dict[str, Any]]:
    """Every value that a study asks a site for, exact (mode `none`), by kind of task and name."""
    study = plan(privacy__vote_noise=9.0)
    app = BuiltIn(study, cohort, b"n" * 32)
    start = initial_parameters(study)
    ahead = {name: array + 0.5 for name, array in start.items()}
    model = Payload(arrays={"arrays": ahead, GOOD: start})
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        task = TaskInput(kind=kind, round_number=1, payload=model, reported_count=9.0)
        payload = app.answer(task)
        assert not payload.config
        values = [*payload.arrays.values(), *payload.metrics.values()]
        found[kind] = {name: np.asarray(value) for part in values for name, value in part.items()}
    return found


def test_whatever_depends_on_patients_in_an_answer_is_paid_for() -> None:
    """Two quite different cohorts: what differs is named in the table of charges, the rest not."""
    one, other = leaves(rows(1, 40)), leaves(rows(2, 90))
    assert set(one) == set(KINDS), "every kind of task was asked for"
    for kind, values in one.items():
        assert set(values) <= set(PAID), kind
        for name, value in values.items():
            changed = not np.array_equal(value, other[kind][name])
            if name == "num-examples":
                assert not changed, "it is the count that was reported, not the true one"
            else:
                assert changed, f"{name} is listed as made of patients, and is not"
                assert PAID[name] == KINDS[kind], f"{name} leaves with '{kind}' and is not paid"


def test_every_kind_of_task_has_a_charge_and_every_charge_a_noise_in_the_plan() -> None:
    assert set(KINDS.values()) <= set(CHARGES)
    full = plan(privacy__vote_noise=9.0)
    by_plans = set(CHARGES) - {"readiness"}  # a person gives that one, and no plan
    assert {item.kind for item in planned_charges(full)} == by_plans
    silent = {item.kind for item in planned_charges(plan(privacy__evaluation_noise=None))}
    assert silent == {"count", "train"}, "without a noise a kind is not planned, so never answered"


def test_the_count_shows_no_cohort_below_the_smallest_cell_or_cohort() -> None:
    study = plan(privacy__mode="local")
    app = BuiltIn(study, rows(1, 8), b"n" * 32)
    task = TaskInput(kind="query.cohort", round_number=0, payload=Payload(), reported_count=None)
    counts = [app.answer(task).metrics["metrics"]["cohort-count"] for _ in range(200)]
    assert min(counts) == study.sites.smallest_cohort


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("training__learning_rate", [0.1, 1.0]),
        ("training__rounds", [3, 5]),
        ("model__l2", [0.0, 0.1]),
        ("privacy__clipping_norm", [1, 2]),
        ("model__hidden", [[4], [8]]),
    ],
)
def test_a_search_over_settings_is_several_plans_each_priced_or_none(part: str, value: Any) -> None:
    """A plan has one setting; the next one is another plan, another reservation, another price."""
    with pytest.raises(PlanError, match="does not add up"):
        plan(**{part: value})
    assert plan(training__learning_rate=0.1).hash != plan(training__learning_rate=1.0).hash
