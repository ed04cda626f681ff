"""FHIR lines read as columns are read as single resources are: same events, same account."""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.records import lines as lines_module
from fedtwin_client.records.fhir import blocks as fhir_blocks_module
from fedtwin_client.records.fhir import files as fhir_files_module
from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.lines import holds, read_lines
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.resources import Found
from fedtwin_client.records.source import ReadAgainError

from .fhir_block_lines import (
    BASE,
    FIELDS,
    LINES,
    LOCAL,
    PARTS,
    SHARED,
    agree,
    amid,
    compact,
    observation,
    part,
    pressure,
    run,
    same,
)


@pytest.fixture(autouse=True)
def few_lines_are_read_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests also where that is not worth its while."""
    monkeypatch.setattr(fhir_blocks_module, "_FEWEST_OF_MANY_SHAPES", 1)


def test_plain_lines_do_not_go_through_the_reader_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Found] = []
    whole = FhirReader.read
    monkeypatch.setattr(
        FhirReader, "read", lambda self, found: (read.append(found), whole(self, found))[1]
    )
    for line_of in (compact, json.dumps):
        lines = [line_of(pressure(n) if n % 9 == 0 else observation(n)) for n in range(400)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "o.ndjson"
            file.write_text("\n".join(lines) + "\n")
            read.clear()
            _, events, _ = run([file], "blocks", Path(folder) / "q")
            assert len(events) == 445
            assert len(read) < 20


def test_every_odd_line_is_read_as_if_it_were_alone() -> None:
    odd = [compact(observation(700 + n) | fields) for n, fields in enumerate(FIELDS)]
    odd += [compact(resource) for resource in PARTS]
    account = agree(amid(*odd, plain=3 * len(odd) + 100))
    assert account["aside"]
    agree(amid(*odd, plain=3 * len(odd) + 100), zone="Europe/Zurich", system="urn:mrn")


def test_every_odd_spelling_is_read_as_if_it_were_alone() -> None:
    odd = [*LINES, *(json.dumps(observation(700 + n) | fields) for n, fields in enumerate(FIELDS))]
    account = agree(amid(*odd, plain=3 * len(odd) + 100))
    assert account["reasons"]["not a JSON object"] > 20


@pytest.mark.slow
def test_two_faults_cannot_make_up_for_each_other() -> None:
    for line in LINES:
        agree(amid(line, plain=210))


def test_what_a_modifier_changes_is_put_aside_on_both_ways() -> None:
    reason = "a modifier extension, which may change what it says"
    modified = [{"url": "http://mii.example/haemolysed"}]
    lines = [
        observation(1, modifierExtension=modified),
        pressure(2, part("8480-6", modifierExtension=modified), part("8462-4")),
        pressure(3, modifierExtension=modified),
        *(observation(number, modifierExtension=modified) for number in range(100, 400)),
    ]
    account = agree("\n".join(compact(line) for line in lines).encode())
    assert account["reasons"][reason] == 303
    assert agree(amid(*LINES))["reasons"][reason] >= 2


def test_what_is_nested_too_deeply_is_put_aside_on_both_ways() -> None:
    deep = BASE.replace('"code":{', '"code":{"extension":' + "[" * 300 + "]" * 300 + ",", 1)
    assert agree(amid(deep))["aside"].count('"reason": "not a JSON object"') == 1


def test_local_codes_are_noted_in_the_order_of_the_lines() -> None:
    lines = [compact(observation(n, code=LOCAL)) for n in range(300)]
    lines[1] = compact(observation(1, code=LOCAL, valueQuantity={"value": "x"}))
    lines[2] = "{"
    account = agree("\n".join(lines).encode())
    assert account["notes"]["code of a local vocabulary"] == 299
    assert account["examples"]["code of a local vocabulary"] == [f"o.ndjson:{n}" for n in (1, 2, 4)]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b'\n{"resourceType":"Obs'])
def test_the_end_of_a_file(ending: bytes) -> None:
    agree(amid()[:-1] + ending)
    agree(amid().replace(b"\n", b"\r\n")[:-2] + ending)
    agree(gzip.compress(amid()[:-1] + ending), "o.ndjson.gz")


def test_known_patients_are_met_under_the_number_they_are_known_by() -> None:
    known = {f"fhir:Patient/{n}": Identity("urn:mrn", f"M{n}") for n in range(5)}
    patient = compact({"resourceType": "Patient", "id": "2", "gender": "female"})
    for system in (None, "urn:mrn"):
        account = agree(amid(patient, patient), known=known, system=system)
        assert account["learned" if system is None else "reasons"]


def test_linked_patients_are_one_though_the_link_stands_after_what_refers_to_them() -> None:
    old = {"resourceType": "Patient", "id": "2", "birthDate": "1950-01-02"}
    link = {"other": {"reference": "Patient/3"}, "type": "replaced-by"}
    new = {"resourceType": "Patient", "id": "3", "birthDate": "1950-01-02"}
    lines = amid() + compact(old | {"link": [link]}).encode() + b"\n" + compact(new).encode()
    account = agree(lines)
    assert Identity("fhir", "Patient/3") in account["who"].values()
    assert Identity("fhir", "Patient/2") not in account["who"].values()
    assert account["reasons"] == {
        "a Patient who is one with another; the other's birth, sex and death count": 1
    }


def test_a_link_that_was_not_looked_for_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_STEP", 100)
    link = {"other": {"reference": "Patient/3"}, "type": "replaced-by"}
    alone, linked = (
        {"resourceType": "Patient", "id": "2"} | more for more in ({}, {"link": [link]})
    )
    agree(amid(compact(alone)), may_start_anew=True)
    with pytest.raises(ReadAgainError):
        agree(amid(compact(linked)), may_start_anew=True)
    agree(compact(linked).encode() + b"\n" + amid(), may_start_anew=True)


def test_deletions_among_plain_lines_take_out_what_was_made() -> None:
    entry = {"request": {"method": "DELETE", "url": "Observation/o7"}}
    account = agree(amid(compact({"resourceType": "Bundle", "entry": [entry]})))
    assert account["read"]["deletion"] == 1


def test_a_line_that_is_too_long_is_put_aside_unheld(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "o.ndjson"
    long = BASE[:-1] + ',"x":"' + "y" * 90_000 + '"}'
    file.write_bytes(amid(long, BASE, long, BASE) + long.encode())
    short = {"piece": 2_000, "longest": 4_000}
    for module in (fhir_files_module, __import__("fedtwin_client.records.resources")):
        target = module if module is fhir_files_module else module.records.resources
        monkeypatch.setattr(
            target,
            "read_lines",
            lambda path, told=None, **more: read_lines(path, told, **more, **short),
        )
    account = same([file], tmp_path)
    assert account["reasons"]["a line of more than 16 MiB"] == 3
    assert account["read"]["Observation"] == 242
    pieces = list(read_lines(file, **short))
    assert max(len(lines.data) for lines in pieces) < 40_000
    assert [lines.first for lines in pieces if lines.too_long] == [2, 10, 245]
    pieces = list(read_lines(file, piece=1_000_000, longest=4_000))
    assert [lines.first for lines in pieces] == [1, 2, 3, 10, 11, 245]
    assert [lines.first for lines in pieces if lines.too_long] == [2, 10, 245]


@pytest.mark.parametrize("packed", [False, True])
def test_a_word_is_found_wherever_it_stands(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "_STEP", 10)
    word, file = b'"Patient"', tmp_path / ("o.ndjson.gz" if packed else "o.ndjson")
    write = gzip.compress if packed else bytes
    for before in range(25):
        for after in (0, 1, 12):
            file.write_bytes(write(b"." * before + word + b"." * after))
            assert holds(file, word)
            assert holds(file, b'"')
            file.write_bytes(write(b"." * before + word[:-1] + b"x" * after + word[1:]))
            assert not holds(file, word) or not after


DATA = [
    "fhir_bulk_ndjson/smart10",
    "fhir_bulk_ndjson/pathling9",
    "fhir_bulk_ndjson/cumulus_simple",
    pytest.param("fhir_synthea_r4_shared", marks=pytest.mark.slow),
    "fhir_uscore_examples",
]


@pytest.mark.parametrize("name", DATA)
def test_real_exports_are_read_alike(name: str, tmp_path: Path) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not here")
    account = same([SHARED / name], tmp_path)
    assert sum(account["read"].values()) > 10


def _spoilt(draw: st.DrawFn) -> bytes:
    line = bytearray(compact(draw(st.sampled_from([observation(3), pressure(4)]))).encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(line) - 1))
        length = draw(st.integers(0, 12))
        line[place : place + length] = draw(
            st.one_of(
                st.sampled_from(
                    [b",", b'"', b"}", b"]", b" ", b"1e3", b"NaN", b"null", b"\\", b"{"]
                ),
                st.binary(max_size=4),
                st.just(bytes(line[draw(st.integers(0, len(line))) :][:40])),
            )
        )
    return bytes(line)


NUMBERS = (
    *("262.5", "2e2.5", "-0.50", "00.50", "-00.5", "1.2.3", "+12.5", "12.5e", "..123", "-1234"),
    *("01234", "1e-05", "1E005", "0.000", "-.123", "--123", ".1234", "1234.", "    5", "5    "),
    *("-0.00", "-0000", "0x123", "1_000", "1,234", "[1.5]", '"1.5"', "false", " null", "12 34"),
    *("NaN  ", "1e400", "12345", "00000", "-12.5", "-0.01", "\uff11\uff12", "1.5\x00\x00", "nan.0"),
)


def test_what_fits_a_shape_must_be_a_number() -> None:
    lines = [compact(observation(n)) for n in range(300)]
    odd = [
        BASE.replace('"value":262.5', f'"value":{text}').replace("o900", f"o{400 + n}")
        for n, text in enumerate(NUMBERS)
    ]
    agree("\n".join([*lines, *odd, *lines[:250]]).encode())


def test_what_nothing_is_made_of_may_differ_within_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    def line(number: int, name: str = "", **more: Any) -> str:
        whole = observation(
            1_000 + number,
            identifier=[{"system": "urn:x", "value": f"{number:05d}{name}"}],
            meta={"source": f"#{number:06x}{name}", "lastUpdated": "2024-05-03T00:00:00Z"},
            subject={
                "reference": f"Patient/{number % 7}",
                "display": f"Doe, J. {number:04d}{name}",
            },
            specimen={"reference": f"Specimen/{number:05d}", "display": f"Blood {number:05d}"},
        )
        whole["valueQuantity"]["value"] = 100.125 + number
        return compact(whole | more)

    lines = [line(number) for number in range(300)]
    odd = [line(301, name) for name in ('"', "\\", "é", "\t", "\x7f", "x")]
    odd += [line(302 + number, id=f"o#{number}") for number in range(9)]
    agree("\n".join([*lines, *odd]).encode())
    read: list[Found] = []
    whole = FhirReader.read
    monkeypatch.setattr(
        FhirReader, "read", lambda self, found: (read.append(found), whole(self, found))[1]
    )
    monkeypatch.setattr(fhir_blocks_module.FhirBlocks, "_columns", lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "o.ndjson"
        file.write_text("\n".join(lines))
        run([file], "blocks", Path(folder) / "q")
    assert len(read) < 10


@pytest.mark.parametrize(
    "subject",
    [
        {"identifier": {"system": "urn:mrn", "value": "M1"}, "display": "Doe, J."},
        {"reference": "", "display": "Doe, J."},
        {"reference": "Group/1"},
        {"reference": "Patient/1", "identifier": {"assigner": {"reference": "Organization/1"}}},
    ],
)
def test_whose_lines_of_a_shape_are(subject: dict[str, Any]) -> None:
    lines = [compact(observation(number, subject=subject)) for number in range(240)]
    agree("\n".join(lines).encode())
    agree("\n".join(lines).encode(), system="urn:mrn")


CHANGES = st.tuples(
    st.integers(0, 39), st.integers(0, len(BASE) - 1), st.sampled_from(b'"\\\x00{}[],:x7-.e')
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CHANGES, min_size=1, max_size=12))
def test_a_changed_byte_makes_the_same_on_both_ways(changes: list[tuple[int, int, int]]) -> None:
    lines = [bytearray(BASE.replace("o900", f"o{100 + n}").encode()) for n in range(240)]
    for line, place, byte in changes:
        lines[line][place] = byte
    agree(b"\n".join(map(bytes, lines)) + b"\n")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.composite(_spoilt)(), min_size=15, max_size=15))
def test_spoilt_lines_are_read_alike(lines: list[bytes]) -> None:
    agree(amid(*lines, plain=210))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=40), max_size=20), st.binary(max_size=300))
def test_any_bytes_are_read_alike(lines: list[bytes], end: bytes) -> None:
    agree(amid(*lines, plain=210) + end)
