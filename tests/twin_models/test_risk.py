"""What risk models predict, and the figures of their quality, against independent programs."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss, roc_auc_score

from fedtwin_twins.risk import (
    INTERCEPT_SD,
    SLOPE_SD,
    accuracy,
    auroc,
    brier_score,
    expected_over_observed,
    integrated_calibration_index,
    logistic,
    predict_probability,
    predict_score,
    quality,
    recalibrate,
)


def patients(seed, count=300, slope=1.0, intercept=0.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, count)
    outcomes = (rng.random(count) < logistic(slope * scores + intercept)).astype(float)
    return scores, outcomes


def test_logistic_is_exact_at_its_ends():
    found = logistic(np.array([-1e4, -40.0, 0.0, 40.0, 1e4]))
    assert found[0] == 0
    assert found[1] == pytest.approx(np.exp(-40))
    assert found[2] == 0.5
    assert found[4] == 1


def test_logistic_regression_by_hand():
    parameters = {"weights": np.array([2.0, -1.0]), "intercept": np.array([0.5])}
    found = predict_score(parameters, np.array([[1.0, 1.0], [0.0, 3.0]]))
    assert found == pytest.approx([1.5, -2.5])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_network_equals_torch(activation):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    widths = (5, 7, 4, 1)
    parameters = {}
    layers = []
    for k, (wide, following) in enumerate(pairwise(widths), start=1):
        layer = torch.nn.Linear(wide, following)
        parameters[f"layer{k}.weight"] = layer.weight.detach().numpy()
        parameters[f"layer{k}.bias"] = layer.bias.detach().numpy()
        layers += [layer, torch.nn.ReLU() if activation == "relu" else torch.nn.Tanh()]
    matrix = rng.normal(size=(20, 5)).astype(np.float32)
    expected = torch.nn.Sequential(*layers[:-1])(torch.from_numpy(matrix)).detach().numpy()[:, 0]
    assert predict_score(parameters, matrix, activation) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("parameters", "columns"),
    [
        ({"weights": np.zeros(3), "intercept": np.zeros(1)}, 4),
        ({"weights": np.zeros(3)}, 3),
        ({}, 3),
        ({"layer1.weight": np.zeros((2, 3)), "layer1.bias": np.zeros(2)}, 3),
    ],
)
def test_parameters_that_do_not_fit_are_named(parameters, columns):
    with pytest.raises(ValueError, match="expected"):
        predict_probability(parameters, np.zeros((2, columns)))


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({row[1] for row in rows}) == 2
    )
)
def test_auroc_equals_scikit_learn_with_ties(rows):
    scores = np.array([float(row[0]) for row in rows])
    outcomes = np.array([float(row[1]) for row in rows])
    assert auroc(scores, outcomes) == pytest.approx(roc_auc_score(outcomes, scores))


@pytest.mark.parametrize("seed", range(4))
def test_recalibration_is_the_posterior_mode(seed):
    scores, outcomes = patients(seed, count=60, slope=0.5, intercept=1.0)

    def loss(point):
        logits = np.exp(point[0]) * scores + point[1]
        fit = np.logaddexp(0, logits) - outcomes * logits
        return fit.sum() + point[0] ** 2 / (2 * SLOPE_SD**2) + point[1] ** 2 / (2 * INTERCEPT_SD**2)

    best = minimize(loss, [0.0, 0.0], tol=1e-12).x
    found = recalibrate(scores, outcomes)
    assert np.log(found.slope) == pytest.approx(best[0], abs=1e-4)
    assert found.intercept == pytest.approx(best[1], abs=1e-4)


def test_recalibration_finds_the_truth_in_many_patients():
    scores, outcomes = patients(5, count=40_000, slope=0.7, intercept=-0.8)
    found = recalibrate(scores, outcomes)
    assert found.slope == pytest.approx(0.7, abs=0.03)
    assert found.intercept == pytest.approx(-0.8, abs=0.05)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e8])
def test_recalibration_stays_put_where_one_class_is_absent(outcome, size):
    scores = np.linspace(-size, size, 30)
    found = recalibrate(scores, np.full(30, outcome))
    assert np.isfinite([found.slope, found.intercept]).all()
    assert 0 < found.slope < 10
    assert np.isfinite(found.apply(scores)).all()


def test_recalibration_without_patients_changes_nothing():
    found = recalibrate(np.zeros(0), np.zeros(0))
    assert (found.slope, found.intercept) == (1.0, 0.0)


def test_figures_of_quality_by_definition():
    scores, outcomes = patients(7)
    risks = logistic(scores)
    found = quality(risks, outcomes)
    assert found.accuracy == accuracy(risks, outcomes) == np.mean((risks > 0.5) == outcomes)
    assert found.brier == pytest.approx(brier_score_loss(outcomes, risks))
    assert found.auroc == pytest.approx(roc_auc_score(outcomes, scores))
    assert found.expected_over_observed == pytest.approx(risks.sum() / outcomes.sum())
    assert (found.patients, found.outcomes) == (300, outcomes.sum())


def test_calibration_index_tells_good_from_bad():
    scores, outcomes = patients(9, count=5000)
    good = integrated_calibration_index(logistic(scores), outcomes)
    bad = integrated_calibration_index(logistic(scores + 1.5), outcomes)
    assert good < 0.02
    assert bad > 0.15
    assert brier_score(logistic(scores), outcomes) < brier_score(logistic(scores + 1.5), outcomes)


def test_what_patients_do_not_carry_is_absent():
    one_class = quality(np.array([0.2, 0.9]), np.zeros(2))
    assert one_class.auroc is None
    assert one_class.expected_over_observed is None
    assert np.isnan(expected_over_observed(np.array([0.2]), np.zeros(1)))
    nobody = quality(np.zeros(0), np.zeros(0))
    assert nobody.patients == 0
    assert nobody.accuracy is None
    assert nobody.calibration_index is None


@pytest.mark.parametrize("values", [np.array([0.1, np.nan]), np.array([0.1])])
def test_wrong_vectors_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        quality(values, np.zeros(2))
