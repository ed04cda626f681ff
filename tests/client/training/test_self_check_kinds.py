"""A node's check of its own mechanism, for every kind of endpoint and every family of records."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.self_check import check_move, check_privacy, check_training
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan

SEQUENCE = {"vocabulary": [{"code": "LOCAL//a"}, {"code": "LOCAL//b"}], "most_records": 2}
MIXED = "linear_mixed_model"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear_regression": ("value", {}),
    "poisson_regression": ("count", {}),
    "linear_mixed_model": ("value", {}),
    "discrete_hazard": ("time_to_event", {"interval_days": [10, 30]}),
    "network": ("event", {}),
    "transformer": ("event", {}),
    "recurrent": ("event", {}),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small sums on several threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan(family: str) -> StudyPlan:
    kind, endpoint = KINDS[family]
    named = {"name": "asked", "kind": kind, "codes": ["LOCAL//e"], "horizon_days": 30}
    shape = {"width": 2, "heads": 1, "layers": 1, "hidden": [3] if family == "network" else []}
    asked = {"question": "population", "population": {}} if family == MIXED else {}
    once = {"mechanism": "moments", "rounds": 1, "learning_rate": 1}
    return StudyPlan.model_validate(
        asked
        | {
            "study": "checked",
            "consortium": "tests",
            "title": "A plan",
            "purpose": "To be checked",
            "cohort": {"index": {"codes": ["LOCAL//visit"]}},
            "features": [
                {"name": "age", "kind": "age", "unit": "a", "center": 60, "scale": 10},
                {"name": "sex", "kind": "sex"},
            ],
            "sequence": SEQUENCE if kind == "event" else None,
            "endpoint": named | endpoint,
            "model": {"family": family, **shape},
            "training": once if family == MIXED else {"rounds": 3, "learning_rate": 0.5},
            "privacy": {
                "mode": "local",
                "epsilon": 10,
                "delta": 1e-5,
                "clipping_norm": 1.0,
                "noise_multiplier": 3.0,
                "hospitals_per_patient": 1,
            },
            "sites": {"quorum": 3},
        }
    )


@pytest.mark.parametrize(
    "family",
    [
        *(name for name in KINDS if name != "transformer"),
        pytest.param("transformer", marks=pytest.mark.slow),
    ],
)
def test_the_node_as_it_is_passes(family: str) -> None:
    findings = check_privacy(plan(family), seed=1)
    shared = [("site-shift", True)] if family == MIXED else []
    assert [(one.name, one.passed) for one in findings] == [
        ("independence", True),
        *shared,
        ("moments-update", True),
        ("moments-count", True),
    ]


@pytest.mark.parametrize("family", ["poisson_regression", "discrete_hazard", "recurrent", MIXED])
def test_contributions_beyond_the_clip_are_found(family: str) -> None:
    def wider(study: StudyPlan, rows: CohortRows, key: bytes) -> BuiltIn:
        privacy = study.privacy.model_copy(
            update={
                "clipping_norm": 3 * study.privacy.clipping_norm,
                "noise_multiplier": study.privacy.noise_multiplier / 3,
            }
        )
        return BuiltIn(study.model_copy(update={"privacy": privacy}), rows, key)

    assert not check_training(plan(family), seed=1, app_of=wider).passed


def test_a_shared_shift_beyond_the_bound_is_found() -> None:
    """A site that leaves its shift unshrunken, so that one patient moves it by many bounds."""

    class Unshrunken(BuiltIn):
        def answer(self, task: TaskInput) -> Payload:
            found = super().answer(task)
            arrays = dict(found.arrays["arrays"])
            if task.kind == "train":
                grown = arrays["gradient_sum"].copy()
                grown[len(grown) // 2 + 1 :] *= 5
                arrays["gradient_sum"] = grown
            return Payload(arrays={"arrays": arrays}, metrics=found.metrics)

    bare = check_move(plan(MIXED), seed=1)
    assert (bare.passed, bare.result <= 1) == (True, True)
    assert not check_move(plan(MIXED), seed=1, app_of=Unshrunken).passed
