"""FHIR lines with the same members, of any length: read as columns as they are read one by one."""

import json
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.records.fhir import blocks as fhir_blocks_module
from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.fhir.framed import Frames, are_numbers
from fedtwin_client.records.fhir.frames import NUMBER, WORD
from fedtwin_client.records.resources import Found

from .fhir_block_lines import LOCAL, LOINC, agree, compact, observation, part, pressure, run

UNITS = "http://unitsofmeasure.org"


@pytest.fixture(autouse=True)
def few_lines_are_read_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests also where that is not worth its while."""
    monkeypatch.setattr(fhir_blocks_module, "_FEWEST_OF_MANY_SHAPES", 1)


def rich(number: int, **fields: Any) -> dict[str, Any]:
    """An Observation with what exports hold beside its value; texts differ in length."""
    some = random.Random(number)
    word = "".join(some.choices("abcdefghij äé-/", k=some.randrange(1, 24)))
    low = round(some.uniform(1, 200), some.randrange(4))
    return {
        "resourceType": "Observation",
        "id": f"e{number}.{some.randrange(10 ** some.randrange(1, 9))}",
        "meta": {"versionId": str(some.randrange(2_000)), "lastUpdated": "2024-05-03T00:00:00Z"},
        "text": {
            "status": "generated",
            "div": f'<div xmlns="http://w">{word}\n<p>\t{low}</p></div>',
        },
        "identifier": [{"system": "urn:oid:1.2", "value": f"{some.randrange(10**6)}{word}"}],
        "extension": [{"url": "http://e.example/x", "valueString": word, "valueDecimal": low}],
        "contained": [{"resourceType": "Specimen", "id": "s", "receivedTime": f"2024-05-0{word}"}],
        "status": "final",
        "code": {
            "coding": [
                {"system": LOINC, "code": "2093-3", "display": "Chol"},
                {"system": "urn:oid:1.2.840", "code": f"{number % 5}", "userSelected": True},
            ],
            "text": "Chol",
        },
        "subject": {"reference": f"https://h.example/r4/Patient/{number % 7}", "display": "Doe, J"},
        "encounter": {"reference": f"Encounter/{some.randrange(10**7)}", "display": word},
        "effectiveDateTime": f"2024-05-01T08:{number % 60:02d}:00+02:00",
        "issued": f"2024-05-01T09:{number % 60:02d}:00.51Z",
        "performer": [{"reference": f"Practitioner/{some.randrange(10**5)}", "display": word}],
        "valueQuantity": {
            "value": round(some.uniform(90, 260), some.randrange(5)),
            "unit": "mg/dL",
            "system": UNITS,
            "code": "mg/dL",
        },
        "note": [{"text": word, "time": "2024-05-01"}],
        "referenceRange": [{"low": {"value": low, "unit": "mg/dL"}, "text": f"> {low}"}],
    } | fields


def answered(number: int, **answer: Any) -> dict[str, Any]:
    whole = rich(number, code={"coding": [{"system": LOINC, "code": "94500-6"}], "text": "RNA"})
    del whole["valueQuantity"]
    return whole | answer


def read_singly(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of some lines go through the reader of one."""
    read: list[Found] = []
    whole = FhirReader.read
    with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(fhir_blocks_module.FhirBlocks, "_alike", lambda *_: None)
        patch.setattr(fhir_blocks_module.FhirBlocks, "_columns", lambda *_: None)
        patch.setattr(
            FhirReader, "read", lambda self, found: (read.append(found), whole(self, found))[1]
        )
        file = Path(folder) / "o.ndjson"
        file.write_text("\n".join(lines), encoding="utf-8")
        run([file], "blocks", Path(folder) / "q")
    return len(read)


def escaped(resource: Any) -> str:
    return json.dumps(resource).replace("/", "\\/")


def spaced(resource: Any) -> str:
    return json.dumps(resource, ensure_ascii=False)


@pytest.mark.parametrize("write", [compact, escaped, spaced])
def test_what_exports_hold_beside_values_costs_no_parsing(
    write: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [write(rich(number)) for number in range(300)]
    account = agree("\n".join(lines).encode())
    assert account["read"] == {"Observation": 300}
    agree("\r\n".join(lines).encode())
    assert read_singly(lines, monkeypatch) < 10


ANSWERS: list[dict[str, Any]] = [
    {
        "valueCodeableConcept": {
            "coding": [{"system": "http://snomed.info/sct", "code": "373066001"}]
        }
    },
    {"valueCodeableConcept": {"coding": [{"code": "POS", "display": "Positive"}], "text": "Pos."}},
    {"valueCodeableConcept": {"text": " Positive "}},
    {"valueString": 'see "note"\u00a0/ é'},
    {"valueBoolean": True},
    {"valueInteger": 5},
    {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}},
    {"valueDateTime": "2024-05-01"},
    {"valueTime": "08:00:00"},
    {"valuePeriod": {"start": "2024-05-01", "end": "2024-05-02"}},
    {},
    {"code": LOCAL, "valueString": "x"},
    {"valueString": "x", "component": [{"code": LOCAL, "valueString": "y"}, part("8480-6")]},
]
ODD_ANSWERS: list[dict[str, Any]] = [
    {"code": {"coding": [{"system": LOINC, "code": "2093-3"}]}, "valueInteger": 0},
    {"valueString": " "},
    {"valueCodeableConcept": None},
    {"valueCodeableConcept": {"coding": [{"code": 5}]}},
    {"valueBoolean": 1},
    {"valueRange": {"low": {"value": 1}, "high": {"value": 2}}},
    {"valueSampledData": {"data": "1 2"}},
    {"valueFoo": "x"},
    {"valueDateTime": "soon"},
    {"valueString": "x", "valueInteger": 5},
    {"dataAbsentReason": {"text": "lost"}},
    {"component": [{"code": LOCAL}]},
    {"component": [part("8480-6"), {"code": LOCAL, "dataAbsentReason": {"text": "lost"}}]},
    {"code": {"coding": [{"system": LOINC, "code": "2093-3"}]}, "valueString": "high"},
    {"code": {"text": "x"}, "valueString": "x"},
    {"effectivePeriod": {"start": "2024-05-02", "end": "2024-05-01"}, "valueString": "x"},
    {"effectiveInstant": "2024-05-02T00:00:00Z", "effectiveDateTime": None, "valueString": "x"},
    {"subject": None, "valueString": "x"},
]


def test_answers_of_every_kind_are_read_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ANSWERS:
        lines = [compact(answered(number, **answer)) for number in range(220)]
        agree("\n".join(lines).encode(), zone="Europe/Zurich")
        assert read_singly(lines, monkeypatch) < 10, answer


def test_odd_answers_are_read_as_if_they_were_alone() -> None:
    lines = []
    for number in range(20):
        for kind, answer in enumerate([*ANSWERS, *ODD_ANSWERS]):
            lines.append(compact(answered(100 * number + kind, **answer)))
    account = agree("\n".join(lines).encode(), system="urn:mrn")
    assert account["reasons"]
    account = agree("\n".join(lines).encode())
    assert account["reasons"]["no value was recorded"] >= 40


def test_more_in_a_component_than_its_value_costs_no_parsing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = []
    for number in range(240):
        high = part("8480-6", 120 + number / 8, interpretation=[{"text": "x" * (number % 9)}])
        lines.append(compact(pressure(number, high, part("8462-4", number))))
    agree("\n".join(lines).encode())
    assert read_singly(lines, monkeypatch) < 10


TEXTS: list[bytes] = [
    *(b'a"b\\', b'"\\'),
    *(
        b"",
        b"\\",
        b"\\\\",
        b'\\"',
        b'a\\"',
        b'\\\\"',
        b'"',
        b'"x',
        b'x"',
        b'","x":"y',
        b'":"',
        b":",
    ),
    *(b'","x":"\\', b'\\","x":"y', b"\\x", b"\\u00e9", b"\\u00", b"\\ud83d\\ude00", b"\\ud800"),
    *(b"\\uD8", b"\\n", b"\\/", b"\t", b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc3", b"\xc3\xa9"),
    *(
        b"x" * 5_000,
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"null",
        b'","valueString":"x',
        b'"}],"x":[{"y":"',
    ),
    *(
        b'\\":',
        b'x\\":\\"y',
        b'x\\\\":\\\\"y',
        b'","modifierExtension":"x',
        b"\\u0022",
        b"\r",
        b"\n",
    ),
]


@pytest.mark.parametrize("place", ["div", "identifier", "display", "unit", "id", "time", "last"])
def test_a_text_of_any_kind_in_an_open_place_is_read_as_if_it_were_alone(place: str) -> None:
    lines = [compact(rich(number)).encode() for number in range(240)]
    before, after = {
        "div": (rb'"div":"', rb'"\},"identifier'),
        "identifier": (rb'1\.2","value":"', rb'"\}\],"extension'),
        "display": (rb'"Practitioner/\d+","display":"', rb'"\}\],"valueQuantity'),
        "unit": (rb'"value":[^,]*,"unit":"', rb'","system":"http://unitsofmeasure.org"'),
        "id": (rb'"Observation","id":"', rb'","meta'),
        "time": (rb'"effectiveDateTime":"', rb'","issued'),
        "last": (rb'"mg/dL"\},"text":"', rb'"\}\]\}\Z'),
    }[place]
    found = re.compile(b"(" + before + b")(.*?)(?=" + after + b")", re.DOTALL)
    for number, text in enumerate(TEXTS):
        row = 40 + 3 * number
        lines[row], count = found.subn(lambda match, text=text: match[1] + text, lines[row])  # type: ignore[misc]
        assert count == 1
    agree(b"\n".join(lines) + b"\n")


def test_two_faults_of_a_line_cannot_make_up_for_each_other() -> None:
    lines = [compact(rich(number)) for number in range(240)]
    start, end = '"note":[{"text":"', '","time":"2024-05-01"'
    for row in range(40, 100, 3):
        before, _, after = lines[row].partition(start)
        after = end + after.partition(end)[2]
        extra = before.replace('"versionId":"', '"versionId":"1"')
        lines[row] = extra + start + after[1:]  # one quotation mark too many, one too few
        lines[row + 1] = extra + start + after
        lines[row + 2] = before + start + after[1:]
    account = agree("\n".join(lines).encode())
    assert account["reasons"]["not a JSON object"] == 60


NUMBERS = (
    *("5", "-5", "0", "-0", "0.0", "-0.5", "05", "5.", ".5", "-", "", "--5", "5-", "5.5.5", "1e3"),
    *("+5", "0x5", "5 5", " 5", "5 ", "NaN", "-Infinity", "null", "true", '"5"', "[5]", "1" * 31),
    *(
        "1" * 32,
        "1" * 33,
        "1" * 400,
        "1" * 5_000,
        "0." + "1" * 40,
        "-0." + "3" * 29,
        "5,5",
        "\u0665",
    ),
)


@pytest.mark.parametrize("name", ["valueDecimal", "low", "valueQuantity"])
def test_what_stands_in_a_number_s_place_must_be_one(name: str) -> None:
    lines = [compact(rich(number)) for number in range(240)]
    start = f'"{name}":' if name == "valueDecimal" else f'"{name}":{{"value":'
    for number, text in enumerate(NUMBERS):
        row = 40 + 4 * number
        before, _, after = lines[row].partition(start)
        lines[row] = before + start + text + after[re.search(r"[,}]", after).start() :]  # type: ignore[union-attr]
    agree("\n".join(lines).encode())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0123456789.-e", max_size=WORD), min_size=1, max_size=30))
def test_numbers_are_told_from_other_texts(texts: list[str]) -> None:
    width = max(1, *map(len, texts))
    rows = [list((text + "." * width)[:width].encode()) for text in texts]
    lengths = np.array([len(text) for text in texts], dtype=np.int32)
    found = are_numbers(np.array(rows, dtype=np.uint8), lengths)
    assert found.tolist() == [re.fullmatch(NUMBER, text) is not None for text in texts]


CHANGES = st.tuples(
    st.integers(0, 239), st.integers(0, 1_200), st.sampled_from(b'"\\\x00{}[],:x7-.e\xc3')
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CHANGES, min_size=1, max_size=40), st.booleans())
def test_changed_bytes_make_the_same_on_both_ways(
    changes: list[tuple[int, int, int]], escapes: bool
) -> None:
    write = escaped if escapes else compact
    lines = [bytearray(write(rich(number)).encode()) for number in range(240)]
    for line, place, byte in changes:
        lines[line][place % len(lines[line])] = byte
    agree(b"\n".join(map(bytes, lines)) + b"\n")


def test_few_frames_are_learnt_where_no_two_lines_are_alike() -> None:
    lines = [
        compact(observation(number, **{f"x{number}_{n}": "y" for n in range(number % 40)}))
        for number in range(900)
    ]
    data = "\n".join(lines).encode()
    starts = np.cumsum([0, *(len(line.encode()) + 1 for line in lines)])[:-1]
    lengths = np.array([len(line.encode()) for line in lines])
    found = Frames().read(data, starts, lengths)
    assert len(found.rows) + len(found.left) == len(lines)
    agree(data)
