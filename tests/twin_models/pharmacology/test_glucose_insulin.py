"""The glucose-insulin model against SciPy, and against itself in other company."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fedtwin_twins.advice.explanation import lessons
from fedtwin_twins.belief.likelihood import evidence_of
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.belief.posterior import Inference
from fedtwin_twins.patient_twin import build
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.glucose_insulin import basal_insulin
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, Meal, Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

MODEL = CardModel(load_card("glucose_hovorka_2004"))
HOURS = np.arange(1, 61) / 4
WEIGHT = 64.0
FEW_DRAWS = Inference(draws=128)
EFFECTS = (0.25, -0.2, 0.1, 0.1, -0.15, 0.2, 0.1)


def dose(hour: float, units: float, route: str = "subcutaneous", lasting: float = 0.0) -> Dose:
    return Dose(
        time=Quantity(hour, "h"),
        amount=Quantity(units, "[IU]"),
        route=route,
        duration=Quantity(lasting, "h") if lasting else None,
    )


def meal(hour: float, grams: float) -> Meal:
    return Meal(time=Quantity(hour, "h"), carbohydrate=Quantity(grams, "g"))


DAY = (
    dose(0, 4, lasting=10),
    dose(10, 2, lasting=5),
    meal(1, 60),
    dose(1.1, 0.7),
    meal(6.3, 90),
    dose(6.1, 1.5),
    dose(11, 0.5, "intravenous"),
    dose(12, 0.5, "intravenous", 0.5),
)


def patient(interventions: Sequence[Dose | Meal], weight: float = WEIGHT) -> Patient:
    return Patient(
        schedule=Schedule(tuple(interventions)),
        covariates={"body_weight": Quantity(weight, "kg")},
    )


def predicted(
    patients: Sequence[Patient], effects: Tensor, hours: Sequence[float], kind: int = 0
) -> Tensor:
    batch = tabulate(patients, MODEL.intake).batch
    times = torch.tensor([list(hours)], dtype=torch.float64).expand(len(patients), -1)
    return MODEL.predict(batch, effects, times, kind)


def row(values: Sequence[float] = EFFECTS) -> Tensor:
    return torch.tensor([list(values)], dtype=torch.float64)


def by_scipy(given: Patient, effects: Tensor, hours: Sequence[float]) -> np.ndarray:
    """Hovorka's equations as they are printed: glucose mmol/L and insulin mU/L, (2, hours)."""
    batch = tabulate([given], MODEL.intake).batch
    course = MODEL.course(batch, effects)
    by = {name: float(value[0, 0]) for name, value in course.parameters.items()}
    weight, rest = by["body_weight"], float(basal_insulin(course)) * 1000 / 60
    doses = [one[0].numpy() for one in (batch.doses.time, batch.doses.duration)]
    sizes = (batch.doses.amount[0].numpy(), batch.doses.route[0].numpy())
    factors = (
        by["carbohydrate_bioavailability"] * 1000 / 180.16,
        1000.0,
        1000.0 / (by["insulin_volume"] * weight),
    )
    events = list(zip(*doses, *sizes, strict=True))
    names = ("transport", "disposal", "production")
    rates = [by[f"{one}_deactivation_rate"] for one in names]
    forces = [by[f"{one}_insulin_sensitivity"] for one in names]

    def change(minute: float, y: np.ndarray, runs: Sequence[float]) -> list[float]:
        del minute
        volume = by["glucose_volume"] * weight
        level, peak, eaten = y[0] / volume, by["insulin_time_to_peak"], 40.0
        eaten = by["carbohydrate_time_to_peak"]
        used = by["noninsulin_glucose_flux"] * weight * min(max(level / 4.5, 0.0), 1.0)
        lost = 0.003 * max(level - 9.0, 0.0) * volume
        made = by["endogenous_glucose_production"] * weight * max(1 - y[4], 0.0)
        inflow = y[7] / (peak * by["insulin_volume"] * weight) + runs[2]
        return [
            -used - y[2] * y[0] + 0.066 * y[1] - lost + y[9] / eaten + made,
            y[2] * y[0] - (0.066 + y[3]) * y[1],
            *(k * (s * y[5] - x) for k, s, x in zip(rates, forces, y[2:5], strict=True)),
            inflow - 0.138 * y[5],
            runs[1] - y[6] / peak,
            (y[6] - y[7]) / peak,
            runs[0] - y[8] / eaten,
            (y[8] - y[9]) / eaten,
        ]

    level = rest / (0.138 * by["insulin_volume"] * weight)
    first = by["steady_glucose"] * by["glucose_volume"] * weight
    actions = [one * level for one in forces]
    depot = rest * by["insulin_time_to_peak"]
    second = actions[0] * first / (0.066 + actions[1])
    state = np.array([first, second, *actions, level, depot, depot, 0.0, 0.0])
    ends = [begin + lasting for begin, lasting, _, _ in events]
    marks = sorted({one[0] for one in events} | set(ends) | set(hours))
    begin, found = min(one[0] for one in events), []
    for mark in marks:
        runs = [0.0, 0.0, 0.0]
        for hour, lasting, amount, route in events:
            if lasting and hour <= begin < hour + lasting:
                runs[route] += amount * factors[route] / (60 * lasting)
        if mark > begin:
            span = (begin * 60, mark * 60)
            state = solve_ivp(change, span, state, "LSODA", args=(runs,), rtol=1e-9, atol=1e-9).y[
                :, -1
            ]
        if mark in hours:
            found.append((state[0] / (by["glucose_volume"] * weight), state[5]))
        for hour, lasting, amount, route in events:
            if hour == mark and not lasting:
                state[(8, 6, 5)[route]] += amount * factors[route]
        begin = mark
    return np.array(found).T


def test_a_day_with_meals_boluses_and_a_pump_is_as_by_scipy() -> None:
    glucose, insulin = by_scipy(patient(DAY), row(), HOURS.tolist())
    assert 1 < glucose.min() < 4.5  # every bend of the losses is passed
    assert glucose.max() > 9
    found = predicted([patient(DAY)], row(), HOURS.tolist())[0]
    assert found.tolist() == pytest.approx(glucose.tolist(), abs=1e-3)
    found = predicted([patient(DAY)], row(), HOURS.tolist(), 1)[0]
    assert found.tolist() == pytest.approx(insulin.tolist(), rel=1e-4)


def test_steps_are_finer_where_insulin_acts_fast() -> None:
    much = patient([dose(0, 40, "intravenous"), dose(1, 30), meal(0, 200)])
    hours = [0.1, 0.25, 0.5, 1, 1.5, 2]
    expected = by_scipy(much, row(), hours)[0]
    found = predicted([much], row(), hours)[0]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_patient_has_the_same_course_in_any_company() -> None:
    late = patient([dose(3, 2), meal(2, 30)])
    much = patient([dose(-5, 40, "intravenous"), meal(0, 100)], 90)
    alone = predicted([late], row(), HOURS.tolist())[0]
    assert alone[:8].tolist() == pytest.approx([5.5 * math.exp(0.1)] * 8, rel=1e-12)
    both = predicted([much, late], row().expand(2, -1), HOURS.tolist())[1]
    assert both.tolist() == pytest.approx(alone.tolist(), rel=1e-10)
    # Of many, steps are taken one after another; of one, all at once.
    many = predicted([late, patient(DAY)] * 20, row().expand(40, -1), HOURS.tolist())
    assert many[0].tolist() == pytest.approx(alone.tolist(), rel=1e-10)
    day = predicted([patient(DAY)], row(), HOURS.tolist())[0]
    assert many[1].tolist() == pytest.approx(day.tolist(), rel=1e-10)


def test_without_any_event_the_basal_insulin_ends_at_the_origin() -> None:
    found = predicted([patient([])], row(), [-1, 0, 6])[0].tolist()
    assert found[:2] == [pytest.approx(5.5 * math.exp(0.1))] * 2
    assert found[2] > 8


def test_both_derivatives_are_those_of_differences() -> None:
    hours = HOURS[11::24].tolist()

    def glucose(effects: Tensor) -> Tensor:
        return predicted([patient(DAY)], effects, hours)

    effects = row().requires_grad_(True)
    assert torch.autograd.gradcheck(glucose, (effects,), eps=1e-6, rtol=1e-5)
    assert torch.autograd.gradgradcheck(
        lambda one: glucose(one)[:, ::4].sum(), (effects,), eps=1e-6, rtol=1e-4
    )


def test_rates_that_coincide_are_nothing_special() -> None:
    """1/tI = 0.03 is the rate at which insulin's action on production fades."""
    exact = math.log(1 / 0.03 / 55)
    around = [row([*EFFECTS[:5], exact + off, EFFECTS[6]]) for off in (-1e-3, 0.0, 1e-3)]
    below, at, above = (predicted([patient(DAY)], one, HOURS.tolist())[0] for one in around)
    assert at.tolist() == pytest.approx(((below + above) / 2).tolist(), rel=2e-4)
    effects = around[1].requires_grad_(True)
    (slope,) = torch.autograd.grad(predicted([patient(DAY)], effects, [8.0]).sum(), effects)
    assert bool(slope.isfinite().all())


def test_a_weight_that_changes_is_followed() -> None:
    def weighed(later: float) -> Patient:
        records = [
            CovariateRecord(time=Quantity(hour, "h"), value=Quantity(value, "kg"))
            for hour, value in ((0, WEIGHT), (7, later))
        ]
        return Patient(schedule=Schedule(DAY), covariates={"body_weight": tuple(records)})

    steady = predicted([patient(DAY)], row(), HOURS.tolist())[0]
    same = predicted([weighed(WEIGHT)], row(), HOURS.tolist())[0]
    assert same.tolist() == steady.tolist()
    nearly = predicted([weighed(WEIGHT + 1e-6)], row(), HOURS.tolist())[0]
    assert nearly.tolist() == pytest.approx(steady.tolist(), abs=2e-3)
    heavier = predicted([weighed(WEIGHT + 8)], row(), HOURS.tolist())[0]
    assert heavier[:27].tolist() == pytest.approx(nearly[:27].tolist(), rel=1e-6)
    assert float((heavier - nearly).abs().max()) > 0.1


def test_what_many_readings_taught_is_told_by_stretches_of_time() -> None:
    hours = [place / 6 for place in range(1, 61)]
    seen = predicted([patient(DAY)], row(), hours)[0].tolist()
    readings = [
        Observation(
            time=Quantity(hour, "h"), observable="glucose", value=Quantity(18.016 * value, "mg/dL")
        )
        for hour, value in zip(hours, seen, strict=True)
    ]
    twin = build([MODEL], replace(patient(DAY), observations=readings), seed=1, how=FEW_DRAWS)
    (one,) = twin.members
    # The meal's pace and the steady glucose are seen; insulin's actions stand in for one another.
    assert one.posterior.mode[0, 4::2].tolist() == pytest.approx(list(EFFECTS[4::2]), abs=0.05)
    taught = lessons(MODEL, one.batch, one.observed, one.posterior.mode)
    starts = {each.hour for each in taught}
    assert 1 < len(starts) <= 8
    assert {each.count for each in taught} <= {7, 8}
    assert "of glucose from" in str(taught[0])
    assert "mmol/L on average, moved" in str(taught[0])


def test_a_mode_on_a_bend_is_arrived_at() -> None:
    """The slope of the objective jumps there: no step arrives, and none gains anything."""
    given: list[Dose | Meal] = [dose(0, 10.8, lasting=24)]
    for hour, grams, units in ((1, 50, 1.5), (6, 70, 2.5), (12, 60, 2), (17, 20, 0.5)):
        given += [meal(hour, grams), dose(hour, units)]
    hours = [place / 12 for place in range(1, 289)]
    truth = row((0.2, -0.1, 0.15, 0.1, -0.1, 0.1, 0.2))
    noise = torch.randn(288, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = predicted([patient(given, 70)], truth, hours)[0] * (1 + 0.075 * noise)
    readings = [
        Observation(time=Quantity(hour, "h"), observable="glucose", value=Quantity(value, "mmol/L"))
        for hour, value in zip(hours, seen.tolist(), strict=True)
    ]
    tables = tabulate([replace(patient(given, 70), observations=readings)], MODEL.intake)
    evidence = evidence_of(MODEL, tables.batch, tables.observed)
    steps: list[int] = []

    def predict(batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor) -> Tensor:
        steps.append(1)
        return MODEL.predict(batch, effects, times, kinds)

    mode = find_mode(replace(evidence, predict=predict))
    assert bool(mode.converged[0])
    assert len(steps) < 120
