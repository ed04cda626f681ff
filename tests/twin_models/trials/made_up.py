"""A whole plan over the made-up models, to be changed by tests."""

from typing import Any

from fedtwin_twins.trials.conduct import Laboratory
from fedtwin_twins.trials.dosing import most_probable
from fedtwin_twins.trials.plan import TrialPlan

from .one_compartment import find_model

LABORATORY = Laboratory(find_model=find_model, fit=most_probable)
DOSES = {"interval_h": 12, "step": 10, "lowest": 10, "highest": 1000}
TARGET = {"measure": "trough", "low": 2, "high": 4, "aim": 3}
EXPRESSERS = {"Normal Metabolizer": 1, "Intermediate Metabolizer": 1, "Poor Metabolizer": 0}
START = {"amount": 4, "per": "weight"}
ARMS: dict[str, Any] = {
    "fixed": {"doses": DOSES, "start": START},
    "gene": {
        "doses": DOSES,
        "start": START
        | {
            "gene": "CYP3A5",
            "factors": {"Normal Metabolizer": 2.0, "Intermediate Metabolizer": 2.0},
        },
    },
    "level": {
        "doses": DOSES,
        "start": START,
        "adjust": {"by": "level", "days": [2, 4], "target": TARGET},
    },
    "model": {
        "doses": DOSES,
        "start": {"target": TARGET},
        "adjust": {"by": "model", "days": [2, 4], "target": TARGET},
    },
}
WEIGHT = {
    **{"name": "weight", "unit": "kg", "distribution": "normal", "mean": 75, "sd": 15},
    **{"lowest": 40, "highest": 140, "source": "made up"},
}


def plain(*arms: str, **changes: Any) -> dict[str, Any]:
    """A plan as it stands in a file."""
    names = arms or ("fixed", "gene", "level", "model")
    start: dict[str, Any] = {
        **{"name": "made-up", "title": "A made-up drug", "seed": 7, "patients": 120},
        **{"replicates": 2, "days": 7},
        "population": {
            "ancestry": {"EUR": 0.7, "AFR": 0.3},
            "covariates": [WEIGHT],
            "genes": ["CYP3A5"],
            "gene_covariates": [
                {"name": "expresser", "gene": "CYP3A5", "by_phenotype": EXPRESSERS}
            ],
        },
        "drug": {
            **{"name": "made-up", "route": "oral", "dose_unit": "mg", "level_unit": "mg/L"},
            "truth": {"model": "made-up-truth"},
            "dosing_model": "made-up-dosing",
        },
        "arms": [{"name": name, "label": name, **ARMS[name]} for name in names],
        "endpoints": [
            {
                **{"name": "reached", "label": "Trough in its window", "day": 7},
                **{"kind": "trough_in_window", "low": 2, "high": 4, "dropouts": "failure"},
            },
            {"name": "area", "label": "Area", "kind": "auc24", "unit": "mg.h/L", "day": 7},
        ],
        "analysis": {"control": names[0]},
    }
    return start | changes


def plan(*arms: str, **changes: Any) -> TrialPlan:
    """The same, checked."""
    return TrialPlan.model_validate(plain(*arms, **changes))
