"""FHIR lines, plain and odd, and the two ways of reading them side by side."""

import json
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedtwin_client.records.blocks import CODED_EVENTS, EVENTS, event_table
from fedtwin_client.records.fhir.files import FhirFiles, fhir_files
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, Version
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHARED = Path(__file__).parents[4] / "shared" / "data"
LOINC = "http://loinc.org"


def observation(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "meta": {"profile": ["http://a.example/b"], "lastUpdated": "2024-05-03T00:00:00Z"},
        "status": "final",
        "category": [{"coding": [{"system": "http://c.example", "code": "laboratory"}]}],
        "code": {
            "coding": [{"system": LOINC, "code": "2093-3", "display": "Chol"}],
            "text": "Chol",
        },
        "subject": {"reference": f"Patient/{number % 7}"},
        "encounter": {"reference": f"Encounter/e{number}"},
        "effectiveDateTime": f"2024-05-01T08:{number % 60:02d}:00+02:00",
        "issued": f"2024-05-01T09:{number % 60:02d}:00.517+02:00",
        "valueQuantity": {"value": 150 + number / 8, "unit": "mg/dL", "code": "mg/dL"},
    } | fields


def part(code: str, value: Any = 120.25, **fields: Any) -> dict[str, Any]:
    quantity = {"value": value, "unit": "mm[Hg]", "system": "http://u.example", "code": "mm[Hg]"}
    return {
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "valueQuantity": quantity,
    } | fields


def pressure(number: int, *parts: Any, **fields: Any) -> dict[str, Any]:
    whole = observation(number, component=list(parts) or [part("8480-6"), part("8462-4", 80)])
    del whole["valueQuantity"]
    return whole | fields


def compact(resource: Any) -> str:
    return json.dumps(resource, separators=(",", ":"), ensure_ascii=False)


def run(
    files: list[Path], how: str, quarantine: Path, **options: Any
) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Versions, events and the account, of one way of reading."""
    tally = Tally(quarantine=quarantine)
    reading = Reading(
        source="fhir", zone=read_zone(options.get("zone", "UTC")), now=NOW, tally=tally
    )
    pseudonyms = Pseudonyms(b"s" * 32)
    desk = Desk(
        reading=reading,
        pseudonyms=pseudonyms,
        known=options.get("known", {}),
        may_start_anew=options.get("may_start_anew", False),
    )
    source = fhir_files(files, "fhir", options.get("system"))(desk)
    assert isinstance(source, FhirFiles)
    versions: list[tuple[int, str, datetime | None]] = []
    events: list[Any] = []
    failed = ""
    try:
        if how == "blocks":
            for block in source.blocks():
                first = len(versions)
                rows = block.versions.sort_by("version").to_pylist()
                assert [row["version"] for row in rows] == list(range(len(rows)))
                versions += [(first + n, r["origin"], r["updated"]) for n, r in enumerate(rows)]
                assert block.events.schema in (EVENTS, CODED_EVENTS)
                events += numbered(block.events, first)
        else:
            for version in source.versions():
                table = event_table((0, event) for event in version.events)
                events += numbered(table, len(versions))
                versions.append((len(versions), version.origin, updated(version)))
    except RecordError as error:
        failed = str(error)
    tally.close()
    account = {
        "failed": failed,
        "read": tally.read,
        "reasons": tally.reasons,
        "notes": tally.notes,
        "examples": tally.examples,
        "learned": dict(source.learned),
        "consents": {origin: asdict(found) for origin, found in source.consents.items()},
        "aside": quarantine.read_text() if quarantine.exists() else "",
        "who": {} if failed else pseudonyms.identities({event["subject_id"] for event in events}),
    }
    key = "version", "source"
    return versions, sorted(events, key=lambda event: [event[name] for name in key]), account


def updated(version: Version) -> int:
    if version.updated is None:
        return 0
    return round((version.updated - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


def numbered(table: pa.Table, first: int) -> list[dict[str, Any]]:
    rows = table.to_pylist()
    # Text, so that 0.0 and -0.0 differ.
    return [
        row | {"version": row["version"] + first, "numeric_value": repr(row["numeric_value"])}
        for row in rows
    ]


def same(files: list[Path], folder: Path, **options: Any) -> dict[str, Any]:
    """Both ways must agree in everything; the account."""
    slow = run(files, "versions", folder / "slow.ndjson", **options)
    fast = run(files, "blocks", folder / "fast.ndjson", **options)
    assert fast[0] == slow[0]
    for one, other in zip(fast[1], slow[1], strict=True):
        assert one == other
    assert fast[2] == slow[2]
    return fast[2]


def amid(*odd: str | bytes, plain: int = 240) -> bytes:
    """Odd lines among plain ones."""
    lines: list[bytes] = []
    for number in range(plain):
        whole = pressure(number) if number % 9 == 0 else observation(number)
        lines.append(compact(whole).encode())
        if number % 3 == 0 and number // 3 < len(odd):
            line = odd[number // 3]
            lines.append(line if isinstance(line, bytes) else line.encode())
    return b"\n".join(lines) + b"\n"


def agree(data: bytes, name: str = "o.ndjson", **options: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(data)
        return same([file], Path(folder), **options)


BASE = compact(observation(900))
LOCAL = {"coding": [{"system": "http://h.example/codes", "code": "X 1"}]}
FIELDS: list[dict[str, Any]] = [
    *({"status": odd} for odd in ("amended", "cancelled", "entered-in-error", 5, None, "", "a#b")),
    *({"id": odd} for odd in (5, "", None, "a#b", "x" * 90, "é", 'a"b', "a\\b", "1.5")),
    *({"subject": odd} for odd in (None, 5, {}, {"reference": 5}, {"reference": "Group/1"})),
    {"subject": {"reference": "http://h.example/fhir/Patient/12/_history/2"}},
    {"subject": {"reference": "urn:uuid:0-1"}},
    {"subject": {"identifier": {"system": "urn:mrn", "value": "M1"}}},
    {"subject": {"reference": "Patient?identifier=urn:mrn|M1"}},
    *({"code": odd} for odd in (None, 5, {}, [], {"coding": {}}, {"coding": [{"code": 5}]}, LOCAL)),
    {"code": {"coding": [LOCAL["coding"][0], {"system": LOINC, "code": "2093-3"}]}},
    {"code": {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.1", "code": "2093-3"}]}},
    {"code": {"coding": [{"system": LOINC + "/", "code": " 2093-3 "}], "x": 1e3}},
    *({"valueQuantity": odd} for odd in (None, 5, {}, [], {"value": None}, {"value": "5"})),
    *({"valueQuantity": {"value": odd, "unit": "mg/dL"}} for odd in (True, [1], {"a": 1}, "<5")),
    *(
        {"valueQuantity": {"value": odd, "unit": "mg/dL"}}
        for odd in (0, -0.0, 1, 5.0, 1e-7, 1e22, 2**63, 10**30, -3.25, 0.1 + 0.2)
    ),
    {"valueQuantity": {"value": 5}},
    {"valueQuantity": {"value": 5, "unit": "  "}},
    {"valueQuantity": {"value": 5, "unit": "furlong"}},
    {"valueQuantity": {"value": 5, "unit": "mmol/L", "code": "mg/dL"}},
    {"valueQuantity": {"value": 5, "unit": "mg/dL", "code": 5}},
    {"valueQuantity": {"value": 5, "unit": "milligrams", "code": "mg/dL", "comparator": "<"}},
    {"valueQuantity": {"value": 5, "unit": "mg/dL", "comparator": "~"}},
    {"valueQuantity": {"value": 5, "unit": "mg/dL", "comparator": ""}},
    {"valueQuantity": {"value": -0.0, "unit": "kg"}, "code": LOCAL},
    {"valueQuantity": {"value": 5, "unit": "kg"}, "code": LOCAL, "valueString": "x"},
    *(
        {"effectiveDateTime": odd}
        for odd in (
            *("2024-05-01", "2024-05", "2024", "", None, 5, "2024-02-30T00:00:00Z", "soon"),
            *("2024-05-01T08:00:60Z", "2024-05-01T24:00:00Z", "2024-05-01T08:00Z", "20240501"),
            *("2024-05-01T08:00:00", "2024-05-01 08:00:00Z", "2024-05-01T08:00:00.1234567Z"),
            *("2024-05-01T08:00:00.123456-11:30", "2024-05-01T08:00:00+0200", "1500-01-01"),
            *("2024-05-01T08:00:00+02:99", "2024-05-01T08:00:00+25:00", "2027-01-01T00:00:00Z"),
            *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2024-05-01T08:00:00z"),
            *("2024-05-01T08:00:00.Z", "2024-05-01T08:00:00,5Z", " 2024-05-01T08:00:00Z"),
            *("2024-05-01T08:00:00-00:00", "1869-12-31T23:59:59Z", "1870-01-01T00:00:00Z"),
            *("\uff12024-05-01T08:00:00Z", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00.000001Z"),
        )
    ),
    *({"issued": odd} for odd in ("", None, 5, "2030-01-01T00:00:00Z", "2024-05", "x")),
    *({"meta": odd} for odd in (None, [], "x", {}, {"lastUpdated": 5}, {"lastUpdated": "x"})),
    {"meta": {"lastUpdated": "2030-01-01T00:00:00Z"}},
    {"meta": {"lastUpdated": "2024-05-01T08:00:00.5Z", "tag": [{"x": 1.0}]}},
    {"component": [part("8480-6")]},
    *({"component": odd} for odd in (None, [], {}, 5, [None], [5])),
    {"note": [{"text": 'it says ","status":"x" and { [ }'}], "extension": [{"valueDecimal": 1e-3}]},
    {"valueInteger": 5},
    {"valueRange": {"low": {"value": 1}, "high": {"value": 2}}},
    {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}},
    *({name: "2024-05-01"} for name in ("valueDateTime", "valueTime", "valuePeriod")),
    {"encounter": None},
    {"value": 1},
    *({"modifierExtension": odd} for odd in ([{"url": "urn:x"}], [], None, 5, {})),
    {"implicitRules": "urn:rules"},
]
PARTS: list[dict[str, Any]] = [
    pressure(901, part("8480-6"), {"code": LOCAL, "valueString": "x"}),
    pressure(902, part("8480-6", "120")),
    pressure(903, part("8480-6"), None),
    pressure(904, part("8480-6"), valueString="x"),
    pressure(905, part("8480-6"), valueFoo="x"),
    pressure(906, part("8480-6"), valueQuantity=None),
    pressure(907, part("8480-6"), dataAbsentReason={"coding": [{"code": "unknown"}]}),
    pressure(908, part("8480-6", valueString="x"), part("8462-4")),
    pressure(909, part("8480-6"), component=[]),
    pressure(912, part("8480-6", valueRange={"low": {"value": 1}}), part("8462-4")),
    pressure(913, {"code": LOCAL, "valuePeriod": {"start": "2024-05-01"}}, part("8462-4")),
    observation(914, valueRange=None) | {"valueQuantity": None},
    pressure(910, part("8480-6", 1e-3), part("8462-4", 5.0)),
    pressure(915, part("8480-6", modifierExtension=[{"url": "urn:x"}]), part("8462-4")),
    pressure(916, modifierExtension=[{"url": "urn:x"}]),
    pressure(911, {"code": LOCAL, "valueQuantity": {"value": 5}}, part("8462-4")),
]
LINES: list[str | bytes] = [
    *("", "   ", "\t", "\r", "\x0b", "5", "[]", "{}", "null", "{", "}", '"x"', "\ufeff" + BASE),
    *(
        BASE[:-1] + tail
        for tail in (",}", ', "status":"amended"}', ',"id":"z"}', "} ", "}x", "}{}")
    ),
    *(BASE[:-1] + ',"x":' + odd + "}" for odd in ("NaN", "nan", "Infinity", "-Infinity", "inf")),
    *(
        BASE[:-1] + ',"x":' + odd + "}"
        for odd in ("1e400", "01", "1.", "+1", "[1,]", '["a",NaN,"b"]')
    ),
    *(
        BASE[:-1] + ',"x":"' + odd + '"}'
        for odd in ("\\ud800", "\\udc00", "\\u0041", "\x01", "\\x")
    ),
    BASE.replace('"status"', '"st\\u0061tus"'),
    BASE.replace('"value":262.5', '"value":2625e-1'),
    BASE.replace('"value":262.5', '"value":262.50'),
    BASE.replace('"value":262.5', '"value":1e3,"x":[1,]'),
    BASE.replace('"value":262.5', '"value":1e400'),
    BASE.replace('"value":262.5', '"value":-0'),
    BASE.replace('"value":262.5', '"value":12345678901234567890123'),
    BASE.replace('"value":262.5', '"value":262.5,"value":1'),
    BASE.replace('"value":262.5', '"value":262.5,"unit":"g/L"'),
    BASE.replace('"id":', '"id":1e3,"id":'),
    BASE.replace('{"reference":"Patient', '{"reference":"Patient/9","reference":"Patient'),
    BASE.replace(",", ",\r"),
    json.dumps(observation(920)),
    json.dumps(pressure(921), indent=None, separators=(" ,", " : ")),
    BASE.encode().replace(b"Chol", b"Ch\xffl"),
    BASE.encode().replace(b"Chol", "Chöl".encode("latin-1")),
    BASE + "\r",
    '{"resourceType":"Observation","x":' + "[" * 2000 + "]" * 2000 + "}",
    BASE[:-1] + ',"x":' + "[" * 1200 + "]" * 1200 + "}",
    BASE[:-1] + ',"x":' + "9" * 5000 + "}",
    *(BASE[:-1] + ',"x":' + "[" * deep + "]" * deep + "}" for deep in (198, 199, 200, 201, 250)),
    *(
        BASE.replace('"code":{', '"code":{"extension":' + "[" * deep + "]" * deep + ",", 1)
        for deep in (196, 197, 198, 199, 200, 201)
    ),
    compact(pressure(922)).replace('"component"', '"v\\u0061lueString":"x","component"'),
    BASE[:-1] + ',"modifier\\u0045xtension":[{"url":"urn:x"}]}',
    BASE[:-1] + ',"modifier\\u0045xtension" : [{"url":"urn:x"}],"x":1e3}',
    BASE[:-1] + ',"im\\u0070licit\\u0052ules":"urn:x","x":1e3}',
    compact(pressure(923)).replace(',"valueQuantity"', ',"valueQuantity":null,"valueQuantity"'),
    compact(
        {"resourceType": "Bundle", "entry": [{"resource": observation(930 + n)} for n in (1, 2)]}
    ),
    compact({"resourceType": "Patient", "id": "3", "birthDate": "1950-01-01", "gender": "male"}),
    compact({"resourceType": "Encounter", "id": "3"}),
    compact(observation(5)),
]
