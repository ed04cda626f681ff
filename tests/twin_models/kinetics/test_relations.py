"""Relations that hold for every linear model, whatever its numbers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.twin.batch import Doses

from .oracle import DOUBLE, Body, Dose, Way, make_doses, make_kinetics, row

TIMES = row(np.linspace(0.0, 60.0, 41).tolist())
WAYS = [Way(0), Way(1), Way(3)]
numbers = st.floats(0.5, 2.0)


@st.composite
def bodies(draw: Callable) -> Body:
    """One to three compartments, into which a bolus, a depot and a transit chain lead."""
    count = draw(st.integers(0, 2))
    exchanges = [(5 * draw(numbers), 60 * draw(numbers)) for _ in range(count)]
    ways = [
        Way(way.stages, draw(numbers) if way.stages else 0.0, draw(st.floats(0.3, 1.0)))
        for way in WAYS
    ]
    return Body(10 * draw(numbers), 50 * draw(numbers), exchanges, ways)


@st.composite
def schedules(draw: Callable) -> list[Dose]:
    return sorted(
        (
            Dose(
                draw(st.floats(0.0, 40.0)),
                draw(st.floats(1.0, 100.0)),
                draw(st.sampled_from([0.0, 0.5, 6.0])),
                draw(st.integers(0, 2)),
            )
            for _ in range(draw(st.integers(1, 5)))
        ),
        key=lambda dose: dose.time,
    )


def bound(body: Body) -> LinearKinetics:
    return make_kinetics([[(-np.inf, body)]])


def levels(body: Body, doses: list[Dose], times: torch.Tensor = TIMES) -> torch.Tensor:
    return bound(body).concentrations(make_doses([doses]), times)


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-9) -> None:
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= relative * scale


def sorted_doses(doses: list[Dose]) -> list[Dose]:
    return sorted(doses, key=lambda dose: dose.time)


@settings(max_examples=8)
@given(bodies(), schedules(), schedules())
@pytest.mark.case("X01")
def test_superposition_and_proportion(body: Body, one: list[Dose], other: list[Dose]) -> None:
    both = levels(body, sorted_doses(one + other))
    assert_close(levels(body, one) + levels(body, other), both)
    twice = [Dose(dose.time, 2 * dose.amount, dose.duration, dose.route) for dose in one]
    assert_close(levels(body, twice), 2 * levels(body, one), 1e-13)


@settings(max_examples=8)
@given(bodies(), schedules(), st.floats(-50.0, 500.0))
@pytest.mark.case("X01")
def test_a_shift_of_time_shifts_the_answer(body: Body, doses: list[Dose], shift: float) -> None:
    later = [Dose(one.time + shift, one.amount, one.duration, one.route) for one in doses]
    inner = TIMES + 0.0137  # off the doses' own times, where rounding decides what counts
    assert_close(levels(body, later, inner + shift), levels(body, doses, inner), 1e-6)


@settings(max_examples=8)
@given(bodies(), schedules(), st.floats(0.1, 3.0))
@pytest.mark.case("X01")
def test_a_lag_shifts_the_start_and_keeps_the_duration(
    body: Body, doses: list[Dose], lag: float
) -> None:
    late = Body(
        body.clearance,
        body.volume,
        body.exchanges,
        [Way(way.stages, way.rate, way.fraction, lag) for way in body.ways],
    )
    later = [Dose(one.time + lag, one.amount, one.duration, one.route) for one in doses]
    inner = TIMES + 0.0137
    assert_close(levels(late, doses, inner), levels(body, later, inner), 1e-12)


@settings(max_examples=8)
@given(bodies(), st.floats(6.0, 24.0), st.integers(0, 2), st.sampled_from([0.0, 1.0, 5.0]))
@pytest.mark.case("X01")
def test_a_steady_state_is_many_doses(
    body: Body, interval: float, route: int, duration: float
) -> None:
    steady = make_doses([[Dose(0.0, 100.0, duration, route)]], [interval])
    slowest = min(float(rate.min()) for rate in bound(body).disposition.modes().rates)
    count = max(60, int(np.ceil(40 / (slowest * interval))))
    train = [Dose(-interval * k, 100.0, duration, route) for k in range(count, -1, -1)]
    found = bound(body).concentrations(steady, TIMES)
    assert_close(found, levels(body, train), 1e-8)
    trough = bound(body).concentrations(steady, row([-interval + 1e-9, 0.0]))
    assert float(trough[0, 1]) == pytest.approx(float(levels(body, train, row([0.0]))), rel=1e-8)
    area = bound(body).areas(steady, row([interval]))
    share = body.ways[route].fraction
    # Without the doses that the area does not hold, it is that of one interval.
    assert float(area) == pytest.approx(100.0 * share / body.clearance, rel=1e-8)


@settings(max_examples=8)
@given(bodies(), schedules())
@pytest.mark.case("X01")
def test_the_whole_area_is_dose_over_clearance(body: Body, doses: list[Dose]) -> None:
    slowest = min(float(rate.min()) for rate in bound(body).disposition.modes().rates)
    area = bound(body).areas(make_doses([doses]), row([60.0 + 50 / slowest]))
    given_in = sum(dose.amount * body.ways[dose.route].fraction for dose in doses)
    assert float(area) == pytest.approx(given_in / body.clearance, rel=1e-9)


@settings(max_examples=8)
@given(bodies(), schedules(), st.lists(st.floats(1.0, 50.0), min_size=1, max_size=3, unique=True))
def test_changes_that_change_nothing(body: Body, doses: list[Dose], changes: list[float]) -> None:
    still = [(-np.inf, body), *((change, body) for change in sorted(changes))]
    batch = make_doses([doses])
    for ask in ("concentrations", "areas", "amounts"):
        found = getattr(make_kinetics([still]), ask)(batch, TIMES)
        assert_close(found, getattr(bound(body), ask)(batch, TIMES), 1e-11)


@settings(max_examples=5)
@given(bodies(), st.floats(0.0, 20.0))
@pytest.mark.case("X01")
def test_a_short_infusion_tends_to_a_bolus(body: Body, time: float) -> None:
    inner = row([time + 1.0, time + 5.0, time + 30.0])
    bolus = levels(body, [Dose(time, 50.0)], inner)
    gaps = [
        float((levels(body, [Dose(time, 50.0, duration)], inner) - bolus).abs().max())
        for duration in (1e-2, 1e-4, 1e-6)
    ]
    assert gaps[1] < gaps[0] / 50
    assert gaps[2] < gaps[1] / 50


@settings(max_examples=5)
@given(bodies(), schedules())
@pytest.mark.case("X01")
def test_splitting_and_shuffling_doses_of_one_time(body: Body, doses: list[Dose]) -> None:
    halves = [
        Dose(one.time, one.amount / 2, one.duration, one.route) for one in doses for _ in (0, 1)
    ]
    assert_close(levels(body, halves), levels(body, doses), 1e-12)
    assert_close(levels(body, doses[::-1]), levels(body, doses), 1e-12)


@settings(max_examples=5)
@given(bodies(), schedules())
@pytest.mark.case("X01")
def test_units_are_the_callers(body: Body, doses: list[Dose]) -> None:
    """Amounts in ug for mg and volumes in mL for L: the same numbers, since ug/mL = mg/L."""
    fine = Body(
        1000 * body.clearance,
        1000 * body.volume,
        [(1000 * flow, 1000 * volume) for flow, volume in body.exchanges],
        body.ways,
    )
    small = [Dose(one.time, 1000 * one.amount, one.duration, one.route) for one in doses]
    assert_close(levels(fine, small), levels(body, doses), 1e-11)


@settings(max_examples=5)
@given(bodies(), schedules(), st.randoms())
def test_asked_times_may_come_in_any_order(body: Body, doses: list[Dose], random: object) -> None:
    places = list(range(TIMES.shape[1]))
    random.shuffle(places)  # type: ignore[attr-defined]
    assert torch.equal(levels(body, doses, TIMES[:, places]), levels(body, doses)[:, places])


@settings(max_examples=5)
@given(bodies(), schedules(), numbers)
def test_what_changes_later_does_not_matter_before(
    body: Body, doses: list[Dose], factor: float
) -> None:
    other = Body(body.clearance * factor, body.volume / factor, body.exchanges, body.ways)
    still, changed = (
        make_kinetics([[(-np.inf, body), (30.0, then)]]).concentrations(make_doses([doses]), TIMES)
        for then in (body, other)
    )
    before = TIMES[0] <= 30.0
    assert torch.equal(still[:, before], changed[:, before])


def test_empty_slots_change_nothing() -> None:
    body = Body(10.0, 50.0, [(5.0, 60.0)], [Way(1, 1.0)])
    doses = make_doses([[Dose(0.0, 100.0)], [Dose(0.0, 100.0), Dose(12.0, 100.0)]])
    both = make_kinetics([[(-np.inf, body)]] * 2).concentrations(doses, TIMES.expand(2, -1))
    assert torch.equal(both[:1], levels(body, [Dose(0.0, 100.0)]))
    assert isinstance(doses, Doses)
    assert both.dtype == DOUBLE
