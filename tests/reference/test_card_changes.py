"""Absorption that saturates, metabolites of the first pass, and parameters that approach others."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from fedtwin_twins.twin.refusals import Refusal

from .published import hours
from .small_cards import relation
from .test_card_forms import ONE, PHENYTOIN, content, given, levels, twin_of, with_route

Rates = Callable[[float, Any], Sequence[float]]


def solved(rates: Rates, doses: dict[float, Sequence[float]], asked: Sequence[float]) -> Any:
    """States at ascending hours, (hours, states); a dose at an hour comes after it."""
    state = np.zeros(len(next(iter(doses.values()))))
    found, here = [], 0.0
    for stop in sorted({*doses, *asked}):
        if stop > here:
            way = solve_ivp(rates, (here, stop), state, rtol=1e-10, atol=1e-12)
            state, here = way.y[:, -1], stop
        if stop in asked:
            found.append(state)
        state = state + np.array(doses.get(stop, np.zeros(len(state))))
    return np.array(found)


def test_of_a_large_dose_less_gets_in() -> None:
    """900 mg is the half dose: of 900 mg 450 get in, of 300 mg 225, and of 300 mg injected all."""
    card = content("one_compartment", {**ONE, "rate": ("/h", 1.0, [])})
    plain = with_route(card, "oral", input="first_order", rate="rate")
    card = with_route(card, "oral", input="first_order", rate="rate", half_dose=900.0)
    injected = given(300, "intravenous", 20.0)
    found = levels(card, [given(900), given(300, at=8.0), injected], 2.0, 10.0, 24.0)
    wanted = levels(plain, [given(450), given(225, at=8.0), injected], 2.0, 10.0, 24.0)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)
    steady = given(900, interval=hours(12), steady_state=True)
    half = given(450, interval=hours(12), steady_state=True)
    assert levels(card, [steady], 5.0).tolist() == levels(plain, [half], 5.0).tolist()


def test_a_metabolite_of_the_first_pass() -> None:
    """Of 100 mg that are swallowed 60 get in as the drug and 30 as the metabolite."""
    numbers = {"rate": 0.8, "oral_fraction": 0.6, "early_fraction": 0.3, "metabolite_fraction": 0.5}
    flows = {"metabolite_clearance": ("L/h", 6.0, []), "metabolite_volume": ("L", 30.0, [])}
    units = {"rate": "/h"}
    more = {name: (units.get(name, "1"), value, []) for name, value in numbers.items()}
    card = content("one_compartment", {**ONE, **more, **flows}) | {"effect": "metabolite"}
    second = {**card["observables"][0], "name": "metabolite", "output": "metabolite_concentration"}
    card["observables"] = [*card["observables"], second]
    way = {"input": "first_order", "rate": "rate", "bioavailability": "oral_fraction"}
    card = with_route(card, "oral", **way, first_pass="early_fraction")

    def rates(_: float, y: Any) -> Sequence[float]:
        depot, drug, waiting, made = y
        out = 4.0 / 70.0 * drug
        return (
            -0.8 * depot,
            0.8 * depot - out,
            -0.8 * waiting,
            0.8 * waiting + 0.5 * out - 6.0 / 30.0 * made,
        )

    asked = [0.5, 2.0, 6.0, 12.0, 13.0, 24.0]
    exact = solved(rates, {0.0: (60, 0, 30, 0), 12.0: (60, 0, 30, 0)}, asked)[:, 3] / 30.0
    found = levels(card, [given(100, interval=hours(12), additional=1)], *asked, kind=1)
    assert found.tolist() == pytest.approx(exact.tolist(), rel=1e-6)
    card["effect"] = "none"
    card["observables"] = card["observables"][:1]
    with pytest.raises(Refusal, match=r"first_pass .* the effect is not metabolite"):
        twin_of(card)


INDUCED = relation("approach", "hours_since_first_dose", final=2.0, half_time=60.0)


def share(hour: float) -> float:
    return 2.0 - 2.0 ** (-hour / 60.0)


def test_a_clearance_that_doubles_by_induction() -> None:
    card = content("one_compartment", {**ONE, "clearance": ("L/h", 4.0, [INDUCED])})
    asked = [12.0, 36.0, 60.0, 120.0, 240.0]
    doses = {24.0 * day: (500.0,) for day in range(10)}
    exact = solved(lambda t, y: (-4.0 * share(t) / 70.0 * y[0],), doses, asked)[:, 0] / 70.0
    every_day = given(500, "intravenous", interval=hours(24), additional=9)
    found = levels(card, [every_day], *asked)
    assert found.tolist() == pytest.approx(exact.tolist(), rel=1e-3)
    steady = given(500, "intravenous", interval=hours(24), steady_state=True)
    trough = 500.0 / 70.0 / (math.exp(8.0 / 70.0 * 24.0) - 1.0)
    assert levels(card, [steady], 0.0).tolist() == pytest.approx([trough], rel=1e-9)


def test_a_largest_elimination_that_falls() -> None:
    falls = relation("approach", "hours_since_first_dose", final=0.6, half_time=48.0)
    card = content(
        "one_compartment_saturable",
        {**PHENYTOIN, "largest_elimination": ("mg/d", 700.0, [falls])},
    )

    def rates(hour: float, y: Any) -> Sequence[float]:
        largest = 700.0 / 24.0 * (1.0 - 0.4 * (1.0 - 2.0 ** (-hour / 48.0)))
        return (-largest * y[0] / 50.0 / (5.0 + y[0] / 50.0),)

    asked = [12.0, 60.0, 144.0, 240.0]
    exact = solved(rates, {24.0 * day: (300.0,) for day in range(10)}, asked)[:, 0] / 50.0
    every_day = given(300, "intravenous", interval=hours(24), additional=9)
    assert levels(card, [every_day], *asked).tolist() == pytest.approx(exact.tolist(), rel=2e-3)


def test_an_approach_needs_its_numbers() -> None:
    wrong = relation("approach", "hours_since_first_dose", final=2.0, half_time=0.0)
    with pytest.raises(Refusal, match=r"half_time is 0; expected above 0"):
        twin_of(content("one_compartment", {**ONE, "clearance": ("L/h", 4.0, [wrong])}))
