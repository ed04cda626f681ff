"""A patient of the published dosing cases, and what is asked of the model."""

import torch

from fedtwin_twins.advice.solving import Known
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

GOTI = CardModel(load_card("vancomycin_goti_2018"))


def mg(value: float) -> Quantity:
    return Quantity(value, "mg")


def goti_patient(schedule: Schedule | None = None, **more: object) -> Patient:
    """The patient of cases D01, D02 and D04."""
    covariates = {
        "body_weight": Quantity(70.0, "kg"),
        "creatinine_clearance": Quantity(65.0, "mL/min"),
        "dialysis": Quantity(0.0, "1"),
    }
    return Patient(covariates=covariates, schedule=schedule or Schedule(), **more)


def goti_known(eta: list[float]) -> Known:
    batch = tabulate([goti_patient()], GOTI.intake).batch
    return Known(model=GOTI, batch=batch, effects=torch.tensor([eta], dtype=torch.float64))
