"""OMOP with anything in any cell: nothing fails or is lost, and a batch is its rows one by one."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.omop.batches import TableReading
from fedtwin_client.records.omop.codes import Concept, Concepts
from fedtwin_client.records.omop.rows import PEOPLE, Mapped, RowMapper
from fedtwin_client.records.omop.tables import CLINICAL, Meaning
from fedtwin_client.records.omop.times import LocalOffsets
from fedtwin_client.records.reading import Reading, UnusableError, checked_number
from fedtwin_client.records.report import Tally
from fedtwin_client.records.seen_keys import SeenKeys
from fedtwin_protocol.errors import RecordError

from .omop_cdm import CONCEPTS, NOW, as_csv, read, small

(MEASUREMENT,) = (table for table in CLINICAL if table.name == "measurement")
KNOWN = {
    str(row["concept_id"]): Concept(
        str(row["vocabulary_id"]), str(row["concept_code"]), row["standard_concept"] == "S"
    )
    for row in CONCEPTS
}
DAY = datetime(1950, 6, 7)
ODD = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "0", "-1", "1.0", "NaN", "inf", "1e400", "NA", "null", "2024-01-02"]),
    st.text(max_size=6),
)
MOSTLY_RIGHT: dict[Meaning, list[str]] = {
    Meaning.PERSON: ["1", "2", "3"],
    Meaning.DATE: ["2024-01-02", "1949-01-01", "2026-03-02"],
    Meaning.DATETIME: ["2024-01-02 00:00:00", "2024-01-02 10:11:12", "2024-01-02 10:11:12+02"],
    Meaning.CONCEPT: [*KNOWN, "0"],
    Meaning.SOURCE_CONCEPT: [*KNOWN, "0"],
    Meaning.SOURCE_VALUE: ["I10", "x y"],
    Meaning.NUMBER: ["1", "120.5", "-3e2"],
    Meaning.ANSWER: ["45877994", "0"],
    Meaning.OPERATOR: ["4171756", "0"],
    Meaning.UNIT: ["8840", "8876", "9289", "0"],
    Meaning.UNIT_TEXT: ["mg/dL", "mmHg", "odd"],
    Meaning.SOURCE_TEXT: ["positive"],
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {meaning: st.one_of(st.sampled_from(right), ODD) for meaning, right in MOSTLY_RIGHT.items()}
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def mapper() -> RowMapper:
    """Two persons who are used, and one who is not."""
    people = pa.Table.from_pylist(
        [
            {"person": "1", "subject_id": 11, "birth": DAY, "death": None},
            {"person": "2", "subject_id": 22, "birth": None, "death": DAY + timedelta(days=9_000)},
            {"person": "3", "subject_id": None, "birth": None, "death": None},
        ],
        schema=PEOPLE,
    )
    reading = Reading(
        source="omop", zone=read_zone("Europe/Zurich"), now=NOW, tally=Tally(quarantine=None)
    )
    return RowMapper(reading, Concepts(KNOWN), people)


def mapped(mapper: RowMapper, rows: list[dict[Meaning, Any]]) -> tuple[Mapped, int]:
    """What rows become, and how many had no key."""
    columns = {meaning: names[0] for meaning, names in MEASUREMENT.columns.items()}
    numbered = [{Meaning.ID: str(number), **row} for number, row in enumerate(rows)]
    batch = pa.table(
        {
            name: pa.chunked_array([[row[meaning] for row in numbered]], type=pa.string())
            for meaning, name in columns.items()
        }
    )
    reading = TableReading(MEASUREMENT, columns, pa.array(list(KNOWN), type=pa.string()))
    prepared, unused = reading.prepare(batch)
    ((part, prefix, _),) = reading.parts(prepared)
    return mapper.map(part, prefix), unused.num_rows


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS)
def test_a_batch_is_its_rows_one_by_one(mapper: RowMapper, rows: list[dict[Meaning, Any]]) -> None:
    whole, without_key = mapped(mapper, rows)
    assert whole.events.num_rows + whole.unused.num_rows + without_key == len(rows)
    numbers = [number for number in whole.events["numeric_value"].to_pylist() if number is not None]
    assert np.isfinite(numbers).all()
    reasons = dict(
        zip(whole.unused["key"].to_pylist(), whole.unused["reason"].to_pylist(), strict=True)
    )
    events = {event["key"]: event for event in whole.events.to_pylist()}
    for key, row in enumerate(rows[:2]):
        alone, _ = mapped(mapper, [row])
        if alone.unused.num_rows:
            assert alone.unused["reason"][0].as_py() == reasons[key]
            continue
        (event,) = alone.events.to_pylist()
        same = {"row", "key", "saying"}
        assert {name: event[name] for name in event if name not in same} == {
            name: cell for name, cell in events[key].items() if name not in same
        }


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    concept=st.sampled_from(["3027114", "3004249", "3020891", "3000001"]),
    number=st.floats(-1e6, 1e6),
    unit=st.sampled_from(["mg/dL", "mmol/L", "mmHg", "°F", "Cel", "odd", None]),
)
def test_numbers_are_those_of_the_rules(
    mapper: RowMapper, concept: str, number: float, unit: str | None
) -> None:
    row = dict.fromkeys(MOSTLY_RIGHT) | {
        Meaning.PERSON: "1",
        Meaning.DATE: "2024-01-02",
        Meaning.CONCEPT: concept,
        Meaning.NUMBER: repr(number),
        Meaning.UNIT_TEXT: unit,
    }
    found, _ = mapped(mapper, [row])
    reason, expected = None, None
    try:
        expected = checked_number(f"LOINC//{KNOWN[concept].code}", number, unit)
    except UnusableError as error:
        reason = error.reason
    if reason is not None:
        assert found.unused["reason"].to_pylist() == [reason]
        return
    (event,) = found.events.to_pylist()
    assert (event["numeric_value"], event["unit"], event["src_unit"]) == expected


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200), table=st.sampled_from(["PERSON", "MEASUREMENT", "CONCEPT"]))
def test_any_bytes_in_a_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, table: str
) -> None:
    place = as_csv(tmp_path_factory.mktemp("any"), small())
    file: Path = place / f"{table}.csv"
    file.write_bytes(file.read_bytes() + content)
    tally, used, refused = Tally(quarantine=None), 0, ""
    try:
        events, _ = read(place, tally=tally)
        used = sum(event.source.startswith("omop:measurement") for event in events)
    except RecordError as error:
        refused = str(error)
    assert "\n" not in refused
    if table == "MEASUREMENT" and not refused:
        lines = tally.read["measurement"] + tally.read["lines that are no rows"]
        assert lines == used + sum(tally.reasons.values())
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["UTC", "Europe/Zurich", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_many_local_times_are_turned_as_one_by_one(name: str) -> None:
    """At every half hour of two years, also where clocks are put forward or back."""
    zone = ZoneInfo(name)
    offsets = LocalOffsets(zone, 2026)
    first = datetime(2023, 1, 1)
    local = [first + timedelta(minutes=30 * step) for step in range(2 * 365 * 48)]
    epoch = datetime(1970, 1, 1)
    numbers = np.array([(time - epoch) // timedelta(microseconds=1) for time in local])
    expected = [time.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None) for time in local]
    found = offsets.to_utc(numbers)
    assert [epoch + timedelta(microseconds=int(time)) for time in found] == expected


@given(batches=st.lists(st.lists(st.integers(-(10**18), 10**18) | st.integers(0, 20), max_size=30)))
def test_keys_are_new_once(batches: list[list[int]]) -> None:
    keys, seen = SeenKeys(), set()
    for batch in batches:
        expected = []
        for key in batch:
            expected.append(key not in seen)
            seen.add(key)
        assert keys.first_time(np.array(batch, dtype=np.int64)).tolist() == expected


def test_keys_that_are_strewn_are_new_once() -> None:
    keys = SeenKeys()
    strewn = np.arange(6_000, dtype=np.int64) * 1_000_003
    assert keys.first_time(strewn).all()
    assert not keys.first_time(strewn[::-1].copy()).any()
    assert keys.first_time(np.array([strewn[-1] + 1] * 3)).tolist() == [True, False, False]
