"""FHIR R4 resources of synthetic patients, as a hospital's bulk export would write them.

Two habits of hospitals are told apart, because a study must survive both: laboratory units (mg/dL
and % here, mmol/L and mmol/mol there) and diagnoses (SNOMED here, ICD-10-CM there).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

Resource = dict[str, Any]

_LOINC: Final = "http://loinc.org"
_SNOMED: Final = "http://snomed.info/sct"
_ICD10: Final = "http://hl7.org/fhir/sid/icd-10-cm"
_RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"
_UCUM: Final = "http://unitsofmeasure.org"

DIAGNOSES: Final = {
    "diabetes": ("44054006", "E11.9", "Type 2 diabetes mellitus"),
    "hypertension": ("59621000", "I10", "Essential hypertension"),
    "coronary disease": ("53741008", "I25.10", "Coronary arteriosclerosis"),
    "myocardial infarction": ("22298006", "I21.9", "Myocardial infarction"),
}
DRUGS: Final = {
    "lisinopril": ("314076", "lisinopril 10 MG Oral Tablet"),
    "amlodipine": ("197361", "amlodipine 5 MG Oral Tablet"),
    "simvastatin": ("312961", "simvastatin 20 MG Oral Tablet"),
    "atorvastatin": ("259255", "atorvastatin 80 MG Oral Tablet"),
}
MEASUREMENTS: Final = {
    "cholesterol": ("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma"),
    "hdl_cholesterol": ("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma"),
    "hba1c": ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"),
    "creatinine": ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma"),
    "body_mass_index": ("39156-5", "Body mass index (BMI) [Ratio]"),
    "heart_rate": ("8867-4", "Heart rate"),
}
SMOKING: Final = {
    "SNOMED//266919005": "Never smoked tobacco",
    "SNOMED//8517006": "Ex-smoker",
    "SNOMED//449868002": "Smokes tobacco daily",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """How one hospital writes things down.

    Attributes:
        molar: cholesterol in mmol/L, creatinine in umol/L, HbA1c in mmol/mol.
        icd: diagnoses in ICD-10-CM instead of SNOMED.
        pressure_unit: how its devices spell mm[Hg].
    """

    molar: bool
    icd: bool
    pressure_unit: str


_CONVENTIONAL: Final = {
    "cholesterol": ("mg/dL", 1.0, 0.0, 0),
    "hdl_cholesterol": ("mg/dL", 1.0, 0.0, 0),
    "hba1c": ("%", 1.0, 0.0, 1),
    "creatinine": ("mg/dL", 1.0, 0.0, 2),
    "body_mass_index": ("kg/m2", 1.0, 0.0, 1),
    "heart_rate": ("/min", 1.0, 0.0, 0),
}
_MOLAR: Final = {
    **_CONVENTIONAL,
    "cholesterol": ("mmol/L", 1 / 38.665, 0.0, 2),
    "hdl_cholesterol": ("mmol/L", 1 / 38.665, 0.0, 2),
    "hba1c": ("mmol/mol", 1 / 0.09148, -2.152 / 0.09148, 0),
    "creatinine": ("umol/L", 88.4, 0.0, 0),
}


def patient(number: str, *, male: bool, born: date) -> Resource:
    """A Patient."""
    return {
        "resourceType": "Patient",
        "id": number,
        "gender": "male" if male else "female",
        "birthDate": born.isoformat(),
    }


def measurement(
    number: str, who: str, name: str, value: float, *, day: date, habits: Habits
) -> Resource:
    """An Observation of one number; `value` in conventional units, written as the hospital does."""
    unit, factor, offset, digits = (_MOLAR if habits.molar else _CONVENTIONAL)[name]
    written = round(factor * value + offset, digits)
    code, display = MEASUREMENTS[name]
    return {
        **_observation(number, who, code, display, day),
        "valueQuantity": {"value": written, "unit": unit, "system": _UCUM, "code": unit},
    }


def blood_pressure(
    number: str, who: str, systolic: float, diastolic: float, *, day: date, habits: Habits
) -> Resource:
    """A blood pressure panel with its two components."""
    unit = habits.pressure_unit
    components = (
        ("8480-6", "Systolic blood pressure", systolic),
        ("8462-4", "Diastolic blood pressure", diastolic),
    )
    return {
        **_observation(number, who, "85354-9", "Blood pressure panel", day),
        "component": [
            {
                "code": _concept(_LOINC, code, display),
                "valueQuantity": {"value": round(value), "unit": unit},
            }
            for code, display, value in components
        ],
    }


def smoking_status(number: str, who: str, category: str, *, day: date) -> Resource:
    """An Observation of the smoking status; `category` as in the plan."""
    code = category.partition("//")[2]
    return {
        **_observation(number, who, "72166-2", "Tobacco smoking status", day),
        "valueCodeableConcept": _concept(_SNOMED, code, SMOKING[category]),
    }


def health_check(number: str, who: str, *, day: date) -> Resource:
    """The event that is the study's index date."""
    checked = _observation(number, who, "162673000", "General examination of patient", day)
    checked["code"] = _concept(_SNOMED, "162673000", "General examination of patient (procedure)")
    return {**checked, "valueBoolean": True}


def condition(number: str, who: str, name: str, *, day: date, habits: Habits) -> Resource:
    """A diagnosis, known three days after its onset at the latest."""
    snomed, icd, display = DIAGNOSES[name]
    coded = _concept(_ICD10, icd, display) if habits.icd else _concept(_SNOMED, snomed, display)
    status = "http://terminology.hl7.org/CodeSystem/condition-"
    return {
        "resourceType": "Condition",
        "id": number,
        "clinicalStatus": _concept(f"{status}clinical", "active", "Active"),
        "verificationStatus": _concept(f"{status}ver-status", "confirmed", "Confirmed"),
        "code": coded,
        "subject": {"reference": f"Patient/{who}"},
        "onsetDateTime": day.isoformat(),
        "recordedDate": (day + timedelta(days=3)).isoformat(),
    }


def prescription(number: str, who: str, name: str, *, day: date) -> Resource:
    """A MedicationRequest."""
    code, display = DRUGS[name]
    return {
        "resourceType": "MedicationRequest",
        "id": number,
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": _concept(_RXNORM, code, display),
        "subject": {"reference": f"Patient/{who}"},
        "authoredOn": day.isoformat(),
    }


def _observation(number: str, who: str, code: str, display: str, day: date) -> Resource:
    return {
        "resourceType": "Observation",
        "id": number,
        "status": "final",
        "code": _concept(_LOINC, code, display),
        "subject": {"reference": f"Patient/{who}"},
        "effectiveDateTime": f"{day.isoformat()}T08:00:00Z",
        "issued": f"{day.isoformat()}T08:30:00Z",
    }


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}]}
