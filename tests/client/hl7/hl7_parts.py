"""Parts of HL7 v2 messages for tests, and ways to read them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fedtwin_client.records.hl7.events import Hl7Reader
from fedtwin_client.records.hl7.files import hl7_files
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import read_message
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import ImportReport, Place, Tally
from fedtwin_client.records.source import Version
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"s" * 32
PID = "PID|1||4711^^^HOSP^MR||DOE^JANE||19600203|F"
OBR = "OBR|1|P1^EHR|F1^LAB|24331-1^Lipid panel^LN|||20240501080000|||||||||||||||20240501093000|||F"


def msh(kind: str = "ORU^R01^ORU_R01", number: str = "M1", **fields: str) -> str:
    """MSH; `f18="8859/1"` sets MSH-18."""
    parts = ["MSH", "^~\\&", "LAB", "HOSP", "TWIN", "HOSP", "20240501093100", "", kind, number]
    parts += ["P", "2.5.1", *[""] * 9]
    for name, value in fields.items():
        parts[int(name[1:]) - 1] = value
    return "|".join(parts)


def obx(
    value: str,
    kind: str = "NM",
    code: str = "2093-3^Cholesterol^LN",
    unit: str = "mg/dL",
    status: str = "F",
    sub: str = "",
    **fields: str,
) -> str:
    """OBX; `f14="20240501"` sets OBX-14."""
    parts = ["OBX", "1", kind, code, sub, value, unit, "", "", "", "", status, *[""] * 8]
    for name, said in fields.items():
        parts[int(name[1:])] = said
    return "|".join(parts)


def message(*segments: str, end: str = "\r") -> str:
    return "".join(segment + end for segment in segments)


def result(value: str, *args: Any, **kwargs: Any) -> str:
    """A whole ORU with one OBX."""
    return message(msh(), PID, OBR, obx(value, *args, **kwargs))


def read(
    *messages: str | bytes,
    whose: Whose | None = None,
    zone: str = "UTC",
    encoding: str = "utf-8",
    now: datetime = NOW,
) -> tuple[list[Version], Tally]:
    """What one reader makes of messages, and its account."""
    tally = Tally(quarantine=None)
    reading = Reading(source="hl7", zone=ZoneInfo(zone), now=now, tally=tally)
    reader = Hl7Reader(reading, Pseudonyms(SECRET), whose or Whose())
    versions: list[Version] = []
    for item in messages:
        data = item if isinstance(item, bytes) else item.encode()
        versions += reader.read(read_message(data, Place("a.hl7", 1), encoding))
    return versions, tally


def events(versions: list[Version], what: str = "result") -> list[Any]:
    """The events of all records of a sort."""
    wanted = f"hl7:{what}/"
    return [item for one in versions if one.origin.startswith(wanted) for item in one.events]


def load(
    folder: Path, *contents: str | bytes, whose: Whose | None = None, **options: Any
) -> tuple[ImportReport, list[dict[str, Any]]]:
    """Import files into a store; the report and every row."""
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"{number}.hl7")
        files[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    store = folder / "store"
    report = import_source(
        hl7_files(files, "hl7", whose or Whose(), **options),
        store,
        secret=SECRET,
        now=NOW,
        source="hl7",
        zone="UTC",
    )
    return report, Timeline.open(store).events().to_pylist()
