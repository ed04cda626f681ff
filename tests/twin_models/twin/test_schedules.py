"""Interventions become single doses in hours, and patients become padded tables."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
import torch

from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.moments import Clock
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, GivenDose, Meal, Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

NIGHT = datetime(2026, 3, 29, tzinfo=timezone(timedelta(hours=1)))


def given(*items: Dose | Meal, clock: Clock | None = None) -> list[GivenDose]:
    doses, problems = Schedule(items).given(clock or Clock())
    assert problems == []
    return doses


def dose(**change: object) -> Dose:
    usual = {"time": Quantity(0, "h"), "amount": Quantity(100, "mg"), "route": "oral"}
    return Dose(**{**usual, **change})  # type: ignore[arg-type]


def test_additional_doses_are_written_out_in_order() -> None:
    found = given(
        dose(time=Quantity(1, "d"), interval=Quantity(12, "h"), additional=2),
        dose(time=Quantity(30, "h")),
    )
    assert [one.hour for one in found] == [24, 30, 36, 48]


def test_only_the_first_of_repeated_doses_stands_for_a_steady_state() -> None:
    found = given(dose(interval=Quantity(12, "h"), additional=2, steady_state=True))
    assert [one.interval_h for one in found] == [12, 0, 0]


def test_a_rate_is_a_duration() -> None:
    (found,) = given(dose(rate=Quantity(2, "g/d")))
    assert found.duration_h == pytest.approx(1.2)


def test_a_meal_is_a_dose_of_carbohydrate() -> None:
    (found,) = given(Meal(time=Quantity(30, "min"), carbohydrate=Quantity(60, "g")))
    assert (found.hour, found.amount, found.route) == (0.5, Quantity(60, "g"), "meal")


def test_a_change_to_summer_time_takes_no_hour() -> None:
    """01:30 before and 03:30 after the clocks went forward are one hour apart."""
    clock = Clock(NIGHT)
    before = datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=1)))
    after = datetime(2026, 3, 29, 3, 30, tzinfo=timezone(timedelta(hours=2)))
    found = given(dose(time=before), dose(time=after), clock=clock)
    assert [one.hour for one in found] == [1.5, 2.5]


def test_tables_are_padded_behind_what_is_there() -> None:
    twin = CardModel(load_card("imatinib_gotta_2014"))
    known = {"age": Quantity(50, "a"), "female": "male"}
    patients = [
        Patient(
            schedule=Schedule([dose(amount=Quantity(400, "mg")) for _ in range(count)]),
            covariates=known,
        )
        for count in (2, 0, 1)
    ]
    doses = tabulate(patients, twin.intake).batch.doses
    assert doses.time.tolist() == [[0, 0], [math.inf, math.inf], [0, math.inf]]
    assert doses.amount.tolist() == [[400, 400], [0, 0], [400, 0]]
    assert doses.route.dtype == torch.int64


def test_occasions_are_the_patients_own_or_the_models_rule() -> None:
    twin = CardModel(load_card("busulfan_mccune_2014"))
    known = {
        "age": Quantity(30, "a"),
        "body_weight": [
            CovariateRecord(time=NIGHT.astimezone(UTC), value=Quantity(70, "kg")),
            CovariateRecord(time=NIGHT + timedelta(hours=30), value=Quantity(71, "kg")),
        ],
        "height": Quantity(175, "cm"),
        "female": "male",
    }
    schedule = Schedule([dose(time=NIGHT + timedelta(hours=6), route="intravenous")])
    ruled = Patient(origin=NIGHT, schedule=schedule, covariates=known)
    own = Patient(
        origin=NIGHT,
        schedule=schedule,
        covariates=known,
        occasions=[NIGHT + timedelta(hours=40)],
    )
    traits = tabulate([ruled, own], twin.intake).batch.traits
    assert traits.starts[0].tolist() == [-math.inf, 30, 54, 78, 102]
    assert traits.occasions[0].tolist() == [0, 1, 2, 3, 4]
    assert traits.starts[1, :3].tolist() == [-math.inf, 30, 40]
    assert traits.occasions[1].tolist()[:3] == [0, 0, 1]
    assert traits.values["body_weight"][1].tolist()[:3] == [70, 71, 71]


def test_patients_who_know_different_things_share_a_table() -> None:
    """One gave a creatinine clearance, the other what it follows from."""
    twin = CardModel(load_card("metformin_chae_2012"))
    measured = {
        "age": Quantity(40, "a"),
        "body_weight": Quantity(72, "kg"),
        "creatinine": Quantity(1.0, "mg/dL"),
        "female": "male",
    }
    patients = [
        Patient(covariates={"creatinine_clearance": Quantity(100, "mL/min")}),
        Patient(covariates=measured),
    ]
    batch = tabulate(patients, twin.intake).batch
    assert batch.traits.values["creatinine_clearance"][:, 0].tolist() == pytest.approx([100, 100])
    own = twin.individual(batch, torch.zeros((2, 3), dtype=torch.float64))["clearance"][:, 0]
    assert own[0].item() == pytest.approx(own[1].item(), rel=1e-12)
