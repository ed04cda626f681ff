"""Each parser of records under coverage-guided fuzzing; run by test_targets.py, one at a time.

    python sources.py NAME SECONDS FOLDER

Whatever the bytes are, a source yields versions or ends with a RecordError, and events are whole.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import atheris

with atheris.instrument_imports(include=["fedtwin_client.records"]):
    from fedtwin_client.records.fhir.files import fhir_files
    from fedtwin_client.records.genome.gene_reports import gene_reports
    from fedtwin_client.records.genome.vcf import GenomeOptions, variant_files
    from fedtwin_client.records.hl7.files import hl7_files
    from fedtwin_client.records.hl7.patients import Whose
    from fedtwin_client.records.people import People, Person
    from fedtwin_client.records.wearables.apple_health import apple_health_file
    from fedtwin_client.records.wearables.glucose_files import GlucoseOptions, glucose_file
    from fedtwin_client.records.wearables.openmhealth_files import openmhealth_files

from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, OpenSource
from fedtwin_twins.genes.tables import built_in_tables

sys.path.insert(0, str(Path(__file__).parent))
from loop import Target, fuzz

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ONE = People(
    one=Person(patient="1", date="2026-01-01"),
    by_sample={},
    system="mrn",
)
SEEDS = {
    "fhir": b"""{"resourceType":"Observation","id":"1","status":"final","code":{"coding":[{"system":
"http://loinc.org","code":"2093-3"}]},"subject":{"reference":"Patient/1"},"effectiveDateTime":
"2024-05-01","valueQuantity":{"value":5,"unit":"mmol/L"}}""".replace(b"\n", b""),
    "hl7": b"""MSH|^~\\&|LAB|HOSP|NODE|HOSP|20240501093100||ORU^R01|m1|P|2.5
PID|1||1^^^M^MR
OBR|1|o1|f1|2093-3^C^LN|||20240501
OBX|1|NM|2093-3^C^LN||5|mmol/L|||||F
""",
    "openmhealth": b"""{"header":{"schema_id":{"namespace":"omh","name":"heart-rate","version":
"2.0"},"creation_date_time":"2024-05-01T00:00:00Z"},"body":{"heart_rate":{"value":60,"unit":
"beats/min"},"effective_time_frame":{"date_time":"2024-05-01T00:00:00Z"}}}""",
    "glucose": b"id,time,gl\n1,2024-05-01 00:00:00,120\n",
    "apple-health": b"""<?xml version="1.0"?><HealthData>
<Record type="HKQuantityTypeIdentifierHeartRate" unit="count/min" value="60" sourceName="w"
 startDate="2024-05-01 00:00:00 +0000" endDate="2024-05-01 00:00:01 +0000"
 creationDate="2024-05-01 00:00:02 +0000"/></HealthData>""",
    "genome": b"""##fileformat=VCFv4.2
##contig=<ID=chr10,length=133797422>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts
chr10\t94781859\t.\tG\tA\t.\tPASS\t.\tGT\t0/1
""",
    "pharmcat": b"""Gene\tSource Diplotype\tPhenotype
CYP2C19\t*1/*2\tIntermediate Metabolizer
""",
}
ENDINGS = {
    "fhir": "ndjson",
    "hl7": "hl7",
    "openmhealth": "json",
    "glucose": "csv",
    "apple-health": "xml",
    "genome": "vcf",
    "pharmcat": "tsv",
}


def opened(name: str, path: Path) -> OpenSource:
    """The source of a name over one file."""
    kinds: dict[str, Callable[[], OpenSource]] = {
        "fhir": lambda: fhir_files([path], "fhir", None),
        "hl7": lambda: hl7_files([path], "lab", Whose()),
        "openmhealth": lambda: openmhealth_files([path], patient="1"),
        "glucose": lambda: glucose_file(path, GlucoseOptions(unit="mg/dL")),
        "apple-health": lambda: apple_health_file(path, patient="1"),
        "genome": lambda: variant_files([path], ONE, built_in_tables(), GenomeOptions()),
        "pharmcat": lambda: gene_reports([path], ONE, built_in_tables()),
    }
    return kinds[name]()


def read(name: str, path: Path) -> None:
    """Read a file whole, and look at every event."""
    reading = Reading(source="fuzz", zone=ZoneInfo("UTC"), now=NOW, tally=Tally(quarantine=None))
    desk = Desk(reading=reading, pseudonyms=Pseudonyms(b"s" * 32), known={})
    for version in opened(name, path)(desk).versions():
        for event in version.events:
            assert event.code
            assert event.source.startswith(version.origin)
            assert event.time is None or event.time <= NOW
            assert event.numeric_value is None or abs(event.numeric_value) < float("inf")


def of_file(folder: Path, *, name: str) -> Target:
    """Takes bytes as a file of a source."""
    path = folder / f"input.{ENDINGS[name]}"

    def target(data: bytes) -> None:
        path.write_bytes(data)
        read(name, path)

    return target


if __name__ == "__main__":
    fuzz(
        {name: partial(of_file, name=name) for name in SEEDS},
        {name: [seed] for name, seed in SEEDS.items()},
    )
