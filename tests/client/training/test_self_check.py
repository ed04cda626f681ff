"""A node's check of its own mechanism passes as it is, and fails for each thing taken out of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedtwin.demo
from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.apps import SumPart, TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.noise import CryptographicNoise, NoiseSource
from fedtwin_client.training.self_check import (
    check_count,
    check_independence,
    check_privacy,
    check_table,
    check_training,
    check_vote,
)
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.votes import VOTE


def base() -> StudyPlan:
    """The heart study in mode `local` with three rounds at epsilon 1."""
    plan = plan_from_yaml(Path(fedtwin.demo.__file__).parent / "plans" / "heart-disease.yaml")
    value = plan.model_dump()
    value["training"] |= {"rounds": 3, "learning_rate": 1.0}
    value["privacy"] |= {
        "mode": "local",
        "clipping_norm": 1.0,
        "noise_multiplier": 6.58,
        "evaluation_noise": 3.8,
        "vote_noise": 8.0,
        "hospitals_per_patient": 1,
    }
    value["sites"] |= {"invited": tuple("abcdefg")}
    return StudyPlan.model_validate(value)


PLAN = base()


def plan(
    family: str = "logistic_regression", mechanism: str = "gradient_sum", **privacy: Any
) -> StudyPlan:
    """The heart study with another family, mechanism or mode."""
    local = mechanism == "local_steps"
    return StudyPlan.model_validate(
        PLAN.model_dump()
        | {
            "model": {"family": family, "hidden": [5] if family == "network" else []},
            "training": {
                "mechanism": mechanism,
                "rounds": 1 if mechanism == "mean_vector" else 3,
                "learning_rate": 0.5,
                "local_steps": 3 if local else 1,
            },
            "aggregation": {"rule": "mean" if local else "sum"},
            "privacy": PLAN.privacy.model_dump()
            | {"mode": "local", "vote_noise": 30.0, "sampling_rate": 0.3 if local else 1.0}
            | privacy,
        }
    )


everything = pytest.mark.parametrize(
    ("family", "mechanism"),
    [
        *(("logistic_regression", m) for m in ("gradient_sum", "local_steps", "mean_vector")),
        *(("network", m) for m in ("gradient_sum", "local_steps")),
    ],
)
App = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small sums on several threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@everything
def test_the_node_as_it_is_passes(family: str, mechanism: str) -> None:
    findings = check_privacy(plan(family, mechanism), seed=1)
    assert [one.name for one in findings if not one.passed] == []
    assert [one.name for one in findings] == [
        *("independence", "moments-update", "moments-count", "moments-table", "moments-vote"),
    ]


def test_a_sum_of_sampled_patients_passes() -> None:
    findings = check_privacy(plan(sampling_rate=0.4), seed=1)
    assert [one.name for one in findings if not one.passed] == []


def test_every_plan_of_the_demo_passes() -> None:
    for path in sorted((Path(fedtwin.demo.__file__).parent / "plans").glob("*.yaml")):
        found = plan_from_yaml(path)
        sites = found.sites.model_copy(update={"invited": ("a", "b", "c", "d")})
        findings = check_privacy(found.model_copy(update={"sites": sites}), seed=2)
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
        "clipping_norm": privacy.clipping_norm * 1e3,
        "noise_multiplier": privacy.noise_multiplier / 1e3,
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


SECURE = plan(mode="secure")


class SmallShares(BuiltIn):
    """Shares of the noise sized for all seven sites, though some may vanish or collude."""

    def part(self, task: TaskInput) -> SumPart:
        part = super().part(task)
        terms = secure_terms(self._plan)
        short = (terms.honest_present / len(terms.sites)) ** 0.5
        return replace(part, noise_multiplier=part.noise_multiplier * short)


class SharesForCollusionForgotten(BuiltIn):
    """Shares sized for those who may vanish, not for those in league with the coordinator."""

    def part(self, task: TaskInput) -> SumPart:
        part = super().part(task)
        terms = secure_terms(self._plan)
        short = (terms.honest_present / terms.threshold) ** 0.5
        return replace(part, noise_multiplier=part.noise_multiplier * short)


class OneNoiseForAllSites(BuiltIn):
    """Every site draws the very same share."""

    def __init__(self, study: StudyPlan, rows: CohortRows, key: bytes) -> None:
        super().__init__(study, rows, key)
        self.noise = CryptographicNoise(bytes(32))


@pytest.mark.parametrize("scale_bits", [4, 20])
def test_secure_sums_pass(scale_bits: int) -> None:
    findings = check_privacy(plan(mode="secure", scale_bits=scale_bits), seed=1)
    assert [one for one in findings if not one.passed] == []
    assert len(findings) == 5


def test_a_secure_sum_of_a_network_passes() -> None:
    assert check_training(plan("network", mode="secure"), 1).passed


@pytest.mark.parametrize(
    "app",
    [
        *(SmallShares, SharesForCollusionForgotten, OneNoiseForAllSites),
        *(too_little_noise, forgotten_clip, wider_clip),
    ],
)
def test_a_sabotaged_secure_sum_is_found(app: App) -> None:
    finding = check_training(SECURE, 3, app)
    assert not finding.passed
    assert finding.result < 1e-8


@pytest.mark.parametrize("app", [SmallShares, SharesForCollusionForgotten])
def test_small_shares_are_found_in_the_count_and_the_table(app: App) -> None:
    assert check_count(SECURE, 3, app).result < 1e-6
    assert check_table(SECURE, 3, app).result < 1e-8


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


@pytest.mark.parametrize("mode", ["local", "secure"])
def test_a_sabotaged_vote_is_found(mode: str) -> None:
    study = plan(mode=mode, vote_noise=8.0)
    assert [one.passed for one in check_privacy(study, 7)] == [True] * 5
    less = partial(other_privacy, lambda privacy: {"vote_noise": 8.0 / 1.25})
    assert check_vote(study, 7, less).result < 1e-8


class VotesTwice(BuiltIn):
    """Every patient's word counts double."""

    def answer(self, task: TaskInput) -> Payload:
        found = super().answer(task).metrics["metrics"][VOTE]
        again = super().answer(task).metrics["metrics"][VOTE]
        return Payload(metrics={"metrics": {VOTE: found + again}})


def test_a_vote_that_counts_a_patient_twice_is_found() -> None:
    assert not check_vote(plan(vote_noise=8.0), 7, VotesTwice).passed


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
