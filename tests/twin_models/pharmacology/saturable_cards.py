"""A made-up card whose elimination saturates, as a user would write one."""

import copy
from pathlib import Path
from typing import Any

import yaml

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.reading_cards import card_from

CARDS = Path(__file__).parents[3] / "twin_models/fedtwin_twins/pharmacology/cards"
_SOURCE = {"reference": "yang_2025", "place": "made up"}
_NUMBERS = {
    "maximal_elimination_rate": ("mg/h", 21.0),
    "half_saturation_concentration": ("mg/L", 4.5),
    "central_volume": ("L", 45.0),
    "intercompartmental_clearance": ("L/h", 6.0),
    "peripheral_volume": ("L", 30.0),
    "clearance": ("L/h", 0.4),
    "absorption_rate": ("/h", 0.6),
    "bioavailability": ("1", 0.9),
    "lag": ("h", 0.5),
    "infused_over": ("h", 3.0),
}


def content(disposition: str = "one_compartment_saturable") -> dict[str, Any]:
    """Doses in mg: into a vein, by mouth, slowly by mouth, and through three stages."""
    found: dict[str, Any] = copy.deepcopy(
        yaml.safe_load((CARDS / "imatinib_gotta_2014.yaml").read_text())
    )
    first = found["routes"][0]
    del first["duration"]
    first.update(largest_daily_dose=3000.0, largest_single_dose=1500.0)
    found["routes"] = [
        {**first, "name": "intravenous", "input": "direct"},
        {
            **first,
            "name": "oral",
            "input": "first_order",
            "rate": "absorption_rate",
            "bioavailability": "bioavailability",
            "lag": "lag",
        },
        {**first, "name": "slow", "input": "zero_order", "duration": "infused_over"},
        {
            **first,
            "name": "chain",
            "input": "transit",
            "rate": "absorption_rate",
            "compartments": 3,
        },
    ]
    found.update(id="made_up", disposition=disposition, covariates=[], targets=[])
    found["parameters"] = [
        {"name": name, "unit": unit, "typical": value, "source": _SOURCE}
        for name, (unit, value) in _NUMBERS.items()
    ]
    names = ("maximal_elimination_rate", "half_saturation_concentration", "central_volume")
    found["between_patients"] = {
        "convention": "cv_squared",
        "blocks": [{"parameters": [name], "diagonal": [0.2]} for name in names],
        "source": _SOURCE,
    }
    observable = found["observables"][0]
    observable.update(unit="mg/L", quantification_limit=None)
    observable["residual"] = {"convention": "proportional", "proportional": 0.1, "source": _SOURCE}
    return found


def saturable_card(disposition: str = "one_compartment_saturable") -> ModelCard:
    """The card, checked."""
    return card_from(content(disposition), "card")
