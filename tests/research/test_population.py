"""Population values of a release in their own units, and what they foretell."""

from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.parameters import unflatten
from fedtwin_protocol.population_design import prior_of
from fedtwin_protocol.study import StudyPlan
from fedtwin_research.audits.families import family_of, why_not
from fedtwin_research.bench import ReleasedModel
from fedtwin_research.tables import population_csv, prediction_table
from fedtwin_twins.population.moments import site_sum

from .released import a_plan, release

KNOWN = {
    "intercept": {"mean": 3.0, "sd": 1.0},
    "coefficients": {"age": {"mean": 0.0, "sd": 0.5}, "smokes": {"mean": 0.0, "sd": 0.5}},
    "site_variance_ratio": 0.2,
}
ENDPOINT = {
    "name": "dose",
    "kind": "value",
    "codes": ["LOINC//2345-7"],
    "horizon_days": 365,
    "unit": "mg/d",
    "transform": "square_root",
    "center": 4.0,
    "scale": 0.5,
}


def population_plan(**changes: Any) -> StudyPlan:
    privacy = a_plan("linear_regression").privacy.model_dump()
    loose = {"mode": "none", "clipping_norm": 1e4, "noise_multiplier": 0.0}
    return a_plan(
        "linear_mixed_model",
        population=KNOWN,
        endpoint=ENDPOINT,
        privacy=privacy | loose | changes,
    )


def learned(plan: StudyPlan, outcome_scale: float = 1.0) -> ReleasedModel:
    """root = 1 + .05 age + .4 smokes + shift, of three sites with 200 patients each."""
    generator = np.random.default_rng(5)
    prior, _ = prior_of(plan)
    total: Any = 0
    for shift in (-0.3, 0.0, 0.3):
        age, smokes = generator.uniform(40, 80, 200), generator.integers(0, 2, 200)
        root = 1 + 0.05 * age + 0.4 * smokes + shift + generator.normal(0, 0.3, 200)
        features = np.column_stack([(age - 60) / 10, smokes])
        outcomes = outcome_scale * (root - 4.0) / 0.5
        ratio = KNOWN["site_variance_ratio"]
        total = total + site_sum(features, outcomes, prior, plan.privacy.clipping_norm, ratio)
    model = release(plan)
    arrays = dict(model.release.parameters)
    sites = arrays.pop("sites")
    return release(plan, **unflatten(total, arrays), sites=sites + 3)


def test_values_come_in_the_features_own_units() -> None:
    values = {one.name: one for one in learned(population_plan()).population()}
    assert list(values) == [
        "age",
        "smokes",
        "intercept",
        "variance between patients",
        "variance between sites",
    ]
    for name, truth, unit in (
        ("age", 0.05, "sqrt(mg/d) per a"),
        ("smokes", 0.4, "sqrt(mg/d)"),
        ("intercept", 1.0, "sqrt(mg/d)"),
        ("variance between patients", 0.09, "(sqrt(mg/d))2"),
    ):
        one = values[name]
        assert abs(one.mean - truth) < 4 * one.sd, name
        assert one.unit == unit
        assert one.interval[0] < one.mean < one.interval[1]
    assert values["age"].sd < 0.005
    assert values["intercept"].known_before == pytest.approx(3.0)
    assert values["variance between sites"].known_before is None


def test_a_median_comes_with_the_interval_of_nine_in_ten() -> None:
    model = learned(population_plan())
    found = model.predict([{"age": 60.0, "smokes": 0}, {"age": None, "smokes": 1}])
    assert (found.kind, found.unit) == ("value", "mg/d")
    assert found[0] == pytest.approx(16, rel=0.15)
    low, high = found.central_90[0]
    # sd of a new patient of an unknown site: .3 and about .3 together.
    assert (np.sqrt(low), np.sqrt(high)) == (
        pytest.approx(4 - 1.645 * 0.42, abs=0.35),
        pytest.approx(4 + 1.645 * 0.42, abs=0.35),
    )
    assert np.isnan(found.central_90[1]).all()
    assert "nine in ten lie within" in repr(found)
    head, first, second = prediction_table(found).splitlines()
    assert head == "value [mg/d],low end of nine in ten [mg/d],high end of nine in ten [mg/d]"
    assert len(first.split(",")) == 3
    assert second == ",,"


def test_others_have_no_interval_and_no_population() -> None:
    model = release(a_plan("linear_regression"))
    assert model.predict([{"age": 60.0, "smokes": 0}]).central_90.shape == (1, 0)
    with pytest.raises(ReleaseError, match="has no population values"):
        model.population()


def test_a_root_of_a_plain_value_is_undone_too() -> None:
    model = release(a_plan("linear_regression", endpoint=ENDPOINT), intercept=np.array([2.0]))
    assert model.predict([{"age": 60.0, "smokes": 0}])[0] == pytest.approx(25.0)


def test_outcomes_beyond_their_bound_are_told() -> None:
    assert learned(population_plan()).cautions() == ()
    tight = learned(population_plan(clipping_norm=3.0), outcome_scale=2.0)
    (said,) = tight.cautions()
    assert "of the outcomes lay beyond their bound" in said
    assert said in tight.predict([{"age": 60.0, "smokes": 0}]).warnings


def test_the_table_as_csv() -> None:
    values = learned(population_plan()).population()
    head, first, *_ = population_csv(values).splitlines()
    assert head == "name,value,standard_error,low,high,known_before,unit"
    assert first.startswith("age,0.0")


def test_the_card_says_what_the_weights_are() -> None:
    model = learned(population_plan())
    assert "noised sum that the population values follow from" in model.card.recalibration
    assert "as its square root" in model.card.endpoint


def test_audits_say_why_they_learn_no_shadows_of_it() -> None:
    plan = population_plan(mode="local", noise_multiplier=20.0)
    assert family_of(plan) is None
    assert "one sum that is released as it is" in why_not(plan)
