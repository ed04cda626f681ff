"""Synthetic hospitals with a known truth: FHIR exports to learn from, and what there is to find.

A patient's chance of the endpoint is logistic in the encoded columns of the study plan beside this
file: logit p = intercept of the hospital + sum of coefficient * column. Hospitals differ in who
comes (age, sex, smoking, weight), in how common the disease is, in units and vocabularies, and in
their dirt: missing and impossible values, withdrawn and future entries, a half-written line, a
repeated one. Everything follows from the seed, bit by bit.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin.demo.export import Fates, export_lines
from fedtwin.demo.resources import SMOKING, Habits
from fedtwin_protocol.contract import FeatureContract
from fedtwin_protocol.encoding import encode
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.study import plan_from_yaml

Floats = NDArray[np.float64]
PLAN: Final = Path(__file__).parent / "plans" / "synthetic.yaml"

COEFFICIENTS: Final = {
    "age": 0.70,
    "sex": 0.25,
    "systolic": 0.30,
    "cholesterol": 0.30,
    "hdl_cholesterol": -0.30,
    "hba1c": 0.25,
    "hba1c missing": 0.0,
    "creatinine": 0.10,
    "body_mass_index": 0.08,
    "heart_rate": 0.05,
    "smoking=SNOMED//8517006": 0.25,
    "smoking=SNOMED//449868002": 0.75,
    "diabetes": 0.50,
    "hypertension": 0.20,
    "antihypertensive": 0.10,
    "statin": -0.25,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hospital:
    """Who comes to a hospital, and how it writes.

    Attributes:
        name: the site's name.
        intercept: log odds of the endpoint for a patient at the contract's centres.
        age_years: mean age.
        male: share of men.
        current_smokers: share.
        body_mass_index: mean, kg/m2.
        missing: share of measurements never made.
        habits: units and vocabularies.
    """

    name: str
    intercept: float
    age_years: float
    male: float
    current_smokers: float
    body_mass_index: float
    missing: float
    habits: Habits


_PATTERNS: Final = (
    Hospital(
        name="a", intercept=-2.4, age_years=56, male=0.50, current_smokers=0.18,
        body_mass_index=27, missing=0.05,
        habits=Habits(molar=False, icd=False, pressure_unit="mm[Hg]"),
    ),
    Hospital(
        name="b", intercept=-2.1, age_years=63, male=0.62, current_smokers=0.25,
        body_mass_index=28, missing=0.10,
        habits=Habits(molar=True, icd=True, pressure_unit="mmHg"),
    ),
    Hospital(
        name="c", intercept=-2.7, age_years=49, male=0.45, current_smokers=0.15,
        body_mass_index=26, missing=0.03,
        habits=Habits(molar=True, icd=False, pressure_unit="mm Hg"),
    ),
    Hospital(
        name="d", intercept=-1.5, age_years=60, male=0.70, current_smokers=0.35,
        body_mass_index=29, missing=0.15,
        habits=Habits(molar=False, icd=True, pressure_unit="mmHg"),
    ),
)  # fmt: skip


def hospitals(sites: int) -> tuple[Hospital, ...]:
    """The first so many hospitals, `hospital-a` onwards; after four, the kinds come again.

    Raises:
        ConfigurationError: fewer than 1 or more than 26.
    """
    if not 1 <= sites <= 26:
        raise ConfigurationError(f"expected 1 to 26 synthetic hospitals, got {sites}")
    return tuple(
        replace(_PATTERNS[place % len(_PATTERNS)], name=f"hospital-{chr(ord('a') + place)}")
        for place in range(sites)
    )


def make_hospitals(
    folder: Path, seed: int, patients_per_hospital: int = 800, sites: int = 4
) -> dict[str, Any]:
    """Write every hospital's FHIR export, `<folder>/<hospital>/*.ndjson`, and `truth.json`.

    Args:
        folder: made if it is not there.
        seed: of everything; the same seed writes the same bytes.
        patients_per_hospital: before exclusions.
        sites: how many hospitals.

    Returns:
        What truth.json holds: seed, coefficients by column, and by hospital the intercept, the
        number of patients the study can use, their prevalence, expected AUROC of the true
        probabilities, and the exclusions.

    Raises:
        ConfigurationError: a number is out of range, or the folder cannot be written.
    """
    if not 1 <= patients_per_hospital <= 1_000_000 or seed < 0:
        raise ConfigurationError(
            "expected 1 to 1,000,000 patients in a hospital and a seed of at least 0, got "
            f"{patients_per_hospital} and {seed}"
        )
    contract = plan_from_yaml(PLAN).contract
    truth: dict[str, Any] = {"seed": seed, "coefficients": COEFFICIENTS, "hospitals": {}}
    for place, hospital in enumerate(hospitals(sites)):
        random = np.random.default_rng([seed, place])
        values = draw_values(hospital, patients_per_hospital, random)
        chance = probability(contract, values, hospital.intercept)
        fates = _draw_fates(chance, random)
        _write_lines(folder / hospital.name, export_lines(hospital, values, fates, random))
        truth["hospitals"][hospital.name] = _facts(hospital, chance, fates)
    _write(folder / "truth.json", json.dumps(truth, indent=2, sort_keys=True) + "\n")
    return truth


def draw_values(hospital: Hospital, patients: int, random: np.random.Generator) -> dict[str, Any]:
    """Draw every patient's true values as they would be measured, by the contract's names.

    Measurements are rounded as a laboratory rounds them, so that what is written is what counts.
    """
    age = np.clip(random.normal(hospital.age_years, 11, patients), 31, 89)
    sex = (random.random(patients) < hospital.male).astype(np.float64)
    older = (age - 55) / 10
    mass = np.clip(random.normal(hospital.body_mass_index, 4.5, patients), 16, 55)
    heavy = (mass - 25) / 5
    diabetes = _chance(-2.6 + 0.3 * older + 0.6 * heavy, random)
    hypertension = _chance(-1.2 + 0.6 * older + 0.3 * heavy, random)
    treated = hypertension * (random.random(patients) < 0.7)
    statin = _chance(-2.0 + 0.4 * older + 1.0 * diabetes, random)
    smokers = hospital.current_smokers
    kinds = random.choice(3, patients, p=[0.75 - smokers, 0.25, smokers])
    hdl = 54 - 9 * sex - 3 * heavy + random.normal(0, 11, patients)
    cholesterol = 198 + 4 * older - 35 * statin + random.normal(0, 34, patients)
    sugar = 5.4 + 0.08 * older + 1.6 * diabetes + np.abs(random.normal(0, 0.5, patients))
    creatinine = 0.78 + 0.18 * sex + 0.04 * older + random.normal(0, 0.14, patients)
    pressure = 124 + 5 * older + 14 * hypertension - 8 * treated + random.normal(0, 13, patients)
    rate = random.normal(73, 10, patients)
    return {
        "age": age,
        "sex": sex,
        "systolic": np.clip(pressure, 80, 230).round(),
        "cholesterol": np.clip(cholesterol, 90, 400).round(),
        "hdl_cholesterol": np.clip(hdl, 18, 110).round(),
        "hba1c": np.clip(sugar, 4, 14).round(1),
        "creatinine": np.clip(creatinine, 0.4, 4).round(2),
        "body_mass_index": mass.round(1),
        "heart_rate": np.clip(rate, 42, 130).round(),
        "smoking": [list(SMOKING)[kind] for kind in kinds],
        "diabetes": diabetes,
        "hypertension": hypertension,
        "antihypertensive": treated,
        "statin": statin,
    }


def probability(contract: FeatureContract, values: dict[str, Any], intercept: float) -> Floats:
    """The true probability of the endpoint, (patients,), with every value known.

    Raises:
        ConfigurationError: the plan's columns are not those the truth has coefficients for.
    """
    if set(contract.columns) != set(COEFFICIENTS):
        odd = ", ".join(sorted(set(contract.columns) ^ set(COEFFICIENTS)))
        raise ConfigurationError(f"{PLAN} and the synthetic truth differ in the columns {odd}")
    coefficients = np.array([COEFFICIENTS[column] for column in contract.columns])
    logit: Floats = encode(contract, values).matrix @ coefficients + intercept
    return 1 / (1 + np.exp(-logit))


def expected_auroc(chance: Floats) -> float:
    """The AUROC that the true probabilities reach on average over outcomes drawn from them.

    Sum over pairs of p_i (1 - p_j) [p_i > p_j], half for ties, over the sum without the bracket
    (pairs i != j); no model can rank these patients better.
    """
    ordered = np.sort(chance)
    free = 1 - ordered
    below = np.concatenate([[0.0], np.cumsum(free)[:-1]])
    pairs = ordered.sum() * free.sum() - (ordered * free).sum()
    return float((ordered * below).sum() / pairs) if pairs > 0 else float("nan")


def _draw_fates(chance: Floats, random: np.random.Generator) -> Fates:
    patients = len(chance)
    happens, earlier, lost, late = random.random((4, patients)) < [
        chance,
        np.full(patients, 0.04),
        np.full(patients, 0.04),
        np.full(patients, 0.03),
    ]
    late &= ~happens
    return Fates(happens=happens, earlier=earlier, lost=lost & ~happens & ~late, late=late)


def _facts(hospital: Hospital, chance: Floats, fates: Fates) -> dict[str, Any]:
    usable = ~fates.earlier & ~fates.lost
    return {
        "intercept": hospital.intercept,
        "patients": len(chance),
        "usable": int(usable.sum()),
        "with_endpoint": int(fates.happens[usable].sum()),
        "prevalence": float(fates.happens[usable].mean()) if usable.any() else None,
        "bayes_auroc": expected_auroc(chance[usable]) if usable.sum() > 1 else None,
        "earlier_disease": int(fates.earlier.sum()),
        "lost_to_follow_up": int((fates.lost & ~fates.earlier).sum()),
    }


def _chance(logit: Floats, random: np.random.Generator) -> Floats:
    return (random.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float64)


def _write_lines(folder: Path, files: dict[str, Sequence[str]]) -> None:
    for kind, lines in files.items():
        _write(folder / f"{kind}.ndjson", "\n".join(lines) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
