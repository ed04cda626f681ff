"""A node's check of its own mechanism, for every kind of endpoint and every family of records."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.self_check import check_privacy, check_training
from fedtwin_protocol.study import StudyPlan

SEQUENCE = {"vocabulary": [{"code": "LOCAL//a"}, {"code": "LOCAL//b"}], "most_records": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear_regression": ("value", {}),
    "poisson_regression": ("count", {}),
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
    return StudyPlan.model_validate(
        {
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
            "training": {"rounds": 3, "learning_rate": 0.5},
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
    assert [(one.name, one.passed) for one in findings] == [
        ("independence", True),
        ("moments-update", True),
        ("moments-count", True),
    ]


@pytest.mark.parametrize("family", ["poisson_regression", "discrete_hazard", "recurrent"])
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
