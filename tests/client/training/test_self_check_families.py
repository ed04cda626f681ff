"""What a node's check finds in sums of values, counts and times, and in models over records."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedtwin.demo
from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.noise import NoiseSource
from fedtwin_client.training.self_check import check_independence, check_training
from fedtwin_protocol.study import StudyPlan, plan_from_yaml

HEART = Path(fedtwin.demo.__file__).parent / "plans" / "heart-disease.yaml"
ENDPOINTS: dict[str, dict[str, Any]] = {
    "linear_regression": {"kind": "value", "threshold": None},
    "poisson_regression": {"kind": "count", "threshold": None},
    "discrete_hazard": {
        "kind": "time_to_event",
        "threshold": None,
        "horizon_days": 300,
        "interval_days": [100, 200, 300],
    },
}
SEQUENCE = {
    "vocabulary": [
        {"code": "LOINC//2345-7", "unit": "mg/dL", "plausible": [20, 600], "center": 100},
        {"code": "SNOMED//73211009"},
    ],
    "most_records": 3,
}
OVER_RECORDS = ("network", "transformer", "recurrent")


def plan(family: str, **privacy: Any) -> StudyPlan:
    value = plan_from_yaml(HEART).model_dump()
    value["endpoint"] |= ENDPOINTS.get(family, {})
    value["sites"] |= {"invited": ("a", "b", "c")}
    value["training"] |= {"rounds": 2, "learning_rate": 0.5, "momentum": 0.0, "average_last": 1}
    value["privacy"] |= {
        "mode": "local",
        "clipping_norm": 1.0,
        "noise_multiplier": 6.0,
        "hospitals_per_patient": 1,
        "evaluation_noise": None,
        "vote_noise": None,
        **privacy,
    }
    value["model"] = {"family": family, "width": 4, "heads": 2, "layers": 1}
    if family in OVER_RECORDS:
        value |= {"sequence": SEQUENCE}
        value["model"]["hidden"] = [4] if family == "network" else []
    return StudyPlan.model_validate(value)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small sums on several threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quieter(study: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> BuiltIn:
    """Noise of four fifths of what is claimed."""
    less = study.privacy.noise_multiplier / 1.25
    privacy = study.privacy.model_copy(update={"noise_multiplier": less})
    return BuiltIn(study.model_copy(update={"privacy": privacy}), rows, noise)


def looser(study: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> BuiltIn:
    """A clip at 1.5 times the norm, and the noise of the norm itself."""
    privacy = study.privacy.model_copy(
        update={
            "clipping_norm": 1.5 * study.privacy.clipping_norm,
            "noise_multiplier": study.privacy.noise_multiplier / 1.5,
        }
    )
    return BuiltIn(study.model_copy(update={"privacy": privacy}), rows, noise)


def centred_records(study: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> BuiltIn:
    """Numbers of records less their mean over patients: each patient enters another's part."""
    assert rows.sequences is not None
    numbers = rows.sequences.numbers
    mixed = replace(rows.sequences, numbers=numbers - numbers.mean(axis=0))
    return BuiltIn(study, replace(rows, sequences=mixed), noise)


def mean_days(study: StudyPlan, rows: CohortRows, noise: NoiseSource | bytes) -> BuiltIn:
    """Times as ranks among the patients."""
    assert rows.days is not None
    ranks = np.argsort(np.argsort(rows.days)) / max(len(rows.days), 1)
    return BuiltIn(study, replace(rows, days=1 + ranks * 299), noise)


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("family", ENDPOINTS)
def test_too_little_noise_and_a_loose_clip_are_found(family: str, seed: int) -> None:
    assert not check_training(plan(family), seed, quieter).passed
    assert not check_training(plan(family), seed, looser).passed


@pytest.mark.parametrize("family", OVER_RECORDS)
def test_models_over_records_do_not_mix_patients(family: str) -> None:
    assert check_independence(plan(family), 1).passed
    assert not check_independence(plan(family), 1, centred_records).passed


def test_times_that_depend_on_other_patients_are_found() -> None:
    assert not check_independence(plan("discrete_hazard"), 1, mean_days).passed
