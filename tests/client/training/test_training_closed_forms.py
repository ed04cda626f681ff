"""Clipped sums of hazards and generalised linear models, against one slow loop with autograd."""

import numpy as np
import pytest
import torch

from fedtwin_client.training.gradients import clipped_gradient_sum, clipped_signed_sum
from fedtwin_client.training.hazard import clipped_hazard_sum, person_intervals
from fedtwin_twins.risk import logistic, predict_score
from fedtwin_twins.survival import concordance, risk_log_odds, survival_curve

ENDS = (100, 200, 400)
LOSSES = {
    "logistic_regression": torch.nn.functional.binary_cross_entropy_with_logits,
    "linear_regression": lambda score, outcome: (score - outcome) ** 2 / 2,
    "poisson_regression": lambda score, outcome: torch.exp(score) - outcome * score,
}


def patients(seed=0, count=40):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4))
    return features, rng.uniform(1, 400, count), (rng.random(count) < 0.4).astype(float)


def slow(losses, weights, clip):
    """Each patient's gradient by autograd, clipped, and added."""
    total = np.zeros(len(weights))
    for loss in losses:
        leaf = torch.tensor(weights, requires_grad=True)
        gradient = torch.autograd.grad(loss(leaf), leaf)[0].numpy()
        total += gradient * min(1.0, clip / max(np.linalg.norm(gradient), 1e-300))
    return total


def hazard_loss(row, days, outcome):
    """Written out interval by interval."""

    def loss(weights):
        total = 0 * weights.sum()
        start = 0
        for place, end in enumerate(ENDS):
            score = torch.tensor(row) @ weights[:4] + weights[4 + place]
            if outcome and start < days <= end:
                return total - torch.nn.functional.logsigmoid(score)
            if days >= end:
                total = total - torch.nn.functional.logsigmoid(-score)
            start = end
        return total

    return loss


@pytest.mark.parametrize("clip", [0.3, 1e6])
def test_hazard_sums_equal_the_slow_loop(clip):
    features, days, outcomes = patients()
    days[:3], outcomes[:3] = (100, 200, 400), (0, 1, 0)  # on the edges
    weights = np.random.default_rng(1).normal(size=7)
    at_risk, event = person_intervals(days, outcomes, ENDS)
    found = clipped_hazard_sum(features, at_risk, event, weights, clip)
    each = [hazard_loss(*patient) for patient in zip(features, days, outcomes, strict=True)]
    assert found == pytest.approx(slow(each, weights, clip), abs=1e-9)


@pytest.mark.parametrize("family", LOSSES)
@pytest.mark.parametrize("clip", [0.3, 1e6])
def test_linear_sums_equal_the_slow_loop(family, clip):
    features, _, outcomes = patients(2)
    weights = np.random.default_rng(3).normal(size=5) / 2

    def loss_of(row, outcome):
        return lambda leaf: LOSSES[family](
            torch.tensor(row) @ leaf[:-1] + leaf[-1], torch.tensor(outcome)
        )

    each = [loss_of(row, outcome) for row, outcome in zip(features, outcomes, strict=True)]
    found = clipped_gradient_sum(features, outcomes, weights, clip, family)
    assert found == pytest.approx(slow(each, weights, clip), abs=1e-9)


def test_the_mean_vector_sums_clipped_columns_by_the_sign_of_the_outcome():
    features = np.array([[3.0, 4.0], [0.0, 0.0], [0.6, 0.0]])
    outcomes = np.array([1.0, 0.0, 1.0])
    norms = np.sqrt([26, 1, 1.36])
    expected = sum(
        sign * np.append(row, 1) * min(1, 2 / norm)
        for row, sign, norm in zip(features, (1, -1, 1), norms, strict=True)
    )
    assert -clipped_signed_sum(features, outcomes, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308])
def test_a_hazard_that_is_not_finite_counts_as_zero(value):
    features, days, outcomes = patients(4)
    features[5, 0] = value
    kept = np.arange(40) != 5
    at_risk, event = person_intervals(days, outcomes, ENDS)
    weights = np.full(7, 0.1)
    found = clipped_hazard_sum(features, at_risk, event, weights, 0.5)
    others = clipped_hazard_sum(features[kept], at_risk[kept], event[kept], weights, 0.5)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - others) <= 0.5 * (1 + 1e-9)


def test_one_patient_moves_a_hazards_sum_by_no_more_than_the_clip():
    features, days, outcomes = patients(6)
    at_risk, event = person_intervals(days, outcomes, ENDS)
    weights = np.zeros(7)
    whole = clipped_hazard_sum(features * 50, at_risk, event, weights, 0.2)
    for place in range(40):
        kept = np.arange(40) != place
        fewer = clipped_hazard_sum(features[kept] * 50, at_risk[kept], event[kept], weights, 0.2)
        assert np.linalg.norm(whole - fewer) <= 0.2 * (1 + 1e-9)


def test_risk_and_survival_are_the_products_of_hazards():
    features = patients(8)[0]
    weights, baseline = np.array([0.2, -0.4, 0.1, 0.6]), np.array([-3.0, -2.0, -1.0])
    parameters = {"weights": weights, "baseline_intercept": baseline}
    hazards = logistic((features @ weights)[:, None] + baseline)
    expected = np.cumprod(1 - hazards, axis=1)
    assert survival_curve(parameters, features) == pytest.approx(expected)
    assert logistic(risk_log_odds(parameters, features)) == pytest.approx(1 - expected[:, -1])
    with pytest.raises(ValueError, match="got"):
        predict_score({"weights": weights}, features)


def test_concordance_is_that_of_lifelines():
    from lifelines.utils import concordance_index

    rng = np.random.default_rng(9)
    days, events = rng.integers(1, 60, 200).astype(float), rng.random(200) < 0.5
    scores = np.round(rng.normal(size=200) - days / 40, 1)
    expected = concordance_index(days, -scores, events)
    assert concordance(scores, days, events.astype(float)) == pytest.approx(expected)
    assert np.isnan(concordance(scores, days, np.zeros(200)))
