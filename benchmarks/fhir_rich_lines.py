"""Observations as the exports of Epic and Cerner servers have them, with much beside the value.

About 1,700 bytes a line: several codings, identifiers, references with displays and identifiers, an
interpretation, a reference range with a text, now and then a note; ids, names, numbers and texts of
many lengths. Every fourth is answered by a code, every eighth of these by words.
"""

import json
import random
from pathlib import Path
from typing import Any

_LABS = (
    ("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", 190, 40),
    ("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL", 100, 20),
    ("2947-0", "Sodium [Moles/volume] in Blood", "mmol/L", 140, 4),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 13, 2),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 1, 0.2),
    ("29463-7", "Body weight", "kg", 80, 14),
)
_NAMES = (
    "Smith, Ann",
    "García-López, Maximilian",
    "Li, Jo",
    "Van der Berg, Beatrice",
    "Müller, Eve",
)
_VISITS = ("Office Visit", "Hospital Encounter", "Lab")
_FOUND = (("260385009", "Negative"), ("10828004", "Positive"), ("419984006", "Inconclusive"))
_SIGNS = (("N", "Normal"), ("H", "High"), ("L", "Low"))


def export_rich(file: Path, observations: int, seed: int = 1) -> None:
    """Write Observations of many patients."""
    chance = random.Random(seed)
    patients = [(_id(chance), chance.choice(_NAMES)) for _ in range(observations // 100)]
    with file.open("w", encoding="utf-8") as stream:
        for number in range(observations):
            line = _observation(chance, number, *patients[chance.randrange(len(patients))])
            stream.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")


def _observation(chance: random.Random, number: int, patient: str, name: str) -> dict[str, Any]:
    lab = chance.choice(_LABS)
    day = f"20{chance.randrange(10, 25)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
    time = f"{day}T{chance.randrange(24):02}:{chance.randrange(60):02}:00Z"
    rich = {
        "resourceType": "Observation",
        "id": _id(chance),
        "meta": {"versionId": _digits(chance, 3), "lastUpdated": time},
        "identifier": [
            {"use": "official", "system": "urn:oid:1.2.840", "value": _digits(chance, 8)}
        ],
        "basedOn": [{"reference": f"ServiceRequest/{_id(chance)}", "display": lab[1]}],
        "status": "final",
        "category": [_concept("laboratory", "Laboratory", "http://h.example/category")],
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": lab[0], "display": lab[1]},
                {"system": "urn:oid:1.2.840.114350", "code": lab[0][:4], "userSelected": True},
            ],
            "text": lab[1],
        },
        "subject": {"reference": f"Patient/{patient}", "display": name},
        "encounter": {
            "reference": f"Encounter/{_id(chance)}",
            "identifier": {"use": "usual", "value": _digits(chance, 7)},
            "display": chance.choice(_VISITS),
        },
        "effectiveDateTime": time,
        "issued": time,
        "performer": [
            {"reference": f"Practitioner/{_id(chance)}", "display": chance.choice(_NAMES)}
        ],
        "specimen": {"reference": f"Specimen/{_id(chance)}", "display": _digits(chance, 9)},
    }
    if number % 4 == 3:
        code, text = chance.choice(_FOUND)
        rich["code"] = _concept("94500-6", "SARS-CoV-2 RNA", "http://loinc.org")
        answer = _concept(code, text, "http://snomed.info/sct")
        return rich | (
            {"valueString": text} if number % 32 == 3 else {"valueCodeableConcept": answer}
        )
    return rich | _measured(chance, *lab[2:])


def _measured(chance: random.Random, unit: str, centre: float, spread: float) -> dict[str, Any]:
    low, high = round(centre - 2 * spread, 1), round(centre + 2 * spread, 1)
    value = round(abs(chance.gauss(centre, spread)) + 0.1, chance.randrange(1, 4))
    quantity = {"unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    beside: dict[str, Any] = {
        "valueQuantity": {"value": value, **quantity},
        "interpretation": [_concept(*chance.choice(_SIGNS), "http://h.example/interpretation")],
    }
    if chance.random() < 0.2:
        beside["note"] = [{"text": "Repeated on a second instrument. " * chance.randrange(1, 4)}]
    bounds = {"low": {"value": low, "unit": unit}, "high": {"value": high, "unit": unit}}
    return beside | {"referenceRange": [bounds | {"text": f"{low} - {high} {unit}"}]}


def _concept(code: str, name: str, system: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": name}], "text": name}


def _id(chance: random.Random) -> str:
    """As the servers of Epic make them, of several lengths."""
    return "e" + "".join(
        chance.choices("abcdefghijkLMNOPQRSTUVW0123456789-.", k=chance.choice((22, 23, 43)))
    )


def _digits(chance: random.Random, most: int) -> str:
    return str(chance.randrange(10 ** chance.randrange(1, most + 1)))
