"""A node's check of its own mechanism passes as it is, and fails for each thing taken out of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedtwin.demo
from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.noise import CryptographicNoise, NoiseSource
from fedtwin_client.training.self_check import (
    check_count,
    check_independence,
    check_privacy,
    check_table,
    check_training,
)
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan, plan_from_yaml

PLAN = plan_from_yaml(Path(fedtwin.demo.__file__).parent / "plans" / "heart-disease.yaml")


def plan(family: str = "logistic_regression", mechanism: str = "gradient_sum") -> StudyPlan:
    """The heart study with another family or mechanism."""
    local = mechanism == "local_steps"
    return StudyPlan.model_validate(
        PLAN.model_dump()
        | {
            "model": {"family": family, "hidden": [5] if family == "network" else []},
            "training": {
                "mechanism": mechanism,
                "rounds": 3,
                "learning_rate": 0.5,
                "local_steps": 3 if local else 1,
            },
            "aggregation": {"rule": "mean" if local else "sum"},
            "privacy": PLAN.privacy.model_dump() | {"sampling_rate": 0.3 if local else 1.0},
        }
    )


FAMILIES = ["logistic_regression", "network"]
MECHANISMS = ["gradient_sum", "local_steps"]
everything = pytest.mark.parametrize(
    ("family", "mechanism"), [(f, m) for f in FAMILIES for m in MECHANISMS]
)
App = Callable[..., Any]


@everything
def test_the_node_as_it_is_passes(family: str, mechanism: str) -> None:
    findings = check_privacy(plan(family, mechanism), seed=1)
    assert [one.name for one in findings if not one.passed] == []
    assert [one.name for one in findings] == [
        *("independence", "moments-update", "moments-count", "moments-table"),
    ]


def test_every_plan_of_the_demo_passes() -> None:
    for path in sorted((Path(fedtwin.demo.__file__).parent / "plans").glob("*.yaml")):
        findings = check_privacy(plan_from_yaml(path), seed=2)
        assert all(one.passed for one in findings), (path.name, findings)


def other_privacy(
    change: Callable[[Any], dict[str, float]],
    study: StudyPlan,
    rows: CohortRows,
    noise: NoiseSource | bytes,
) -> BuiltIn:
    """The app of a plan whose privacy numbers were tampered with."""
    privacy = study.privacy.model_copy(update=change(study.privacy))
    return BuiltIn(study.model_copy(update={"privacy": privacy}), rows, noise)


too_little_noise = partial(
    other_privacy, lambda privacy: {"noise_multiplier": privacy.noise_multiplier / 1.25}
)
forgotten_clip = partial(
    other_privacy,
    lambda privacy: {
        "clipping_norm": privacy.clipping_norm * 1e9,
        "noise_multiplier": privacy.noise_multiplier / 1e9,
    },
)
wider_clip = partial(
    other_privacy,
    lambda privacy: {
        "clipping_norm": privacy.clipping_norm * 1.5,
        "noise_multiplier": privacy.noise_multiplier / 1.5,
    },
)


class SameNoise:
    """Answers every task with the noise of the first."""

    def __init__(self, study: StudyPlan, rows: CohortRows, key: bytes) -> None:
        self._made = lambda: BuiltIn(study, rows, CryptographicNoise(key))

    def answer(self, task: TaskInput) -> Payload:
        return self._made().answer(task)


class NoiseComesBack(SameNoise):
    """Every twentieth task gets the noise of the one before it."""

    def __init__(self, study: StudyPlan, rows: CohortRows, key: bytes) -> None:
        super().__init__(study, rows, key)
        self._study, self._rows, self._key = study, rows, key

    def answer(self, task: TaskInput) -> Payload:
        number = task.round_number - (task.round_number % 20 == 19)
        key = number.to_bytes(4, "little") + self._key[4:]
        return BuiltIn(self._study, self._rows, CryptographicNoise(key)).answer(task)


@everything
@pytest.mark.parametrize(
    "app", [too_little_noise, forgotten_clip, wider_clip, SameNoise, NoiseComesBack]
)
def test_a_sabotaged_update_is_found(family: str, mechanism: str, app: App) -> None:
    finding = check_training(plan(family, mechanism), 3, app)
    assert not finding.passed, finding
    assert finding.result < 1e-8


def centred(study: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> BuiltIn:
    """x - x.mean(0): the mean of the batch is in everybody's columns."""
    return BuiltIn(study, replace(rows, features=rows.features - rows.features.mean(axis=0)), noise)


def standardised(study: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> BuiltIn:
    """What a batch normalisation layer does to its inputs."""
    spread = rows.features.std(axis=0) + 1e-5
    scaled = (rows.features - rows.features.mean(axis=0)) / spread
    return BuiltIn(study, replace(rows, features=scaled), noise)


@everything
@pytest.mark.parametrize("app", [centred, standardised])
def test_mixing_patients_is_found(family: str, mechanism: str, app: App) -> None:
    finding = check_independence(plan(family, mechanism), 4, app)
    assert not finding.passed
    assert finding.result > 0.1


def test_a_sabotaged_count_is_found() -> None:
    less = partial(other_privacy, lambda privacy: {"cohort_count_noise": 15.0})
    assert check_count(PLAN, 5).passed
    assert check_count(PLAN, 5, less).result < 1e-6


class CountsTwice(BuiltIn):
    """Every patient counts twice."""

    def _count(self) -> float:
        return super()._count() + len(self._training.outcomes)


def test_a_count_that_counts_a_patient_twice_is_found() -> None:
    assert not check_count(PLAN, 6, CountsTwice).passed


def test_a_sabotaged_table_is_found() -> None:
    less = partial(other_privacy, lambda privacy: {"evaluation_noise": 3.8 / 1.25})
    assert check_table(PLAN, 7).passed
    assert check_table(PLAN, 7, less).result < 1e-8


def test_without_a_promise_only_independence_is_tested() -> None:
    privacy = PLAN.privacy.model_copy(update={"mode": "none"})
    findings = check_privacy(PLAN.model_copy(update={"privacy": privacy}), seed=1)
    assert [one.name for one in findings] == ["independence"]


def test_an_installed_family_cannot_be_checked() -> None:
    model = PLAN.model.model_copy(update={"family": "their_own"})
    with pytest.raises(PlanError, match="not built in"):
        check_privacy(PLAN.model_copy(update={"model": model}), seed=1)


def test_no_two_checks_draw_the_same_noise() -> None:
    readings = {check_training(PLAN, 8).reading for _ in range(3)}
    assert len(readings) == 3
    assert np.all([check_training(PLAN, 8).passed for _ in range(3)])
