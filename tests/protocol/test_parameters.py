"""Names, shapes, first values and the one order of parameters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.parameters import flatten, initial_parameters, parameter_shapes, unflatten
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.risk import predict_score


def plan(**model):
    return StudyPlan.model_validate(
        {
            "study": "parameters",
            "consortium": "tests",
            "title": "A plan",
            "purpose": "To be shaped",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [
                {"name": "age", "kind": "age", "missing": "flag"},
                {
                    "name": "pain",
                    "kind": "category",
                    "codes": ["TEST//pain"],
                    "categories": ["a", "b", "c"],
                },
            ],
            "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": model,
            "training": {"rounds": 1, "learning_rate": 1.0},
            "privacy": {
                "mode": "local",
                "epsilon": 1,
                "delta": 1e-5,
                "clipping_norm": 1,
                "noise_multiplier": 10,
            },
            "sites": {"quorum": 1},
        }
    )


def test_logistic_regression_starts_at_zero():
    found = initial_parameters(plan())
    assert {name: array.shape for name, array in found.items()} == parameter_shapes(plan())
    assert parameter_shapes(plan()) == {"weights": (4,), "intercept": (1,)}
    assert not flatten(found).any()


def test_a_network_starts_from_the_public_seed():
    study = plan(family="network", hidden=[6, 3], seed=5)
    first, again = initial_parameters(study), initial_parameters(study)
    other = initial_parameters(plan(family="network", hidden=[6, 3], seed=6))
    assert {name: array.shape for name, array in first.items()} == parameter_shapes(study)
    assert all(array.dtype == np.float32 for array in first.values())
    assert (flatten(first) == flatten(again)).all()
    assert (flatten(first) != flatten(other)).any()
    assert predict_score(first, np.ones((2, 4))).shape == (2,)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 99))
def test_flattening_can_be_undone(hidden, seed):
    values = initial_parameters(plan(family="network", hidden=hidden, seed=seed))
    back = unflatten(flatten(values), values)
    assert list(back) == list(values)
    assert all((back[name] == values[name]).all() for name in values)
    assert all(back[name].dtype == values[name].dtype for name in values)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 5 values"):
        unflatten(np.zeros(4), initial_parameters(plan()))


@pytest.mark.parametrize(
    ("model", "said"),
    [({"family": "boosted_trees"}, "initial_sha256"), ({"family": "network"}, "hidden")],
)
def test_a_model_without_known_shapes_is_told(model, said):
    with pytest.raises(PlanError, match=said):
        parameter_shapes(plan(**model))
