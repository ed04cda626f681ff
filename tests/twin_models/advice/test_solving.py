"""Doses, intervals and times against published ones (posologyr's, cases D01, D02 and D04)."""

from dataclasses import replace

import pytest

from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.solving import dose_reaching, interval_reaching, time_reaching
from fedtwin_twins.advice.targets import Target
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Unreachable

from ..pharmacology.cases import case, needs_cases
from .patients import goti_known, mg

INFUSION = Regimen(amount=mg(1000), interval_h=24.0, route="intravenous", duration_h=2.0)
AREA = Target(kind="area", observable="concentration", low=Quantity(400, "mg/L.h"))
BETWEEN = (mg(1.0), mg(20_000.0))


@needs_cases
@pytest.mark.parametrize(
    ("name", "window"), [("D01_dose_auc_single", (0, 24)), ("D02_dose_auc_day10", (216, 240))]
)
@pytest.mark.case("D01", "D02")
def test_dose_for_an_area(name: str, window: tuple[float, float]) -> None:
    published = case(name)
    known = goti_known(published["inputs"]["eta"])
    found = dose_reaching(known, INFUSION, AREA, 400.0, (0.0, *window), BETWEEN)
    expected = published["expected"]["dose_mg"]
    assert found.to("mg") == pytest.approx(expected, rel=published["tolerance"]["rel"])


@needs_cases
@pytest.mark.case("D04")
def test_time_and_interval_for_a_trough() -> None:
    published = case("D04_interval_and_time")
    expected, close = published["expected"], published["tolerance"]["abs_h"]
    known = goti_known(published["inputs"]["eta"])
    given = replace(INFUSION, amount=mg(1500))
    once = known.under(given, 0.0, 1.0)
    assert up_to_tenth(time_reaching(known, once, "concentration", 10, (2, 200))) == pytest.approx(
        expected["time_single_h"], abs=close
    )
    many = known.under(given, 0.0, 241.0)
    last = time_reaching(known, many, "concentration", 10, (242, 400)) - 240.0
    assert up_to_tenth(last) == pytest.approx(expected["time_multi_h"], abs=close)
    interval = interval_reaching(
        known, replace(INFUSION, amount=mg(2000)), "concentration", 10, 11, before_h=0.1
    )
    assert interval == pytest.approx(expected["interval_h"], abs=close)


def up_to_tenth(hours: float) -> float:
    """The first point of the case's grid of 0.1 h at which the level has been passed."""
    return float(-(-hours * 10 // 1) / 10)


def test_an_area_out_of_reach_is_refused() -> None:
    known = goti_known([0.0, 0.0, 0.0])
    with pytest.raises(Unreachable, match="out of reach"):
        dose_reaching(known, INFUSION, AREA, 400.0, (0.0, 0.0, 24.0), (mg(1), mg(50)))


def test_twice_the_area_takes_twice_the_dose() -> None:
    known = goti_known([0.1, -0.2, 0.3])
    one, two = (
        dose_reaching(known, INFUSION, AREA, area, (0.0, 0.0, 24.0), BETWEEN).to("mg")
        for area in (300.0, 600.0)
    )
    assert two == pytest.approx(2 * one, rel=1e-8)
