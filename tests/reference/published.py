"""Published cases, and patients as their models describe them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose, Meal, Schedule
from fedtwin_twins.twin.tabulate import Patient, Tables, tabulate

CASES = Path(__file__).parents[3] / "shared" / "cases" / "pharmacology"


def case(name: str) -> dict[str, Any]:
    path = CASES / f"{name}.json"
    if not path.is_file():
        pytest.skip("the shared cases are not here")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def model(card: str) -> CardModel:
    return CardModel(load_card(card))


def hours(value: float) -> Quantity:
    return Quantity(value, "h")


def patients(
    twin: CardModel,
    *given: tuple[Sequence[Dose | Meal], Mapping[str, Recorded]],
) -> Tables:
    return tabulate(
        [Patient(schedule=Schedule(doses), covariates=known) for doses, known in given],
        twin.intake,
    )


def typical(twin: CardModel, count: int = 1) -> Tensor:
    return torch.zeros((count, len(twin.effects)), dtype=torch.float64)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)
