"""The named structures that a model card may have: which parameters each needs, in which unit.

`{amount}` is the unit of the doses, so that a concentration is `{amount}/L`. A card may give a
parameter in any unit that measures the same.

Disposition: where a dose goes once it is in the body.
Input: how a dose gets there, one for each route.
Effect: what the concentration does; with none, only concentrations are predicted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CLEARANCE: Final = {"clearance": "L/h", "central_volume": "L"}
_PERIPHERAL: Final = {"intercompartmental_clearance": "L/h", "peripheral_volume": "L"}

_SATURATION: Final = {
    "maximal_elimination_rate": "{amount}/h",
    "half_saturation_concentration": "{amount}/L",
    "central_volume": "L",
}

SATURABLE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "one_compartment_saturable": _SATURATION,
        "one_compartment_saturable_and_linear": {**_SATURATION, "clearance": "L/h"},
        "two_compartments_saturable": {**_SATURATION, **_PERIPHERAL},
        "two_compartments_saturable_and_linear": {
            **_SATURATION,
            **_PERIPHERAL,
            "clearance": "L/h",
        },
    }
)
"""Dispositions whose elimination saturates; those with a clearance have both ways out."""

DISPOSITIONS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "one_compartment": _CLEARANCE,
        "two_compartments": {**_CLEARANCE, **_PERIPHERAL},
        "three_compartments": {
            **_CLEARANCE,
            **_PERIPHERAL,
            "second_intercompartmental_clearance": "L/h",
            "second_peripheral_volume": "L",
        },
        "two_compartments_by_transfer_rates": {
            **_CLEARANCE,
            "rate_to_peripheral": "/h",
            "rate_from_peripheral": "/h",
        },
        "two_compartments_by_rates": {
            "elimination_rate": "/h",
            "central_volume": "L",
            "rate_to_peripheral": "/h",
            "rate_from_peripheral": "/h",
        },
        **SATURABLE,
        "glucose_and_insulin": {
            "body_weight": "kg",
            "glucose_volume": "L/kg",
            "insulin_volume": "L/kg",
            "noninsulin_glucose_flux": "mmol/kg/min",
            "endogenous_glucose_production": "mmol/kg/min",
            "glucose_transfer_rate": "/min",
            "transport_deactivation_rate": "/min",
            "disposal_deactivation_rate": "/min",
            "production_deactivation_rate": "/min",
            "transport_insulin_sensitivity": "L/m[IU]/min",
            "disposal_insulin_sensitivity": "L/m[IU]/min",
            "production_insulin_sensitivity": "L/m[IU]",
            "insulin_elimination_rate": "/min",
            "carbohydrate_bioavailability": "1",
            "carbohydrate_time_to_peak": "min",
            "insulin_time_to_peak": "min",
            "renal_glucose_rate": "/min",
            "renal_glucose_threshold": "mmol/L",
            "flux_glucose_threshold": "mmol/L",
            "steady_glucose": "mmol/L",
        },
    }
)
"""Parameters by disposition. `glucose_and_insulin` is Hovorka's, with routes of its own."""

EFFECTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "none": {},
        "coagulation_chains": {
            "maximal_effect": "1",
            "hill_exponent": "1",
            "half_maximal_concentration": "{amount}/L",
            "fast_mean_transit_time": "h",
            "slow_mean_transit_time": "h",
            "baseline_inr": "1",
            "maximal_inr_shift": "1",
        },
        "cell_maturation": {
            "baseline_cells": "10*9/L",
            "mean_transit_time": "h",
            "feedback_exponent": "1",
            "drug_slope": "L/{amount}",
        },
        "signal_transduction": {
            "maximal_effect": "%",
            "hill_exponent": "1",
            "half_maximal_concentration": "{amount}/L",
            "transit_time": "h",
        },
        "daily_rhythm_and_linear_effect": {
            "baseline_pressure": "mm[Hg]",
            "rhythm_amplitude": "mm[Hg]",
            "rhythm_frequency": "/d",
            "effect_slope": "mm[Hg].L/{amount}",
            "effect_onset_rate": "/h",
        },
    }
)
"""Parameters by effect, driven by the central concentration."""

OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "none": ("concentration",),
        "coagulation_chains": ("concentration", "inr"),
        "cell_maturation": ("concentration", "cells"),
        "signal_transduction": ("concentration", "glucose_change"),
        "daily_rhythm_and_linear_effect": ("concentration", "systolic_pressure"),
    }
)
"""What a structure can predict, and an observable can name as its output."""

GLUCOSE_OUTPUTS: Final = ("glucose", "insulin")

OUTPUT_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "concentration": "{amount}/L",
        "inr": "1",
        "cells": "10*9/L",
        "glucose_change": "%",
        "systolic_pressure": "mm[Hg]",
        "glucose": "mmol/L",
        "insulin": "m[IU]/L",
    }
)
"""Of what the equations return, before it becomes the observable's unit."""

INPUTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "direct": {},
        "first_order": {"rate": "/h"},
        "zero_order": {"duration": "h"},
        "transit": {"rate": "/h"},
        "meal": {},
        "subcutaneous_insulin": {},
        "intravenous_insulin": {},
    }
)
"""What a route must name parameters for, by input; any may also have `lag` and `bioavailability`.

`direct`: at once or as an infusion; `zero_order`: at a constant rate for a duration that the model
sets; `transit`: through a chain of compartments of one rate. The last three are Hovorka's.
"""
