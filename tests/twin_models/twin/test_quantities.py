"""Units by dimension, conversions that can be undone, and values that no person has."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_twins.twin.plausible import PLAUSIBLE, implausible
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal
from fedtwin_twins.twin.units import parse_unit

CREATININE = Quantity(113.12, "g/mol")


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (1, "mg", "ug", 1_000),
        (1, "ng/mL", "ug/L", 1),
        (1, "mg/L", "ng/mL", 1_000),
        (60, "mL/min", "L/h", 3.6),
        (1, "d", "h", 24),
        (1, "wk", "d", 7),
        (1, "a", "d", 365.25),
        (0.35, "1", "%", 35),
        (1.75, "m", "cm", 175),
        (1, "10*9/L", "10*3/uL", 1),
        (7.5, "mmHg", "kPa", 0.999915),
        (1, "U", "m[IU]", 1_000),
        (1, "mU/L", "m[IU]/L", 1),
        (1, "mmol/kg/min", "mol.kg-1.h-1", 0.06),
        (1, "[lb_av]", "kg", 0.45359237),
        (1, "mm[Hg].mL/ng", "mm[Hg].L/mg", 1_000),
        (1, "g.m-2.d-1", "mg/m2/d", 1_000),
    ],
)
def test_units_of_one_dimension(value: float, unit: str, wanted: str, expected: float) -> None:
    assert Quantity(value, unit).to(wanted) == pytest.approx(expected, rel=1e-12)


def test_masses_and_amounts_meet_through_the_molar_mass_alone() -> None:
    assert Quantity(88, "umol/L").to("mg/dL", molar_mass=CREATININE) == pytest.approx(0.995456)
    assert Quantity(1, "mg/dL").to("umol/L", molar_mass=CREATININE) == pytest.approx(
        88.40, abs=0.01
    )
    with pytest.raises(Refusal, match="molar mass"):
        Quantity(88, "umol/L").to("mg/dL")
    with pytest.raises(Refusal):
        Quantity(1, "umol/L").to("mg", molar_mass=CREATININE)


def test_clearance_by_standard_surface_is_no_plain_clearance() -> None:
    """UCUM reads braces as a remark and would call them equal."""
    with pytest.raises(Refusal):
        Quantity(60, "mL/min/{1.73_m2}").to("mL/min")
    assert Quantity(60, "mL/min/1.73m2").to("mL/min/{1.73_m2}") == 60


@pytest.mark.parametrize(
    "unit", ["", "mgg", "MG", "mg/", "/", "mg//L", "10*", "K/uL", "mg/{x", "m g", "C", "h-", "µ"]
)
def test_what_is_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(Refusal) as caught:
        Quantity(1.0, unit)
    assert caught.value.problems[0].field == "quantity.unit"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "5", None])
def test_what_is_no_finite_number_is_refused(value: float) -> None:
    with pytest.raises(Refusal, match="finite"):
        Quantity(value, "mg")


_PAIRS = [
    ("mg", "g"),
    ("mg/L", "ng/mL"),
    ("L/h", "mL/min"),
    ("h", "d"),
    ("cm", "[in_i]"),
    ("kPa", "mm[Hg]"),
    ("%", "1"),
    ("/min", "/h"),
]


@given(st.floats(-1e9, 1e9), st.sampled_from(_PAIRS))
def test_a_conversion_can_be_undone(value: float, pair: tuple[str, str]) -> None:
    there = Quantity(value, pair[0]).to(pair[1])
    assert Quantity(there, pair[1]).to(pair[0]) == pytest.approx(value, rel=1e-12, abs=1e-300)


@given(
    st.lists(st.sampled_from(["mg", "L", "h", "kg", "min", "m2", "mmol"]), min_size=1, max_size=4)
)
def test_a_unit_over_itself_is_a_number(parts: list[str]) -> None:
    above = ".".join(parts)
    unit = parse_unit(above + "".join(f"/{part}" for part in parts))
    assert unit is not None
    assert unit.dimension == ()
    assert unit.factor == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "value", "question"),
    [
        ("creatinine", Quantity(88, "mg/dL"), "is it umol/L?"),
        ("creatinine", Quantity(1.0, "umol/L"), "is it mg/dL?"),
        ("height", Quantity(1.75, "cm"), "is it m?"),
        ("haematocrit", Quantity(0.35, "%"), "is it a fraction (unit 1)?"),
        ("haematocrit", Quantity(35, "1"), "is it %?"),
        ("body_weight", Quantity(700, "kg"), "is it g or [lb_av]?"),
        ("body_weight", Quantity(0, "kg"), "check the value and its unit at the source"),
        ("age", Quantity(400, "a"), "is it mo or d?"),
    ],
)
def test_an_implausible_value_asks_for_the_unit(name: str, value: Quantity, question: str) -> None:
    problem = implausible(name, value)
    assert problem is not None
    assert problem.remedy == question
    assert (problem.value, problem.unit) == (f"{value.value:g}", value.unit)


@pytest.mark.parametrize("name", PLAUSIBLE)
def test_every_plausible_range_lets_its_ends_in(name: str) -> None:
    known = PLAUSIBLE[name]
    for bound in known.range:
        assert implausible(name, Quantity(bound, known.unit)) is None


def test_a_unit_of_another_kind_is_a_problem_too() -> None:
    problem = implausible("body_weight", Quantity(80, "cm"))
    assert problem is not None
    assert problem.field == "body_weight"


def test_ranges_are_told_in_the_unit_that_was_given() -> None:
    problem = implausible("creatinine", Quantity(1.0, "umol/L"))
    assert problem is not None
    low, high = (float(number) for number in problem.allowed.split(" to "))
    assert low == pytest.approx(4.42, abs=0.01)
    assert high == pytest.approx(2_652, abs=1)
