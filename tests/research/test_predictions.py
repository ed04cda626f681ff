"""What a release of each built-in family foretells, in which unit, and what it says of itself."""

import numpy as np
import pytest

from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study import FAMILY_ENDPOINTS

from .released import SEQUENCE, a_plan, release

PATIENTS = [{"age": 60.0, "smokes": 0}, {"age": 70.0, "smokes": 1}]
WEIGHTS = np.array([0.5, 0.25])  # ten years, smoking


def test_a_value_comes_in_the_endpoints_own_unit() -> None:
    model = release(a_plan("linear_regression"), weights=WEIGHTS, intercept=np.array([0.1]))
    found = model.predict(PATIENTS)
    assert (found.kind, found.unit) == ("value", "mmol/L")
    assert list(found) == pytest.approx([5 + 2 * 0.1, 5 + 2 * 0.85])
    assert "predicts [5.2, 6.7] (a value in mmol/L)" in repr(found)
    assert "Gives a value in mmol/L within 365 days" in model.explain()
    with pytest.raises(ReleaseError, match="a value in mmol/L, no probability: read it from"):
        _ = found.probability


def test_a_count_is_the_expected_one() -> None:
    model = release(a_plan("poisson_regression"), weights=WEIGHTS, intercept=np.array([0.1]))
    found = model.predict(PATIENTS)
    assert (found.kind, found.unit) == ("count", "1")
    assert list(found) == pytest.approx(np.exp([0.1, 0.85]))
    assert "(an expected count)" in repr(found)
    assert "Gives an expected count within 365 days" in model.explain()
    with pytest.raises(ReleaseError, match="an expected count, no probability"):
        _ = found.probability


def test_a_hazard_tells_the_risk_by_the_end_of_each_interval() -> None:
    baseline = np.array([-3.0, -2.0, -1.0])
    model = release(a_plan("discrete_hazard"), weights=WEIGHTS, baseline_intercept=baseline)
    found = model.predict(PATIENTS)
    hazards = 1 / (1 + np.exp(-(np.array([[0.0], [0.75]]) + baseline)))
    expected = 1 - np.cumprod(1 - hazards, axis=1)
    assert found.days == (90, 180, 365)
    assert found.risk_over_time == pytest.approx(expected)
    assert found.probability == pytest.approx(expected[:, -1])
    assert "risk by day 90, 180, 365: [[0.047, " in repr(found)
    assert any("by day 90, 180, 365" in line for line in model.explain())


def test_who_is_excluded_has_no_number_of_any_kind() -> None:
    unknown = [PATIENTS[0], {"age": None, "smokes": 0}]
    for family in ("linear_regression", "poisson_regression", "discrete_hazard"):
        found = release(a_plan(family)).predict(unknown)
        assert np.isnan(np.asarray(found)).tolist() == [False, True]
        assert np.isnan(found.risk_over_time[1:]).all()


def test_what_lies_beyond_what_was_taught_is_told() -> None:
    far = release(a_plan("linear_regression"), weights=np.array([7.0, 0.0]))
    assert "1 of 2 patients lies beyond what the model was taught, -5 to 15 mmol/L" in "".join(
        far.predict(PATIENTS).warnings
    )
    many = release(a_plan("poisson_regression"), weights=np.array([900.0, 0.0]))
    found = many.predict(PATIENTS)
    assert found[1] == np.inf
    assert any("was taught, 0 to 50" in line for line in found.warnings)
    assert not any("taught" in line for line in many.predict(PATIENTS[:1]).warnings)


@pytest.mark.parametrize("family", FAMILY_ENDPOINTS)
def test_every_built_in_family_predicts_and_says_what(family: str) -> None:
    reads = family in {"transformer", "recurrent"}
    model = release(a_plan(family, **({"sequence": SEQUENCE} if reads else {})))
    records = [[("SNOMED//73211009", None, None, 3.0)], []] if reads else None
    found = model.predict(PATIENTS, records=records)
    assert np.isfinite(np.asarray(found)).all()
    assert any(line.startswith("Gives a") for line in model.explain())
    assert model.card.recalibration in found.warnings


def test_the_card_says_what_is_recalibrated() -> None:
    for family, what in (
        ("linear_regression", "predicted values"),
        ("poisson_regression", "predicted log counts"),
        ("discrete_hazard", "predicted log-odds"),
    ):
        assert what in release(a_plan(family)).card.recalibration
