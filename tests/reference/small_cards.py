"""Small cards for tests, as plain values: what a file would hold."""

from collections.abc import Mapping, Sequence
from typing import Any

SOURCE = {"reference": "case", "place": "its inputs"}


def relation(equation: str, covariate: str, **coefficients: float) -> dict[str, Any]:
    return {"equation": equation, "covariate": covariate, "coefficients": coefficients}


def small_card(
    *,
    name: str,
    disposition: str,
    covariates: Mapping[str, str],
    parameters: Mapping[str, tuple[str, float, Sequence[Mapping[str, Any]]]],
    variances: Mapping[str, float],
    residual: Mapping[str, Any],
) -> dict[str, Any]:
    """A card of an infused drug, with everything that a test does not speak of filled in."""
    return {
        "format": "fedtwin-model-card/1",
        "id": name,
        "version": "1",
        "title": name,
        "drug": {"name": name, "atc": "J01GB01", "rxnorm": "10627"},
        "population": "of a test",
        "analyte": {"name": name, "matrix": "plasma", "molar_mass_g_per_mol": 467.5},
        "disposition": disposition,
        "effect": "none",
        "routes": [
            {
                "name": "intravenous",
                "input": "direct",
                "unit": "mg",
                "dose_scale": 1.0,
                "believable_single_dose": [0.001, 1e6],
                "available_doses": [],
                "largest_single_dose": 1e6,
                "largest_daily_dose": 1e6,
                "doses_source": "none",
            }
        ],
        "covariates": [
            {"name": one, "unit": unit, "hard": [0.0, 500.0], "soft": [0.0, 500.0]}
            for one, unit in covariates.items()
        ],
        "derived": [],
        "covariate_rule": "last_forward",
        "record_order": "observation_before_dose",
        "parameters": [
            {"name": one, "unit": unit, "typical": value, "relations": rel, "source": SOURCE}
            for one, (unit, value, rel) in parameters.items()
        ],
        "between_patients": {
            "convention": "variance",
            "blocks": [
                {"parameters": [one], "diagonal": [value]} for one, value in variances.items()
            ],
            "source": SOURCE,
        },
        "between_occasions": None,
        "observables": [
            {
                "name": "concentration",
                "code": "",
                "unit": "mg/L",
                "output": "concentration",
                "endogenous": False,
                "quantification_limit": None,
                "residual": {**residual, "source": SOURCE},
            }
        ],
        "targets": [],
        "references": {"case": {"citation": "a test", "doi": ""}},
        "transcribed_in": "a test",
        "deviations": [],
        "open_questions": [],
        "verified_by": [],
    }
