"""What an attacker could learn at most, in figures and in plain words."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from fedtwin_client.node.ledger_account import Account, StepsTaken
from fedtwin_client.node.ledger_attack import (
    FALSE_ALARMS,
    best_attack,
    gaussian_power,
    largest_posterior,
)
from fedtwin_client.node.ledger_explain import explain
from fedtwin_client.node.renyi import ORDERS
from fedtwin_client.node.study_desk import reservation_for
from fedtwin_client.training.accounting import deltas_of, epsilon_of, price
from fedtwin_protocol.study import StudyPlan, plan_from_value

SITES = [f"site-{number}" for number in range(10)]


def plan(**privacy) -> StudyPlan:
    return plan_from_value(
        {
            "study": "explained",
            "consortium": "demo",
            "title": "Explained",
            "purpose": "To be explained",
            "cohort": {"index": {"codes": ["A//index"]}},
            "features": [{"name": "age", "kind": "age"}, {"name": "sex", "kind": "sex"}],
            "endpoint": {"name": "e", "kind": "event", "codes": ["A//e"], "horizon_days": 9},
            "model": {"family": "logistic_regression"},
            "training": {"rounds": 4, "learning_rate": 1},
            "privacy": {
                "epsilon": 50,
                "delta": 1e-5,
                "clipping_norm": 1,
                "noise_multiplier": 8.0,
                "cohort_count_noise": 20,
                "evaluation_noise": 5.0,
                "mode": "local",
                "hospitals_per_patient": 1,
                **privacy,
            },
            "sites": {"quorum": 7, "invited": SITES},
            "evaluation": {"unjudged": True},
        },
        "the test's plan",
    )


def account(study: StudyPlan, **made: int) -> Account:
    asked = reservation_for(study, asdict(price(study, ORDERS)))
    return Account(reservation=asked, made=dict(made))


def text(study: StudyPlan, **made: int) -> str:
    return "\n".join(explain(study, account(study, **made), epsilon_of, deltas_of))


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0])
def test_the_power_is_that_of_the_best_test_between_two_gaussians(mu):
    """Drawn: a test of the noised sum itself, with 0 against 1 patient."""
    rng = np.random.default_rng(7)
    without, having = rng.normal(0, 1, 400_000), rng.normal(mu, 1, 400_000)
    for rate in FALSE_ALARMS:
        found = float((having > np.quantile(without, 1 - rate)).mean())
        assert found == pytest.approx(gaussian_power(rate, mu), abs=0.01)


def test_the_dual_of_the_privacy_curve_agrees_with_the_closed_form():
    """The same steps, said to be sampled with a rate so near 1 that it makes no difference."""
    steps = [StepsTaken("train", 4.0, 1.0, 6)]
    nearly = [StepsTaken("train", 4.0, 0.999999, 6)]
    closed = best_attack(steps, 1e-5, deltas_of).power
    dual = best_attack(nearly, 1e-5, deltas_of).power
    for one, other in zip(closed, dual, strict=True):
        assert one * (1 - 1e-3) <= other <= one * 1.02


def test_a_sampled_attack_is_bounded_by_epsilon_and_weaker_than_without_sampling():
    steps = [StepsTaken("train", 2.0, 0.1, 50)]
    attack = best_attack(steps, 1e-5, deltas_of)
    whole = best_attack([StepsTaken("train", 2.0, 1.0, 50)], 1e-5, deltas_of)
    for rate, power, all_in in zip(FALSE_ALARMS, attack.power, whole.power, strict=True):
        assert rate < power < all_in


@pytest.mark.parametrize("mu", [0.3, 1.0])
def test_the_largest_belief_is_exceeded_as_rarely_as_is_said(mu):
    """Drawn from what a member's record makes of the sum; at a chance that can be counted."""
    rng = np.random.default_rng(3)
    steps = [StepsTaken("train", 1 / mu, 1.0, 1)]
    nearly = [StepsTaken("train", 1 / mu, 0.999999, 1)]
    losses = mu * rng.normal(mu, 1, 2_000_000) - mu * mu / 2
    beliefs = 1 / (1 + np.exp(-losses))
    closed = best_attack(steps, 1e-3, deltas_of).posterior[0]
    assert float((beliefs > closed).mean()) == pytest.approx(1e-3, rel=0.1)
    dual = best_attack(nearly, 1e-3, deltas_of).posterior[0]
    assert closed < dual < closed + 0.05
    skellam = [StepsTaken("train", 1 / mu, 1.0, 1, 1, 1e-14)]
    assert closed < best_attack(skellam, 1e-3, deltas_of).posterior[0] < closed + 0.05


def test_a_belief_grows_by_the_odds():
    assert largest_posterior(0.5, 0.0) == pytest.approx(0.5)
    assert largest_posterior(0.5, 1.0) == pytest.approx(math.e / (1 + math.e))
    assert largest_posterior(0.1, 1.0) == pytest.approx(math.e / (math.e + 9))


def test_a_study_is_explained_so_far_and_to_its_end():
    said = text(plan(), count=1, train=2)
    so_far, whole = said.split("WHAT AN ATTACKER COULD LEARN")[1:3]
    mu = math.sqrt(2 / 64 + 1 / 400)
    assert f"{gaussian_power(0.01, mu):.1%} of those who were" in so_far
    mu = math.sqrt(4 / 64 + 1 / 400)
    assert f"{gaussian_power(0.05, mu):.1%} of those who were" in whole
    assert "an update of the model: 2 of 4 times so far" in said
    assert "sees each of these messages of this hospital by itself" in said
    assert "a table of held-out patients" in said


def test_before_anything_left_nothing_can_be_learned():
    assert "nothing has left yet" in text(plan())


def test_in_mode_secure_it_is_said_who_sees_sums_and_what_all_others_together_could_do():
    said = text(plan(mode="secure"), count=1, train=4)
    assert "sums over at least 7 of the 10 hospitals" in said
    assert "Up to 3 hospitals may show each other" in said
    alone = [StepsTaken("train", 8.0 / 2, 1.0, 4), StepsTaken("count", 20.0 / 2, 1.0, 1)]
    assert f"epsilon {epsilon_of(alone, 1e-5):.3g} instead" in said, "one share of 7 - 3"


def test_a_vote_is_said_to_be_seen_by_itself():
    voting = plan(mode="secure", vote_noise=30.0)
    voting = voting.model_copy(update={"evaluation": type(voting.evaluation)()})
    assert "A vote is seen by the coordinator by itself" in text(voting, count=1, train=1)
    assert "A vote is seen" not in text(plan(mode="secure"))


def test_what_the_hospitals_share_and_what_a_plan_without_promise_says():
    assert "seen at 2 of the hospitals" in text(plan(hospitals_per_patient=2), train=1)
    bare = plan(mode="none", noise_multiplier=0, cohort_count_noise=0, evaluation_noise=0)
    assert "promises no privacy" in text(bare)
