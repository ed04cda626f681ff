"""Figures from a noised hold-out table: right without noise, unbiased with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedtwin_protocol.errors import WireError
from fedtwin_protocol.hold_out import bin_middles, hold_out_metrics, make_table, metric_noise


def sample(seed, count):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.5).astype(float)
    return 1 / (1 + np.exp(-(1.6 * (labels - 0.5) + 1.2 * rng.normal(size=count)))), labels


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.booleans()), max_size=50))
def test_every_patient_is_in_one_cell(rows):
    risks = np.array([row[0] for row in rows], float)
    labels = np.array([row[1] for row in rows], float)
    table = make_table(risks, labels, 10)
    assert table.shape == (10, 2)
    assert table.sum(axis=0) == pytest.approx([len(rows) - labels.sum(), labels.sum()])
    assert (table >= 0).all()


def test_edges_belong_to_the_bin_above():
    table = make_table(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]), 2)
    assert table.tolist() == [[1, 0], [0, 2]]


def test_without_noise_the_figures_are_those_of_the_binned_risks():
    risks, labels = sample(1, 500)
    table = make_table(risks, labels, 20)
    binned = bin_middles(20)[np.minimum((risks * 20).astype(int), 19)]
    found = hold_out_metrics(table)
    assert found["patients"] == 500
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, binned))
    assert found["accuracy"] == pytest.approx(np.mean((binned >= 0.5) == labels))
    assert found["brier"] == pytest.approx(np.mean((binned - labels) ** 2))
    assert found["expected_over_observed"] == pytest.approx(binned.sum() / labels.sum())


def test_noise_neither_flatters_nor_spoils_and_its_size_is_foretold():
    table = make_table(*sample(2, 1000), 20)
    exact = hold_out_metrics(table)
    rng = np.random.default_rng(3)
    draws = [hold_out_metrics(table + rng.normal(0, 5, table.shape)) for _ in range(1500)]
    expected = metric_noise(table, 5.0)
    for name in ("auroc", "accuracy"):
        values = np.array([draw[name] for draw in draws])
        assert values.mean() == pytest.approx(exact[name], abs=0.005)
        assert values.std() == pytest.approx(expected[name], rel=0.12)


def test_nothing_is_claimed_of_too_few_patients():
    found = hold_out_metrics(np.full((10, 2), -0.5))
    assert np.isnan([found["auroc"], found["accuracy"], found["brier"]]).all()


@given(st.lists(st.floats(-50, 50), min_size=20, max_size=20))
def test_figures_stay_in_their_range(cells):
    found = hold_out_metrics(np.array(cells).reshape(10, 2))
    for name in ("auroc", "accuracy", "brier"):
        assert np.isnan(found[name]) or 0 <= found[name] <= 1


@pytest.mark.parametrize(
    "table", [np.zeros(20), np.zeros((1, 2)), np.zeros((4, 3)), [[1, 2], [3, np.inf]]]
)
def test_a_table_of_another_form_is_refused(table):
    with pytest.raises(WireError):
        hold_out_metrics(np.asarray(table, float))
