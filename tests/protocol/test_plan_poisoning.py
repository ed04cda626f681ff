"""What a plan may say of votes, robust rules and groups, and with which sentence it may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedtwin_client.training.accounting import price
from fedtwin_protocol.privacy import full_batch_mu, gaussian_epsilon
from fedtwin_protocol.study import StudyPlan


def plan_of(**parts: Any) -> StudyPlan:
    value: dict[str, Any] = {
        "study": "poisoning",
        "consortium": "demo",
        "title": "A study",
        "purpose": "To be attacked",
        "cohort": {"index": {"codes": ["TEST//index"]}, "holdout_fraction": 0.25},
        "features": [{"name": "age", "kind": "age"}],
        "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 6, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 5,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 10.0,
            "vote_noise": 8.0,
            "hospitals_per_patient": 1,
        },
        "sites": {"quorum": 3},
    }
    for part, change in parts.items():
        value[part] = {**value.get(part, {}), **change}
    return StudyPlan.model_validate(value)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two voters": ({"sites": {"quorum": 2}}, "votes need at least 3 sites"),
    "nobody held out": ({"cohort": {"holdout_fraction": 0}}, "votes need held-out patients"),
    "votes without noise": ({"privacy": {"vote_noise": 0}}, "vote_noise must be above 0"),
    "robust mean": (
        {"training": {"mechanism": "local_steps"},
         "aggregation": {"rule": "mean", "robust": "median"}},
        "belong to rule 'sum'",
    ),
    "groups for nothing": ({"aggregation": {"groups": 3}}, "they only cost noise"),
    "groups where sums are seen": (
        {"aggregation": {"groups": 3, "robust": "trimmed"}},
        "'groups' belong to secure sums",
    ),
    "an unknown rule": ({"aggregation": {"robust": "best"}}, "robust"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_does_not_add_up(name: str) -> None:
    parts, sentence = REFUSED[name]
    with pytest.raises(ValidationError, match=sentence):
        plan_of(**parts)


@pytest.mark.parametrize("robust", ["none", "trimmed", "median", "krum"])
def test_a_plan_with_votes_and_a_robust_sum(robust: str) -> None:
    plan = plan_of(aggregation={"robust": robust})
    assert plan.privacy.vote_noise == 8.0
    assert plan.aggregation.robust == robust


def test_held_out_patients_pay_a_vote_a_round() -> None:
    """By the accountant, beside the closed form of full-batch sums; those in training do not."""
    plan = plan_of()
    found = price(plan, (2.0, 4.0))
    (vote,) = [item for item in found.mechanisms if item.kind == "vote"]
    assert (vote.sigma, vote.steps, vote.charges, vote.population) == (8.0, 1, 6, "held_out")
    mu = full_batch_mu(6, 8.0, plan.privacy.cohort_count_noise)
    assert found.epsilon_held_out == pytest.approx(gaussian_epsilon(mu, 1e-5), rel=0.01)
    without = price(plan_of(privacy={"vote_noise": None}), (2.0, 4.0))
    assert without.epsilon_training == found.epsilon_training
    assert without.epsilon_held_out < found.epsilon_held_out / 2
