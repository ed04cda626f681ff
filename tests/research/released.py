"""Releases of any built-in family, made of a plan and arrays, for the tests beside this file."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fedtwin.demo
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.release import build_release, sign_release, verify_release
from fedtwin_protocol.signing import PLAN_TYPE, TrustRoot, public_key, sign
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_research.bench import ReleasedModel

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLANS = Path(fedtwin.demo.__file__).parent / "plans"
KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
TRUST = TrustRoot(consortium="demo", keys=(public_key(KEY, "a signer"),), threshold=1)
AGE = {"name": "age", "kind": "age", "unit": "a", "center": 60.0, "scale": 10.0}
SMOKES = {"name": "smokes", "kind": "flag", "codes": ["TEST//smoking"], "missing": "center"}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "linear_regression": {"kind": "value", "unit": "mmol/L", "center": 5.0, "scale": 2.0},
    "linear_mixed_model": {"kind": "value", "unit": "mmol/L", "center": 5.0, "scale": 2.0},
    "poisson_regression": {"kind": "count", "most": 50},
    "discrete_hazard": {"kind": "time_to_event", "interval_days": [90, 180, 365]},
}
SEQUENCE = {
    "vocabulary": [
        {
            "code": "LOINC//2345-7",
            "unit": "mg/dL",
            "plausible": [20.0, 600.0],
            "center": 100.0,
            "scale": 40.0,
        },
        {"code": "SNOMED//73211009"},
        {
            "code": "LOINC//8867-4",
            "unit": "/min",
            "plausible": [20.0, 250.0],
            "center": 70.0,
            "scale": 5.0,
        },
    ],
    "most_records": 4,
    "window_days": 400,
}


def a_plan(family: str, **changes: Any) -> StudyPlan:
    """A small plan of a family in mode `local`, over two columns."""
    endpoint = {"name": "it", "kind": "event", "codes": ["LOINC//2345-7"], "horizon_days": 365}
    value = plan_from_yaml(PLANS / "heart-disease.yaml").model_dump()
    value["privacy"] |= {
        "mode": "local",
        "hospitals_per_patient": 1,
        "evaluation_noise": None,
        "vote_noise": None,
        "noise_multiplier": 20.0,
    }
    value["training"] |= {"rounds": 3, "learning_rate": 0.5, "momentum": 0.0, "average_last": 1}
    value["sites"] |= {"invited": ("a", "b", "c"), "quorum": 1}
    value |= {
        "study": "a-study",
        "features": [AGE, SMOKES],
        "endpoint": endpoint | ENDPOINTS.get(family, {}),
        "model": {"family": family, "hidden": [3] if family == "network" else [], "width": 4},
    }
    if family == "linear_mixed_model":
        value |= {"question": "population", "population": {}}
        value["training"] = {"mechanism": "moments", "rounds": 1, "learning_rate": 1}
    return StudyPlan.model_validate(value | changes)


def release(plan: StudyPlan, **arrays: Any) -> ReleasedModel:
    """A verified release of the plan with these arrays; first values where none are given."""
    facts = RunFacts(patients={"a": 500.0}, rounds_used={"a": 1}, rounds=1, created=NOW)
    envelope = sign(PLAN_TYPE, plan.to_bytes(), [KEY])
    parameters = {**initial_parameters(plan), **arrays}
    files = build_release(parameters, write_card(plan, facts), envelope, NOW)
    return ReleasedModel(verify_release(sign_release(files, [KEY], TRUST), TRUST))
