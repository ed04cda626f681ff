"""An import of FHIR NDJSON into encrypted timelines, beside the bare parse of the same file.

A million Observations as Synthea writes them, of about 850 bytes: laboratory values, every tenth a
blood pressure of two components; some lines cut off, some values without a unit or as text, some
with a comparator. Everything is included: strict checks, units, pseudonyms, quarantine, sorted
buckets, encryption. Peer: simdjson parses every line and looks at nothing. A process each, one
thread, CPU seconds of the work itself.

A second file is harder: lines with much beside the value, and texts of many lengths
(`fhir_rich_lines`).

Whoever else uses the machine slows both, one turn more than the next. So both run in turns, and of
each the quickest counts.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from as_installed import without_pandas
from fhir_rich_lines import export_rich
from figures import Figure

OBSERVATIONS = 1_000_000
RICH = 300_000
TURNS = 3
LABS = (
    ("2093-3", "Total Cholesterol", "mg/dL"),
    ("2339-0", "Glucose", "mg/dL"),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%"),
    ("8302-2", "Body Height", "cm"),
    ("29463-7", "Body Weight", "kg"),
    ("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL"),
    ("2947-0", "Sodium", "mmol/L"),
)


def measure(options: argparse.Namespace) -> list[Figure]:
    """CPU over the bare parse, of both files, and peak memory at one and at two millions."""
    del options
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, other = folder / "one.ndjson", folder / "two.ndjson"
        export(file, OBSERVATIONS)
        turns = [(_run("parse", file), _run("load", file)) for _ in range(TURNS)]
        export(other, OBSERVATIONS, seed=2)
        two = _run("load", file, other)
        export_rich(file, RICH)
        rich = [(_run("parse", file), _run("load", file)) for _ in range(TURNS)]
    print(f"fhir import: parse, one million {turns}, two millions {two}", file=sys.stderr)
    print(f"fhir import: parse, {RICH} rich lines {rich}", file=sys.stderr)
    return [
        Figure(
            id="fhir-ingest-over-parse",
            value=_ratio(turns),
            unit="x simdjson, CPU",
            baseline=1,
            goal=6,
        ),
        Figure(
            id="fhir-ingest-harder-over-parse",
            value=_ratio(rich),
            unit="x simdjson, CPU",
            baseline=1,
            goal=6,
        ),
        Figure(
            id="fhir-ingest-peak-mb",
            value=round(two["mb"]),
            unit="MB at twice the input",
            baseline=round(max(one["mb"] for _, one in turns)),
            goal=400,
        ),
    ]


def _ratio(turns: list[tuple[dict[str, float], dict[str, float]]]) -> float:
    parse, load_ = (min(found["cpu"] for found in kind) for kind in zip(*turns, strict=True))
    return round(load_ / parse, 2)


def export(file: Path, observations: int, seed: int = 1) -> None:
    """Write Observations; those of another seed are others, of other patients."""
    chance = random.Random(seed)
    patients = [_uuid(chance) for _ in range(observations // 100)]
    with file.open("w") as stream:
        for number in range(observations):
            _write(stream, chance, number, patients[chance.randrange(len(patients))])


def _write(stream: TextIO, chance: random.Random, number: int, patient: str) -> None:
    resource_ = _observation(chance, patient)
    if number % 10 == 0:
        resource_["code"] = _concept("85354-9", "Blood Pressure")
        resource_["component"] = [
            _part(chance, "8462-4", "Diastolic Blood Pressure", 80),
            _part(chance, "8480-6", "Systolic Blood Pressure", 120),
        ]
    else:
        code, name, unit = LABS[chance.randrange(len(LABS))]
        resource_["code"] = _concept(code, name)
        resource_["valueQuantity"] = _quantity(round(chance.gauss(100, 20), 4), unit)
        if number % 1_000 == 1:
            del resource_["valueQuantity"]["unit"], resource_["valueQuantity"]["code"]
        if number % 1_000 == 2:
            resource_["valueQuantity"]["value"] = "<5"
        if number % 100 == 3:
            resource_["valueQuantity"]["comparator"] = "<"
    text = json.dumps(resource_, separators=(",", ":"))
    stream.write((text[:300] if number % 5_000 == 7 else text) + "\n")


def _observation(chance: random.Random, patient: str) -> dict[str, Any]:
    day = f"20{chance.randrange(10, 25)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
    clock = f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}"
    category = _concept("laboratory", "laboratory")
    category["coding"][0]["system"] = "http://terminology.hl7.org/CodeSystem/observation-category"
    profile = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"
    return {
        "resourceType": "Observation",
        "id": _uuid(chance),
        "meta": {"profile": [profile]},
        "status": "final",
        "category": [category],
        "subject": {"reference": f"Patient/{patient}"},
        "encounter": {"reference": f"Encounter/{_uuid(chance)}"},
        "effectiveDateTime": f"{day}T{clock}+01:00",
        "issued": f"{day}T{clock}.517+01:00",
    }


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128)))


def _concept(code: str, name: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code, "display": name}], "text": name}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def _part(chance: random.Random, code: str, name: str, centre: float) -> dict[str, Any]:
    value = round(chance.gauss(centre, 9), 3)
    return {"code": _concept(code, name), "valueQuantity": _quantity(value, "mm[Hg]")}


def _run(what: str, *files: Path) -> dict[str, float]:
    command = [sys.executable, __file__, what, *map(str, files)]
    threads = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | threads
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def parse(file: Path) -> dict[str, float]:
    """Every line of a file through simdjson."""
    import simdjson

    parser, bad = simdjson.Parser(), 0
    began = time.process_time()
    with file.open("rb") as stream:
        for line in stream:
            try:
                parser.parse(line)
            except ValueError:
                bad += 1
    return {"cpu": time.process_time() - began, "bad": bad}


def load(*files: Path) -> dict[str, float]:
    """The import of a node whose files are encrypted."""
    without_pandas()
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.sealing import make_keys
    from fedtwin_client.store.imports import import_fhir

    with tempfile.TemporaryDirectory() as name:
        home = NodeHome(folder=Path(name) / "node")
        home.folder.mkdir()
        home.settings_file.write_text("consortium: demo\nsite: aal\ncoordinator: here:1\n")
        make_keys(home)
        now = datetime(2026, 3, 1, tzinfo=UTC)
        began = time.process_time()
        report = import_fhir(files, home.records, secret=b"s" * 32, now=now)
        spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": spent, "mb": peak, "events": report.events, "unused": report.unused}


if __name__ == "__main__":
    print(json.dumps({"parse": parse, "load": load}[sys.argv[1]](*map(Path, sys.argv[2:]))))
