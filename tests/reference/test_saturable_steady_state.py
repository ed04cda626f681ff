"""Saturable elimination: steady states beside doses that are written out, and fast infusions."""

import itertools
from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fedtwin_twins.twin.schedule import Dose

from .published import hours, patients, row
from .test_card_forms import PHENYTOIN, content, given, twin_of, with_route

TISSUE = {
    "intercompartmental_clearance": ("L/h", 3.0, []),
    "peripheral_volume": ("L", 30.0, []),
}
DAYS = 96
"""More than thirty time constants of these patients."""


def card(two: bool) -> dict[str, Any]:
    """Three ways in: an injection, a chain of two stages with a lag, a release over 5 h."""
    more = {
        "rate": ("/h", 0.3, []),
        "lag_time": ("h", 1.5, []),
        "release": ("h", 5.0, []),
    }
    form = "two_compartments_saturable" if two else "one_compartment_saturable"
    found = content(form, {**PHENYTOIN, **(TISSUE if two else {}), **more})
    found = with_route(found, "oral", input="transit", compartments=2, rate="rate", lag="lag_time")
    found = with_route(found, "depot", input="zero_order", duration="release")
    names = ("largest_elimination", "half_saturation_concentration", "central_volume", "rate")
    found["between_patients"]["blocks"] = [
        {"parameters": [one], "diagonal": [0.1]} for one in names
    ]
    return found


def back(dose: Dose, every: float) -> list[Dose]:
    """A dose of a steady state, written out over months up to itself."""
    first = dose.time.to("h") - DAYS * 24.0
    count = round(DAYS * 24.0 / every)
    return [
        given(
            dose.amount.to("mg"),
            dose.route,
            first,
            duration=dose.duration,
            interval=hours(every),
            additional=count,
        )
    ]


def both(two: bool, trains: list[tuple[Dose, float]], singles: list[Dose]) -> Any:
    """Predictions as functions of the effects: by steady state, and written out."""
    twin = twin_of(card(two))
    steady = [
        given(
            one.amount.to("mg"),
            one.route,
            one.time.to("h"),
            duration=one.duration,
            interval=hours(every),
            steady_state=True,
        )
        for one, every in trains
    ]
    written = [more for one, every in trains for more in back(one, every)]
    asked = row(1.0, 7.0, 12.0, 23.9, 24.0, 30.0, 36.0, 50.0, 75.0)

    def predicted(doses: list[Dose]) -> Any:
        batch = patients(twin, ([*doses, *singles], {})).batch
        return lambda effects: twin.predict(batch, effects, asked.expand(len(effects), -1))[0]

    return predicted(steady), predicted(written)


CASES = [
    ([(given(300, at=24.0), 24.0)], []),
    ([(given(150, at=24.0), 12.0), (given(100, "depot", 31.0), 24.0)], []),
    ([(given(250, "intravenous", 24.0, duration=hours(20)), 24.0)], [given(200, at=40.0)]),
    ([(given(200, "depot", 24.0), 24.0)], [given(100, "intravenous", 3.0)]),
]


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_as_months_of_doses(two: bool, case: tuple[Any, Any]) -> None:
    """Waiting doses, infusions that still run, two drugs' rhythms at once, and single doses."""
    steady, written = both(two, *case)
    effects = row(0.2, 0.1, 0.1, 0.2)
    with torch.no_grad():
        assert steady(effects).tolist() == pytest.approx(written(effects).tolist(), rel=2e-5)


def test_derivatives_as_of_months_of_doses() -> None:
    """First and second ones: a fit rests on both."""
    found = []
    for predict in both(False, [(given(300, at=24.0), 24.0)], []):

        def level(effects: Tensor, predict: Any = predict) -> Tensor:
            last: Tensor = predict(effects[None])[-1]
            return last

        at = row(0.2, 0.1, 0.1, 0.2)[0].requires_grad_(True)
        (slope,) = torch.autograd.grad(level(at), at, create_graph=True)
        (bend,) = torch.autograd.grad(slope[0], at)
        found.append(torch.cat([slope.detach(), bend]))
    assert found[0].tolist() == pytest.approx(found[1].tolist(), rel=2e-4, abs=1e-3)


def test_from_a_steady_state_to_months_of_doses_without_a_jump() -> None:
    """Less and less elimination, to none that is enough: levels rise evenly all the way."""
    steady, _ = both(False, [(given(300, at=24.0), 24.0)], [])
    with torch.no_grad():
        levels = [
            float(steady(row(-place / 200.0, 0.0, 0.0, 0.0))[4]) for place in range(0, 140, 10)
        ]
    rises = [after / before for before, after in itertools.pairwise(levels)]
    assert all(1.0 < one < 1.6 for one in rises)
    assert max(abs(b - a) for a, b in itertools.pairwise(rises)) < 0.2


def test_an_infusion_that_passes_the_half_saturating_level() -> None:
    """1 g within an hour, from nothing to four times Km: as scipy solves it."""
    twin = twin_of(content("one_compartment_saturable", PHENYTOIN))
    batch = patients(twin, ([given(1000, "intravenous", duration=hours(1))], {})).batch
    found = twin.predict(batch, torch.zeros((1, 1), dtype=torch.float64), row(0.5, 1.0, 30.0))[0]

    def change(hour: float, level: Any) -> Any:
        coming = 1000.0 / 50.0 if hour < 1.0 else 0.0
        return coming - 500.0 / 24.0 / 50.0 * level / (5.0 + level)

    exact: list[float] = []
    for begin, end in ((0.0, 0.5), (0.5, 1.0 - 1e-12), (1.0, 30.0)):
        start = exact[-1:] or [0.0]
        solved = solve_ivp(change, (begin, end), start, rtol=1e-10, atol=1e-12)
        exact.append(float(solved.y[0, -1]))
    assert found.tolist() == pytest.approx(exact, rel=1e-5)


def test_slopes_all_the_way_to_no_steady_state() -> None:
    """First and second ones are numbers, and those of differences."""
    twin = twin_of(content("one_compartment_saturable", PHENYTOIN, "largest_elimination"))
    steady = given(300, "intravenous", interval=hours(24), steady_state=True)
    batch = patients(twin, ([steady], {})).batch
    for place in (-0.37, -0.6):  # where one passes into the other; and where there is none
        at = row(place).requires_grad_(True)
        level = twin.predict(batch, at, row(0.0))
        (slope,) = torch.autograd.grad(level.sum(), at, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), at)
        with torch.no_grad():
            near = [float(twin.predict(batch, row(place + way), row(0.0))) for way in (-1e-4, 1e-4)]
        assert float(slope.detach()) == pytest.approx((near[1] - near[0]) / 2e-4, rel=1e-5)
        middle = float(level.detach())
        assert float(bend) == pytest.approx((near[0] + near[1] - 2 * middle) / 1e-8, rel=1e-2)
