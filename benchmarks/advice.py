"""What one patient's advice costs: fit, forecast with bands, and ten candidates; CPU, one thread.

Vancomycin by Goti's model (two compartments), four doses and two levels; a forecast at 97 hours,
and five doses at two intervals judged by the area at steady state, with reasons. Warm, the median
of five. Baseline: the same with each candidate asked for alone, as a loop over regimens does it.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from figures import Figure

from fedtwin_twins.advice.assessment import Horizon, assess
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import Goal
from fedtwin_twins.dosing import limits_of, targets_of
from fedtwin_twins.patient_twin import Twin, build
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient

REPEATS = 5
MODEL = CardModel(load_card("vancomycin_goti_2018"))
HOURS = [48.0 + place / 2 for place in range(97)]
REGIMENS = [
    Regimen(amount=Quantity(dose, "mg"), interval_h=interval, route="intravenous", duration_h=1.0)
    for dose in (750.0, 1000.0, 1250.0, 1500.0, 2000.0)
    for interval in (12.0, 24.0)
]
GOAL = Goal(targets=targets_of(MODEL.card), least_probability=0.2)
HORIZON = Horizon(start_h=48.0)


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module."""
    del options
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours, plain = _median(_advised), _median(_one_by_one)
    finally:
        torch.set_num_threads(before)
    return [
        Figure(id="advice-s", value=ours, unit="CPU s, one thread", baseline=plain, goal=0.3),
    ]


def patient() -> Patient:
    """A woman of 62 years on 1 g every 12 hours, with a peak and a trough."""
    hours = Quantity(12.0, "h")
    return Patient(
        covariates={
            "age": Quantity(62.0, "a"),
            "body_weight": Quantity(80.0, "kg"),
            "creatinine": Quantity(1.0, "mg/dL"),
            "female": "female",
        },
        schedule=Schedule(
            [
                Dose(
                    time=Quantity(0.0, "h"),
                    amount=Quantity(1000.0, "mg"),
                    route="intravenous",
                    duration=Quantity(1.0, "h"),
                    interval=hours,
                    additional=3,
                )
            ]
        ),
        observations=[
            Observation(time=Quantity(hour, "h"), observable="concentration", value=value)
            for hour, value in ((37.5, Quantity(28.0, "mg/L")), (47.5, Quantity(14.0, "mg/L")))
        ],
    )


def _fitted() -> Twin:
    twin = build([MODEL], patient(), seed=1)
    twin.forecast(HOURS)
    return twin


def _advised() -> None:
    _fitted().advise(GOAL, limits_of(MODEL.card), REGIMENS, HORIZON)


def _one_by_one() -> None:
    """The same, and what choosing needs to know of each candidate, by a question for each."""
    twin = _fitted()
    outlooks = twin.outlooks()
    found = [assess(outlooks, [one], GOAL.targets, HORIZON)[0] for one in REGIMENS]
    best = max(found, key=lambda one: one.all_inside).regimen
    twin.advise(GOAL, limits_of(MODEL.card), [best], HORIZON)


def _median(work: Callable[[], None]) -> float:
    work()
    seconds = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds)
