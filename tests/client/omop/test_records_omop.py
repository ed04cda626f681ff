"""What the rows of an OMOP database become: codes, values, units, times, persons."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fedtwin_client.records.blocks import event_table
from fedtwin_client.records.events import Event
from fedtwin_client.records.omop.batches import NO_END
from fedtwin_client.records.omop.codes import (
    NO_CONCEPT,
    NOT_IN_CONCEPT,
    NOT_STANDARD,
    SOURCE_CONCEPT,
    Concept,
    Concepts,
    Said,
)
from fedtwin_client.records.omop.rows import SOURCE_BOUND
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import Tally
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from .omop_cdm import CONCEPTS, NOW, SECRET, Tables, as_csv, clinical, read, said, small, source_at

ONE = pseudonym(SECRET, Identity("omop", "1"))


def changed(tmp_path: Path, table: str, *rows: dict[str, Any], **wishes: Any) -> Any:
    """The small database with other rows in one table."""
    return read(as_csv(tmp_path / "cdm", {**small(), table: list(rows)}), **wishes)


def test_every_table_makes_its_events(tmp_path: Path) -> None:
    events, tally = read(as_csv(tmp_path, small()))
    assert {event.source: event.code for event in events} == {
        "omop:condition_occurrence#1": "SNOMED//38341003",
        "omop:death#2": "MEDS_DEATH",
        "omop:device_exposure#1": "SNOMED//38341003",
        "omop:drug_exposure#1": "RXNORM//36567",
        "omop:measurement#1": "LOINC//2093-3",
        "omop:observation#1": "LOINC//99999-9",
        "omop:person#1/birth": "MEDS_BIRTH",
        "omop:person#1/sex": "SEX",
        "omop:person#2/birth": "MEDS_BIRTH",
        "omop:person#2/sex": "SEX",
        "omop:procedure_occurrence#1": "SNOMED//38341003",
        "omop:visit_occurrence#1": "VISIT_START//IP",
        "omop:visit_occurrence#1/end": "VISIT_END//IP",
    }
    assert said(events, "person#1/sex").text_value == "female"
    assert said(events, "person#1/birth").time == datetime(1950, 6, 7, tzinfo=UTC)
    assert said(events, "death#2").time == datetime(2024, 5, 1, 23, 59, 59, tzinfo=UTC)
    assert said(events, "visit_occurrence#1/end").text_value == "PoS//99"
    assert said(events, "observation#1").text_value == "often"
    assert {event.subject_id for event in events if "#1" in event.source} == {ONE}
    assert tally.reasons == {}
    assert tally.notes == {"birth known only to the year": 1}


VALUES: list[tuple[dict[str, Any], float, str | None, str | None]] = [
    ({"concept": 3027114, "number": 200, "unit": 8840}, 5.17244946516, "mmol/L", None),
    ({"concept": 3027114, "number": 5.2, "unit_text": "mmol/l"}, 5.2, "mmol/L", None),
    ({"concept": 3020891, "number": 100.4, "unit": 9289}, 38.0, "Cel", None),
    (
        {"concept": 3004249, "number": 120, "unit": 8876, "unit_text": "mmHg"},
        120,
        "mm[Hg]",
        None,
    ),
    ({"concept": 3004249, "number": 120, "unit": 0, "unit_text": "mmHg"}, 120, "mm[Hg]", None),
    ({"concept": 3000001, "number": "1e3", "unit_text": "odd"}, 1000, "odd", None),
    ({"concept": 3000001, "number": 7, "operator": 4171754}, 7, None, "<="),
    ({"concept": 3000001, "number": 7, "operator": 4171755}, 7, None, ">="),
    ({"concept": 3000001, "number": 7, "operator": 4171756}, 7, None, "<"),
    ({"concept": 3000001, "number": 7, "operator": 4172704}, 7, None, ">"),
    ({"concept": 3000001, "number": 7, "operator": 4172703}, 7, None, None),
    ({"concept": 3000001, "number": 7, "source_text": "< 7.0"}, 7, None, "<"),
    ({"concept": 3000001, "number": 7, "operator": 0, "source_text": ">=7"}, 7, None, ">="),
    ({"concept": 3000001, "number": 7, "operator": 4172703, "source_text": "<7"}, 7, None, None),
    ({"concept": 3000001, "number": 7, "operator": 4172704, "source_text": "<7"}, 7, None, ">"),
    ({"concept": 3000001, "number": 7, "source_text": "<8"}, 7, None, None),
    ({"concept": 3000001, "number": 7, "source_text": "<7 or so"}, 7, None, None),
    ({"concept": 3000001, "answer": 45877994}, 1.0, None, None),
]
UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"number": 200}, "no unit for total cholesterol, which is kept in mmol/L"),
    ({"number": 200, "unit_text": "drops"}, "unit 'drops' is not known for total cholesterol"),
    (
        {"number": 2, "unit": 8876},
        "unit 'mm[Hg]' does not fit total cholesterol, kept in mmol/L",
    ),
    (
        {"number": 2, "unit": 8840, "unit_text": "mmol/L"},
        "the unit's concept and the unit's source value differ",
    ),
    ({"number": "5,4", "unit": 8840}, "expected a number, found text"),
    ({"number": "1e400", "unit": 8840}, "expected a finite number"),
    ({"source_text": "positive"}, "expected a number, found text"),
    ({"number": 2, "unit": 8840, "operator": 12}, "a comparator that is not known"),
    ({"number": 2, "unit": 8840, "date": "2026-03-02"}, "lies in the future"),
    ({"number": 2, "unit": 8840, "date": "1023-03-02"}, "lies before 1870"),
    ({"number": 2, "unit": 8840, "date": "02.03.2024"}, "a time that cannot be read"),
    ({"number": 2, "unit": 8840, "date": "2024-02-30"}, "a time that cannot be read"),
    (
        {"number": 2, "unit": 8840, "datetime": "2024-01-02 25:00:00"},
        "a time that cannot be read",
    ),
    ({"number": 2, "unit": 8840, "date": None}, "no time"),
    ({"number": 2, "unit": 8840, "person": 99}, "refers to a person that is not known"),
    ({"number": 2, "unit": 8840, "person": None}, "no patient"),
    ({"concept": 0}, "no code"),
    (
        {"concept": 0, "source_value": "x" * 200},
        "no concept, and a source value that is too long for a code",
    ),
    ({"number": 2, "id": None}, "a measurement_id that is no whole number"),
    ({"number": 2, "id": "7a"}, "a measurement_id that is no whole number"),
    ({"number": 2, "id": "9" * 30}, "a measurement_id that is no whole number"),
    ({"number": 2, "id": str(2**63)}, "a measurement_id that is no whole number"),
]
CODES: list[tuple[dict[str, Any], str, str | None]] = [
    ({"concept": 316866}, "SNOMED//38341003", None),
    ({"concept": "316866.0"}, "SNOMED//38341003", None),
    ({"concept": 45591453}, "ICD10//I10", NOT_STANDARD),
    (
        {"concept": 0, "source_concept": 45591453, "source_value": "I10"},
        "ICD10//I10",
        SOURCE_CONCEPT,
    ),
    (
        {"concept": 0, "source_concept": 0, "source_value": "high  BP"},
        "LOCAL//high_BP",
        NO_CONCEPT,
    ),
    (
        {"concept": None, "source_value": "NA"},
        "LOCAL//NA",
        NO_CONCEPT,
    ),
    ({"concept": 77, "source_value": "I10"}, "LOCAL//I10", NOT_IN_CONCEPT),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Event], dict[int, str]]:
    """One database of all cases: the events by source, and why a key's row was put aside."""
    folder, tables = tmp_path_factory.mktemp("cases"), small()
    tables["measurement"] = [
        clinical("measurement", **{"id": number, **cells})
        for number, (cells, *_) in enumerate(VALUES, start=1)
    ]
    tables["measurement"] += [
        clinical("measurement", **{"concept": 3027114, "id": number, **cells})
        for number, (cells, _) in enumerate(UNUSABLE, start=1001)
    ]
    tables["condition_occurrence"] = [
        clinical("condition_occurrence", id=number, **cells)
        for number, (cells, *_) in enumerate(CODES, start=1)
    ]
    tally = Tally(quarantine=folder / "quarantine.ndjson")
    events, _ = read(as_csv(folder / "cdm", tables), tally=tally)
    tally.close()
    lines = [json.loads(line) for line in (folder / "quarantine.ndjson").read_text().splitlines()]
    assert {line["file"] for line in lines} == {"measurement"}
    assert len(lines) == sum(tally.reasons.values()) == len(UNUSABLE)
    return {event.source: event for event in events}, {
        line["line"]: line["reason"] for line in lines
    }


@pytest.mark.parametrize("number", range(1, len(VALUES) + 1))
def test_values_and_units(cases: Any, number: int) -> None:
    _, value, unit, comparator = VALUES[number - 1]
    event = cases[0][f"omop:measurement#{number}"]
    assert event.numeric_value == pytest.approx(value, rel=1e-10)
    assert (event.unit, event.comparator) == (unit, comparator)
    assert number not in cases[1]


def test_a_comparator_of_the_source_alone_is_counted(tmp_path: Path) -> None:
    cells = {"concept": 3000001, "number": 7, "source_text": "<7"}
    rows = [clinical("measurement", id=1, **cells), clinical("measurement", id=2, **cells)]
    _, tally = changed(tmp_path, "measurement", *rows)
    assert tally.notes[SOURCE_BOUND] == 2


@pytest.mark.parametrize("number", range(1001, len(UNUSABLE) + 1001))
def test_what_cannot_be_used_is_put_aside(cases: Any, number: int) -> None:
    cells, reason = UNUSABLE[number - 1001]
    assert cases[1][0 if "id" in cells else number] == reason
    assert f"omop:measurement#{number}" not in cases[0]


def test_keys_that_are_hashes_of_64_bits(tmp_path: Path) -> None:
    """The OMOP form of MIMIC-IV has such keys, of either sign."""
    keys = [2**63 - 1, 2**63 - 2, -(2**63) + 1, -5125217939183082257]
    tables = small()
    tables["measurement"] = [
        clinical("measurement", id=key, concept=3000001, number=number)
        for number, key in enumerate(keys)
    ]
    events, tally = read(as_csv(tmp_path / "cdm", tables))
    assert not tally.reasons
    found = {event.source: event.numeric_value for event in events}
    assert [found[f"omop:measurement#{key}"] for key in keys] == [0, 1, 2, 3]


@pytest.mark.parametrize("number", range(1, len(CODES) + 1))
def test_codes(cases: Any, number: int) -> None:
    assert cases[0][f"omop:condition_occurrence#{number}"].code == CODES[number - 1][1]


@pytest.mark.parametrize(("cells", "code", "note"), CODES)
def test_notes_of_codes(cells: dict[str, Any], code: str, note: str | None) -> None:
    concepts = {
        str(row["concept_id"]): Concept(
            str(row["vocabulary_id"]), str(row["concept_code"]), row["standard_concept"] == "S"
        )
        for row in CONCEPTS
    }
    empty = dict.fromkeys(Said._fields)
    texts = {
        name: None if cell is None else str(cell).removesuffix(".0") for name, cell in cells.items()
    }
    found = Concepts(concepts).understand(Said(**{**empty, **texts}))
    assert found.code == code
    assert found.notes[:1] == (() if note is None else (note,))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Zurich", "America/New_York"])
def test_times(tmp_path: Path, zone: str) -> None:
    """Those written plainly are read all at once, the others one by one, to the same result."""
    days = ["2024-01-02", "2024-03-31", "2024-10-27", "2024-11-03", "2024-03-10", "1900-02-01"]
    clocks = ["00:30:00", "02:15:00.5", "08:00:01", "23:59:59"]
    exact = [f"{day} {clock}" for day in days for clock in clocks]
    odd = [text.replace(" ", "T") + "+02:00" for text in exact[:4]] + ["2024-01-02 10:30:00+02"]
    rows = [
        clinical("condition_occurrence", concept=316866, id=number, date=text[:10], datetime=text)
        for number, text in enumerate([*exact, *odd], start=1)
    ]
    events, tally = changed(tmp_path, "condition_occurrence", *rows, zone=zone)
    assert tally.reasons == {}
    for number, text in enumerate([*exact, *odd], start=1):
        event = said(events, f"condition_occurrence#{number}")
        written = datetime.fromisoformat(text)
        local = written if written.tzinfo else written.replace(tzinfo=ZoneInfo(zone))
        if local.astimezone(ZoneInfo(zone)).time() != datetime.min.time():
            assert event.time == event.available_time == local.astimezone(UTC), text


def test_dates(tmp_path: Path) -> None:
    """A date alone was known by the end of its day, or when it was imported."""
    written = [("2024-01-02", None), ("2024-01-02", "2024-01-02 00:00:00"), ("2026-03-01", None)]
    rows = [
        clinical("condition_occurrence", concept=316866, id=number, date=date, datetime=time)
        for number, (date, time) in enumerate(written, start=1)
    ]
    events, _ = changed(tmp_path, "condition_occurrence", *rows, zone="Europe/Zurich")
    found = [said(events, f"condition_occurrence#{number}") for number in (1, 2, 3)]
    day = (datetime(2024, 1, 1, 23, tzinfo=UTC), datetime(2024, 1, 2, 22, 59, 59, tzinfo=UTC))
    today = (datetime(2026, 2, 28, 23, tzinfo=UTC), NOW)
    assert [(event.time, event.available_time) for event in found] == [day, day, today]


@pytest.mark.parametrize("table", ["death", "condition_occurrence"])
def test_a_midnight_with_z_behind_it_is_no_time(tmp_path: Path, table: str) -> None:
    """Taken as a time it would be known in New York on the evening before its date."""
    when = [
        ("2024-01-02", "2024-01-02T00:00:00Z"),
        ("2024-01-01", "2024-01-02 00:00:00+00"),
        ("2024-01-02", "2024-01-02 05:00:00+00"),
        ("2024-01-02", "2024-01-02 06:00:00+00"),
    ]
    day = (datetime(2024, 1, 2, 5, tzinfo=UTC), datetime(2024, 1, 3, 4, 59, 59, tzinfo=UTC))
    seven, six = (datetime(2024, 1, 2, hour, tzinfo=UTC) for hour in (0, 6))
    expected = [day, (seven, seven), day, (six, six)]
    tables = small()
    if table == "death":
        tables["person"] = [{**tables["person"][0], "person_id": number} for number in range(1, 5)]
        tables[table] = [
            {"person_id": number, "death_date": date, "death_datetime": at}
            for number, (date, at) in enumerate(when, start=1)
        ]
        expected = [(known, known) for _, known in expected]
    else:
        tables[table] = [
            clinical(table, concept=316866, id=number, date=date, datetime=at)
            for number, (date, at) in enumerate(when, start=1)
        ]
    events, tally = read(as_csv(tmp_path, tables), zone="America/New_York")
    assert not tally.reasons or table == "death"
    found = [said(events, f"{table}#{number}") for number in range(1, 5)]
    assert [(event.time, event.available_time) for event in found] == expected


def test_a_delay_is_when_rows_became_known(tmp_path: Path) -> None:
    at = {"concept": 316866, "datetime": "2024-01-02 10:00:00"}
    rows = (clinical("condition_occurrence", **at), clinical("condition_occurrence", **at, id=2))
    rows[1]["condition_start_datetime"] = None
    delays = {"condition_occurrence": timedelta(days=30)}
    events, _ = changed(tmp_path, "condition_occurrence", *rows, delays=delays)
    known = [said(events, f"condition_occurrence#{number}").available_time for number in (1, 2)]
    assert known == [
        datetime(2024, 2, 1, 10, tzinfo=UTC),
        datetime(2024, 2, 1, 23, 59, 59, tzinfo=UTC),
    ]
    assert said(events, "procedure_occurrence#1").available_time.day == 2


@pytest.mark.parametrize("time", [None, "2026-02-20 10:00:00"])
def test_whatever_the_delay_it_is_known_when_it_is_imported(
    tmp_path: Path, time: str | None
) -> None:
    row = clinical("condition_occurrence", concept=316866, date="2026-02-20", datetime=time)
    delays = {"condition_occurrence": timedelta(days=30)}
    events, _ = changed(tmp_path, "condition_occurrence", row, delays=delays)
    assert said(events, "condition_occurrence#1").available_time == NOW


def test_what_is_worth_a_look_is_used_and_noted(tmp_path: Path) -> None:
    rows = [
        clinical("observation", concept=3000001, id=1, date="1950-06-06"),
        clinical("observation", concept=3000001, id=2, date="1950-06-07"),
        clinical("observation", concept=3000001, id=3, person=2, date="2024-05-02"),
        clinical("observation", concept=3000001, id=4, person=2, date="2024-05-01"),
        clinical("observation", concept=3000001, id=5, datetime="2024-01-03 08:00:00"),
        clinical("observation", concept=3000001, id=6, qualifier=9191),
    ]
    events, tally = changed(tmp_path, "observation", *rows)
    assert sum(event.source.startswith("omop:observation") for event in events) == 6
    assert tally.notes == {
        "birth known only to the year": 1,
        "lies before birth": 1,
        "lies after death": 1,
        "the date and the datetime are of different days": 1,
        "has a qualifier, which is not read": 1,
    }
    assert tally.examples["lies after death"] == ["observation:3"]


def test_a_visit_that_goes_on_has_no_end(tmp_path: Path) -> None:
    row = clinical("visit_occurrence", concept=9201, end_date=None)
    events, tally = changed(tmp_path, "visit_occurrence", row)
    assert [event.code for event in events if "visit" in event.source] == ["VISIT_START//IP"]
    assert tally.reasons == {NO_END: 1}


def test_a_key_that_stands_twice_counts_once(tmp_path: Path) -> None:
    rows = [clinical("procedure_occurrence", concept=316866, id=number) for number in (5, 4, 5)]
    events, tally = changed(tmp_path, "procedure_occurrence", *rows)
    sources = [event.source for event in events if "procedure" in event.source]
    assert sources == ["omop:procedure_occurrence#4", "omop:procedure_occurrence#5"]
    assert tally.reasons == {"a procedure_occurrence_id that stood before": 1}


def test_persons(tmp_path: Path) -> None:
    people = [
        {"person_id": 1, "gender_concept_id": 0, "birth_datetime": "1950-06-07 11:00:00"},
        {"person_id": 1, "gender_concept_id": 8507, "year_of_birth": 1950},
        {"person_id": None, "gender_concept_id": 8507, "year_of_birth": 1950},
        {"person_id": 2, "gender_concept_id": 8521, "year_of_birth": 1960, "month_of_birth": 2},
        {"person_id": 3, "gender_concept_id": 8551, "year_of_birth": None},
        {"person_id": 4, "gender_concept_id": 8507, "year_of_birth": 19},
    ]
    events, tally = changed(tmp_path, "person", *people)
    assert said(events, "person#1/birth").time == datetime(1950, 6, 7, tzinfo=UTC)
    assert [event.text_value for event in events if event.code == "SEX"] == [
        "other", "unknown", "male"
    ]  # fmt: skip
    assert tally.reasons == {
        "a person_id that stood before": 1,
        "no person_id": 1,
        "birth: not recorded": 1,
        "birth: lies before 1870": 1,
    }
    assert tally.notes["a person without a sex that is known"] == 1
    assert tally.notes["birth known only to the month"] == 1


def test_whole_numbers_with_decimals_mean_the_same(tmp_path: Path) -> None:
    """A column with gaps becomes one of floating-point numbers in some tools."""
    expected, _ = read(as_csv(tmp_path / "plain", small()))
    tables = small()
    for rows in tables.values():
        for row in rows:
            row.update({name: f"{cell}.00" for name, cell in row.items() if isinstance(cell, int)})
    events, tally = read(as_csv(tmp_path / "decimals", tables))
    assert events == expected
    assert not tally.reasons


def test_deaths(tmp_path: Path) -> None:
    deaths = [
        {"person_id": 1, "death_date": "2024-05-01", "death_datetime": "2024-05-01 10:00:00"},
        {"person_id": 1, "death_date": "2024-05-02"},
        {"person_id": 2, "death_date": None},
        {"person_id": 9, "death_date": "2024-05-01"},
    ]
    tables = small()
    tables["death"] = deaths
    tables["observation"] = [
        clinical("observation", concept=3000001, id=1, date="2024-05-01"),
        clinical("observation", concept=3000001, id=2, datetime="2024-05-01 10:00:01"),
    ]
    tables["observation"][1]["observation_date"] = None
    events, tally = read(as_csv(tmp_path, tables))
    assert tally.examples["lies after death"] == ["observation:2"]
    assert said(events, "death#1").time == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert tally.reasons == {
        "a second death of a person": 1,
        "no time": 1,
        "refers to a person that is not known": 1,
    }


def test_the_hospitals_own_number_makes_the_pseudonym(tmp_path: Path) -> None:
    """So that patients of several sources meet; nobody is mixed up with somebody else."""
    tables = small()
    extra = [(3, "M3"), (4, "M3"), (5, None)]
    tables["person"] += [
        {"person_id": number, "gender_concept_id": 8507, "year_of_birth": 1950,
         "person_source_value": value}
        for number, value in extra
    ]  # fmt: skip
    tables["observation"] += [
        clinical("observation", concept=3000001, id=10 + number, person=number)
        for number, _ in extra
    ]
    events, tally = read(as_csv(tmp_path, tables), identifier_system="urn:mrn")
    assert {event.subject_id for event in events} == {
        pseudonym(SECRET, Identity("urn:mrn", "M1")),
        pseudonym(SECRET, Identity("urn:mrn", "M2")),
    }
    assert tally.reasons == {
        "a person_source_value that several persons have": 2,
        "a person without a person_source_value": 1,
        "of a person who is not used": 3,
    }


def test_version_5_3_names_some_columns_otherwise(tmp_path: Path) -> None:
    tables = small()
    tables["cdm_source"] = [{"cdm_version": "5.3.1"}]
    (visit,) = tables["visit_occurrence"]
    visit["discharge_to_concept_id"] = visit.pop("discharged_to_concept_id")
    visit["admitting_source_concept_id"] = visit.pop("admitted_from_concept_id")
    events, _ = read(as_csv(tmp_path, tables))
    assert said(events, "visit_occurrence#1/end").text_value == "PoS//99"


def test_tables_that_are_not_read_are_counted(tmp_path: Path) -> None:
    era = [{"drug_era_id": number, "person_id": 1} for number in range(3)]
    _, tally = read(as_csv(tmp_path, {**small(), "drug_era": era}))
    assert tally.reasons == {"the table drug_era is not read": 3}
    assert tally.read["drug_era"] == 3


def imported(store: Path, folder: Path, tables: Tables, **wishes: Any) -> list[str]:
    """Import a database into a store; the sources that the store then holds."""
    source = source_at(as_csv(folder, tables), **wishes)
    import_source(source, store, secret=SECRET, now=NOW, source="omop", zone="UTC")
    with closing(Timeline.open(store).connect()) as db:
        return [row[0] for row in db.sql("SELECT source FROM events ORDER BY source").fetchall()]


def test_the_store_takes_columns_that_hold_what_single_events_do(tmp_path: Path) -> None:
    place = as_csv(tmp_path / "cdm", small())
    events, _ = read(place)
    store = tmp_path / "records"
    source = source_at(place)
    report = import_source(source, store, secret=SECRET, now=NOW, source="omop", zone="UTC")
    kept = Timeline.open(store).events().to_pylist()
    wanted = event_table((0, event) for event in events).drop_columns(["version"]).to_pylist()
    assert report.events == len(events)
    assert sorted(kept, key=lambda row: row["source"]) == wanted


def test_what_is_gone_from_the_database_goes_from_the_store(tmp_path: Path) -> None:
    """And what was changed is changed; a table that was left out stays as it was."""
    tables = small()
    tables["observation"].append(clinical("observation", concept=3000001, id=2))
    before = imported(tmp_path / "store", tmp_path / "a", tables)
    assert "omop:observation#2" in before
    tables["observation"].pop()
    tables["drug_exposure"].clear()
    del tables["death"]
    after = imported(tmp_path / "store", tmp_path / "b", tables, without=frozenset({"death"}))
    assert set(before) - set(after) == {"omop:observation#2", "omop:drug_exposure#1"}
    assert "omop:death#2" in after
    assert set(after) <= set(before)


def test_a_database_without_anybody_is_refused(tmp_path: Path) -> None:
    tables = small()
    imported(tmp_path / "store", tmp_path / "a", tables)
    empty = {name: [] if name in {"person", "death"} else rows for name, rows in tables.items()}
    with pytest.raises(RecordError, match=r"found no row .* that can be used: refers to a person"):
        imported(tmp_path / "store", tmp_path / "b", empty)
