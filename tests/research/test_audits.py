"""Audits outside the hospitals: the mechanism written again is the product's, and attacks work."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedtwin.demo
from fedtwin_client.training.learner import make_learner
from fedtwin_client.training.noise import SeededNoise
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.made_up import made_up_rows
from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_research.audits.families import family_of
from fedtwin_research.audits.repeat import (
    epsilon_finding,
    inversion_cosines,
    membership_curves,
    one_run,
    overfitting_pool,
    repeat_audits,
)
from fedtwin_research.audits.shadows import Pool, learn_as_planned, learn_openly
from fedtwin_server.rules import MeanRule, SumRule
from fedtwin_twins.audits.membership import attack, confidence, most_found

HEART = plan_from_yaml(Path(fedtwin.demo.__file__).parent / "plans" / "heart-disease.yaml")
KINDS = [
    ("logistic_regression", "gradient_sum"),
    ("logistic_regression", "local_steps"),
    ("logistic_regression", "mean_vector"),
    ("network", "gradient_sum"),
    ("network", "local_steps"),
]


def plan(
    family: str = "logistic_regression", mechanism: str = "gradient_sum", **privacy: Any
) -> StudyPlan:
    local, once = mechanism == "local_steps", mechanism == "mean_vector"
    return StudyPlan.model_validate(
        HEART.model_dump()
        | {
            "model": {"family": family, "hidden": [6] if family == "network" else [], "l2": 0.03},
            "training": {
                "mechanism": mechanism,
                "rounds": 1 if once else 4,
                "learning_rate": 0.7,
                "momentum": 0.0 if once or local else 0.6,
                "local_steps": 3 if local else 1,
            },
            "aggregation": {"rule": "mean" if local else "sum"},
            "privacy": HEART.privacy.model_dump() | privacy,
        }
    )


def as_the_product_learns(
    study: StudyPlan, rows: TrainingRows, folder: Path, seed: int = 1
) -> np.ndarray:
    """Rounds by the site's learner and the coordinator's rule."""
    blobs, noise = BlobStore(folder), SeededNoise(seed)
    rule = (SumRule if study.training.summed else MeanRule)(study, blobs)
    learner, count = make_learner(study, rows), float(len(rows))
    start = Payload(arrays={"arrays": initial_parameters(study)})
    state = pb.RoundState(parameters=make_content(start, blobs))

    async def ask(kind: str, tasks: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
        given = read_content(tasks["a"], blobs).arrays["arrays"]
        arrays = learner.update(given, count, noise)
        metrics = {"metrics": {"num-examples": count}}
        content = make_content(Payload(arrays={"arrays": arrays}, metrics=metrics), blobs)
        return {"a": pb.Answer(content=content)}

    for number in range(1, study.training.rounds + 1):
        step = asyncio.run(rule.step(number, state, {"a": count}, ask))
        state = pb.RoundState(parameters=step.parameters, memory=step.memory)
    return flatten(read_content(state.parameters, blobs).arrays["arrays"])


@pytest.mark.parametrize(("family", "mechanism"), KINDS)
@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_many_models_at_once_learn_as_the_product_does(
    family: str, mechanism: str, clip: float, tmp_path: Path
) -> None:
    study = plan(family, mechanism, mode="none", clipping_norm=clip)
    features = made_up_rows(study.contract, 60, seed=1)
    outcomes = (np.random.default_rng(2).random(60) < 0.5).astype(float)
    taken = np.random.default_rng(3).random((3, 60)) < 0.6
    pool = Pool(features=features, outcomes=outcomes, taken=taken)
    found = learn_as_planned(study, pool, seed=4)
    for place, mine in enumerate(taken):
        rows = TrainingRows(features=features[mine], outcomes=outcomes[mine])
        expected = as_the_product_learns(study, rows, tmp_path / str(place))
        tolerance = 1e-9 if family == "logistic_regression" else 2e-4  # single precision
        assert found[place] == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(("family", "mechanism"), KINDS)
def test_noise_of_many_models_is_the_plans(family: str, mechanism: str) -> None:
    """Of nobody, a step is noise alone, divided by the smallest cohort."""
    study = plan(family, mechanism, cohort_count_noise=1e-6)
    training = study.training.model_copy(update={"rounds": 1, "local_steps": 1})
    study = study.model_copy(update={"training": training})
    pool = Pool(
        features=np.zeros((30, 13)), outcomes=np.zeros(30), taken=np.zeros((400, 30), np.bool_)
    )
    start = flatten(initial_parameters(study))
    moved = (start - learn_as_planned(study, pool, seed=1)) / study.training.learning_rate
    decay = study.model.l2 * family_of(study).penalised * start
    expected = study.privacy.noise_multiplier * study.privacy.clipping_norm
    found = (moved - decay).std() * study.sites.smallest_cohort
    assert found == pytest.approx(expected, rel=0.05)


def test_without_protection_members_are_found_and_with_it_they_are_not() -> None:
    private, unprotected = membership_curves(HEART, seed=1)
    assert unprotected.found_at() > 0.04
    assert unprotected.area > 0.68
    assert private.found_at() < most_found(1.0, 1e-5)
    assert private.area < 0.6


def test_members_of_the_products_own_models_are_found_only_without_protection(
    tmp_path: Path,
) -> None:
    """LiRA on what site and coordinator learn together, not on the mechanism written again."""
    small = overfitting_pool(HEART, 2)
    taken = small.taken[:256]
    family = family_of(HEART)
    found = {}
    for name, study in (
        ("epsilon 1", HEART),
        ("none", plan(mode="none", clipping_norm=1e6)),
    ):
        models = np.array(
            [
                as_the_product_learns(
                    study,
                    TrainingRows(features=small.features[mine], outcomes=small.outcomes[mine]),
                    tmp_path,
                    seed=place,
                )
                for place, mine in enumerate(taken)
            ]
        )
        scores = confidence(family.log_odds(models, small.features), small.outcomes)
        found[name] = attack(scores, taken).found_at()
    assert found["epsilon 1"] < most_found(1.0, 1e-5)
    assert found["none"] > 1.5 * most_found(1.0, 1e-5)


def test_forgotten_noise_is_found_by_lira() -> None:
    pool = overfitting_pool(HEART, 1)
    family = family_of(HEART)
    for learn, expected in (
        (lambda: learn_as_planned(HEART, pool, 4, noised=False), True),
        (lambda: learn_openly(HEART, pool), True),
        (lambda: learn_as_planned(HEART, pool, 4), False),
    ):
        scores = confidence(family.log_odds(learn(), pool.features), pool.outcomes)
        found = attack(scores, pool.taken).found_at()
        assert (found > most_found(1.0, 1e-5)) == expected, found


@pytest.mark.parametrize(("family", "mechanism"), KINDS)
def test_records_are_read_off_bare_updates_and_not_off_noised_ones(
    family: str, mechanism: str
) -> None:
    shown, bare = inversion_cosines(plan(family, mechanism), seed=1)
    assert bare.mean() > 0.999
    assert abs(shown.mean()) < 0.3
    little, _ = inversion_cosines(plan(family, mechanism, noise_multiplier=0.001), seed=1)
    assert little.mean() > 0.9


def test_the_bound_of_one_run_is_below_the_stated_epsilon_and_rises_with_less_noise() -> None:
    honest, loud = one_run(HEART, 1), one_run(plan(noise_multiplier=0.3), 1)
    assert honest.passed
    assert honest.result < 1.0
    assert not loud.passed
    assert loud.result > 2.0


def test_the_stated_epsilon_is_held_against_the_cost() -> None:
    assert epsilon_finding(HEART, 1.0).passed
    assert not epsilon_finding(HEART, 1.01).passed
    assert not epsilon_finding(HEART, float("inf")).passed


def test_a_plan_that_promises_nothing_is_held_to_nothing() -> None:
    findings = repeat_audits(plan(mode="none"), 1, lambda _: float("inf")).findings
    assert [one.name for one in findings] == ["membership", "inversion"]
    assert all(one.passed for one in findings)
    assert "nothing is promised" in findings[1].reading


def test_an_installed_family_cannot_be_learned_here() -> None:
    model = HEART.model.model_copy(update={"family": "their_own"})
    with pytest.raises(ReleaseError, match="their_own"):
        repeat_audits(HEART.model_copy(update={"model": model}), 1, lambda _: 1.0)
