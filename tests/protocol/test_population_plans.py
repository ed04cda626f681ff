"""Plans about a population: what belongs together, and what is known in which unit."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedtwin
from fedtwin_protocol.charges import parameter_count, planned_charges
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.parameters import initial_parameters, parameter_shapes
from fedtwin_protocol.population_design import design_of, prior_of, sum_noise_sd
from fedtwin_protocol.study import StudyPlan, plan_from_bytes, plan_from_value, plan_from_yaml
from fedtwin_protocol.transforms import backward, forward

DEMO = Path(fedtwin.__file__).parent / "demo" / "plans"


def plan(**changes: Any) -> StudyPlan:
    value: dict[str, Any] = {
        "study": "clearance",
        "consortium": "tests",
        "question": "population",
        "title": "A clearance",
        "purpose": "To know it",
        "cohort": {"index": {"codes": ["LOCAL//visit"]}},
        "features": [
            {"name": "age", "kind": "age", "unit": "a", "center": 60, "scale": 10},
            {
                "name": "kind",
                "kind": "category",
                "codes": ["LOCAL//kind"],
                "categories": ["a", "b"],
                "scale": 0.5,
                "missing": "flag",
            },
        ],
        "endpoint": {
            "name": "clearance",
            "kind": "value",
            "codes": ["LOCAL//clearance"],
            "unit": "L/h",
            "horizon_days": 30,
            "transform": "logarithm",
            "center": 1.0,
            "scale": 0.4,
        },
        "model": {"family": "linear_mixed_model"},
        "population": {
            "intercept": {"mean": 2.0, "sd": 0.2},
            "coefficients": {
                "age": {"mean": -0.01, "sd": 0.004},
                "kind missing": {"mean": 0.1, "sd": 0.3},
            },
            "spread": 2.0,
        },
        "training": {"mechanism": "moments", "rounds": 1, "learning_rate": 1},
        "privacy": {
            "mode": "secure",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 3.0,
            "noise_multiplier": 9.0,
        },
        "sites": {"quorum": 3, "invited": ["a", "b", "c", "d"]},
        "evaluation": {"unjudged": True},
    }
    for name, change in changes.items():
        part, _, key = name.partition("__")
        value[part] = {**value.get(part, {}), key: change} if key else change
    return plan_from_value(value, "plan.yaml")


def test_what_is_known_is_put_on_the_models_scale() -> None:
    """log CL = 2 - .01 age: at 60 years 1.4, which is (1.4 - 1) / .4 on the outcome's scale."""
    means, sds = prior_of(plan())
    assert means == pytest.approx([-0.01 * 10 / 0.4, 0, 0.1 / 0.4, 1.0])
    assert sds == pytest.approx([0.004 * 10 / 0.4, 2.0, 0.3 / 0.4, 0.2 / 0.4])


def test_nothing_known_is_the_centre_with_the_plans_spread() -> None:
    means, sds = prior_of(plan(population={"spread": 3}))
    assert (means.tolist(), sds.tolist()) == ([0.0] * 4, [3.0] * 4)


def test_the_arrays_are_one_sum_and_a_count_of_sites() -> None:
    """(3 columns + 2) (3 + 3) / 2 = 15 products, twice, and a count; `sites` is not summed."""
    asked = plan()
    assert parameter_shapes(asked) == {
        "moments": (15,),
        "patients": (1,),
        "site_moments": (15,),
        "sites": (1,),
    }
    assert parameter_count(asked) == 31
    assert all(not array.any() for array in initial_parameters(asked).values())
    alike = plan(population__site_variance_ratio=0)
    assert parameter_count(alike) == 16
    (train,) = [one for one in planned_charges(asked) if one.kind == "train"]
    assert (train.charges, train.steps, train.numbers) == (1, 1, 31)


def test_the_sums_noise_is_that_of_the_sites_in_it() -> None:
    """Of four sites three must answer and one may collude, so that two honest ones hold it."""
    assert sum_noise_sd(plan(), 4) == pytest.approx(27 * np.sqrt(4 / 2))
    assert sum_noise_sd(plan(privacy__mode="local"), 3) == pytest.approx(27 * np.sqrt(3))
    assert sum_noise_sd(plan(privacy__mode="none"), 3) == 0
    fields = design_of(plan(), {"sites": np.array([3.0])})
    assert (fields["sites"], fields["noise_sd"]) == (3, pytest.approx(27 * np.sqrt(3 / 2)))
    assert fields["columns"] == ("age", "kind=b", "kind missing")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": "risk"}, "missing: question 'population' .it is 'risk'."),
        ({"population": None}, "missing: the part 'population'"),
        ({"model__family": "linear_regression"}, "missing: model family 'linear_mixed_model'"),
        ({"training__mechanism": "gradient_sum"}, "missing: mechanism 'moments'"),
        ({"training__rounds": 2}, "set rounds and learning_rate to 1, momentum to 0"),
        ({"training__learning_rate": 0.5}, "set rounds and learning_rate to 1, momentum to 0"),
        ({"privacy__sampling_rate": 0.5}, "'moments' uses everybody: set sampling_rate to 1"),
        ({"model__l2": 0.1}, "leave model.l2 and model.initial_intercept out"),
        (
            {"population__coefficients": {"weight": {"mean": 1, "sd": 1}}},
            "names weight; the columns are age, kind=b, kind missing",
        ),
        ({"population__coefficients": {"age": {"mean": 1, "sd": 0}}}, "age.sd: .* greater than 0"),
        ({"population__site_variance_ratio": -1}, "site_variance_ratio: .* greater than or equal"),
        ({"endpoint__transform": "root"}, "endpoint.transform: .*'square_root' or 'logarithm'"),
        ({"aggregation": {"rule": "mean"}}, "'moments' and rule 'sum' belong together"),
        ({"evaluation": {"unjudged": False}}, "set evaluation.unjudged to true"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan(**changes)


def test_a_transform_is_of_values_alone() -> None:
    with pytest.raises(PlanError, match="'transform' belongs to endpoints of kind 'value'"):
        plan(
            endpoint__kind="count",
            endpoint__center=0,
            endpoint__scale=1,
            model__family="poisson_regression",
        )


def test_a_plan_without_a_population_has_the_bytes_that_it_had() -> None:
    """Signatures of plans from before there were such studies still hold."""
    for file in sorted(DEMO.glob("*.yaml")):
        body = plan_from_yaml(file).to_bytes()
        assert b'"population":' not in body
        assert b'"transform"' not in body
        assert plan_from_bytes(body).hash == hashlib.sha256(body).hexdigest()


def test_a_population_plan_comes_back_from_its_bytes() -> None:
    assert plan_from_bytes(plan().to_bytes()) == plan()


def test_bounds_are_told_in_the_endpoints_unit() -> None:
    """exp(1 - 5 x .4) to exp(1 + 5 x .4)."""
    assert plan().endpoint.bounds_in_words == "0.367879 to 20.0855 L/h"
    root = plan(endpoint__transform="square_root", endpoint__center=6, endpoint__scale=1.5)
    assert root.endpoint.bounds_in_words == "0 to 182.25 L/h"


@pytest.mark.parametrize("transform", ["none", "square_root", "logarithm"])
def test_a_transform_comes_back(transform: Any) -> None:
    values = np.array([0.25, 1.0, 9.0])
    assert backward(transform, forward(transform, values)) == pytest.approx(values)
    impossible = forward(transform, np.array([-1.0]))
    assert np.isnan(impossible).all() == (transform != "none")


def test_what_lies_below_a_root_is_nothing() -> None:
    assert backward("square_root", np.array([-0.5, 0.5])).tolist() == [0.0, 0.25]
    assert np.isnan(forward("logarithm", np.array([0.0]))).all()
