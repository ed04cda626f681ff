"""OMOP in files and DuckDB: the same events from each, and clear words where not."""

import csv
import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot

from fedtwin_client.records.omop.places import Way
from fedtwin_client.records.omop.schemas import arrange
from fedtwin_client.records.omop.sql import Dialect, Questions
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError

from .omop_cdm import (
    Tables,
    as_csv,
    as_duckdb,
    as_parquet,
    as_zip,
    clinical,
    read,
    rich,
    said,
    small,
)


def test_every_form_gives_the_same(tmp_path: Path) -> None:
    tables = rich()
    expected, account = read(as_csv(tmp_path / "csv", tables))
    assert len(expected) == 25
    assert sum(account.reasons.values()) == 14
    for place in (
        as_zip(tmp_path / "cdm.zip", tables),
        as_parquet(tmp_path / "parquet", tables),
        as_duckdb(tmp_path / "cdm.duckdb", tables),
        as_duckdb(tmp_path / "other.duckdb", tables, schema="Odd"),
    ):
        events, tally = read(place)
        assert events == expected, place
        assert (tally.reasons, tally.notes, tally.read) == (
            account.reasons, account.notes, account.read
        )  # fmt: skip


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://u:secret@h/db", "without a password"),
        ("postgresql://h/db?password=secret", "without a password"),
        ("postgresql://[", "an address such as postgresql://user@host"),
        ("postgresql://u@127.0.0.1:1/db", "nothing was imported. Check the address"),
    ],
)
def test_wrong_addresses(address: str, words: str) -> None:
    with pytest.raises(RecordError, match=words) as caught:
        read(address)
    assert "secret" not in str(caught.value)


def test_a_password_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o644)
    with pytest.raises(RecordError, match="chmod 600"):
        read("postgresql://u@127.0.0.1:1/db", Way(password_file=file))
    with pytest.raises(RecordError, match="cannot read the password file"):
        read("postgresql://u@127.0.0.1:1/db", Way(password_file=tmp_path / "none"))


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_names_are_quoted_in_every_dialect(dialect: Dialect) -> None:
    questions = Questions(dialect)
    text = questions.rows("a b", 'x"; DROP TABLE y', ["select"])
    (found,) = sqlglot.parse(text, read=dialect)
    assert found is not None
    assert [table.name for table in found.find_all(sqlglot.exp.Table)] == ['x"; DROP TABLE y']
    many = list(questions.chosen("s", "t", ["a"], "a", [str(number) for number in range(4_001)]))
    assert len(many) == 3


def drop(name: str) -> Callable[[Tables], object]:
    return lambda tables: tables.pop(name)


def rename(table: str, column: str) -> Callable[[Tables], object]:
    def change(tables: Tables) -> None:
        for row in tables[table]:
            row[f"{column}_x"] = row.pop(column)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("measurement"), "found no table measurement .* --without measurement"),
        (drop("person"), "found no table person"),
        (drop("concept"), "found no table concept.*without it no code can be told"),
        (
            rename("measurement", "measurement_concept_id"),
            "expected a column measurement_concept_id",
        ),
        (rename("concept", "vocabulary_id"), "in the table concept .* found no vocabulary_id"),
        (rename("person", "person_id"), "in the table person .* found no person_id"),
        (
            lambda tables: tables.update(cdm_source=[{"cdm_version": "6.0"}]),
            "version 5.3 or 5.4, found '6.0'",
        ),
    ],
)
def test_databases_that_are_not_whole(
    tmp_path: Path, change: Callable[[Tables], object], words: str
) -> None:
    tables = small()
    change(tables)
    with pytest.raises(RecordError, match=words):
        read(as_csv(tmp_path / "csv", tables))
    with pytest.raises(RecordError, match=words):
        read(as_duckdb(tmp_path / "x.duckdb", tables))


def test_wishes_that_do_not_fit(tmp_path: Path) -> None:
    place = as_csv(tmp_path, small())
    with pytest.raises(RecordError, match=r"expected one of the tables .* found 'drug_era'"):
        read(place, without=frozenset({"drug_era"}))
    with pytest.raises(RecordError, match="the table death is there, although --without"):
        read(place, without=frozenset({"death"}))
    with pytest.raises(RecordError, match="for databases, not for tables"):
        read(place, Way(schema="cdm"))
    with pytest.raises(RecordError, match=r"found no such file"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"found no table concept"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found no column"),
        (b"measurement_id,measurement_id\n1,2\n", "the column measurement_id stands twice"),
        (b"\xff\xfem\x00e\x00", "of MEASUREMENT.csv, found other bytes; export the table as UTF-8"),
        (b"\x00" * 100, "expected a column measurement_id"),
    ],
)
def test_headers_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    place = as_csv(tmp_path, small())
    (place / "MEASUREMENT.csv").write_bytes(content)
    with pytest.raises(RecordError, match=words):
        read(place)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'2,1,"2024-01-02,2024\n3,1,x\n', "a quotation mark without its end"),
        (b"2,1,\xff\xfe" + b"," * 20 + b"\n", "is not UTF-8 text: other bytes stand in line 3"),
        (b"2,1," + b"x" * 20_000_000 + b"\n", "a line is longer than 8 MiB"),
    ],
)
def test_files_that_are_damaged_as_a_whole(tmp_path: Path, line: bytes, words: str) -> None:
    place = as_csv(tmp_path, small())
    file = place / "MEASUREMENT.csv"
    columns = file.read_bytes().count(b",", 0, file.read_bytes().index(b"\n"))
    if line.startswith(b"2,1,\xff"):
        line = b"2,1,\xff" + b"," * (columns - 2) + b"\n"
    file.write_bytes(file.read_bytes() + line)
    with pytest.raises(RecordError, match=words):
        read(place)


def test_lines_that_are_no_rows_are_put_aside_with_their_number(tmp_path: Path) -> None:
    place = as_csv(tmp_path / "cdm", small())
    file = place / "OBSERVATION.csv"
    file.write_bytes(file.read_bytes() + b"2,1\n" + b"," * 99 + b"\n3,1")
    tally = Tally(quarantine=tmp_path / "q.ndjson")
    events, _ = read(place, tally=tally)
    tally.close()
    assert len(events) == 13
    assert [reason.partition(", ")[2] for reason in tally.reasons.elements()] == [
        "found 2", "found 2", "found 100"
    ]  # fmt: skip
    assert tally.read["lines that are no rows"] == 3
    assert "OBSERVATION.csv:3" in str(tally.examples)
    assert tally.notes["the last line has no line end: was the file cut off?"] == 1


def test_forms_of_csv(tmp_path: Path) -> None:
    """Gzipped, with a byte-order mark, CRLF, in lower case, by tabs without quoting."""
    expected, _ = read(as_csv(tmp_path / "plain", small()))
    place = as_csv(tmp_path / "cdm", small())
    for name in ("PERSON", "MEASUREMENT", "CONCEPT"):
        (place / f"{name}.csv").unlink()
    plain = tmp_path / "plain"
    person = (plain / "PERSON.csv").read_bytes()
    (place / "person.csv").write_bytes(b"\xef\xbb\xbf" + person.replace(b"\n", b"\r\n"))
    with gzip.open(place / "Measurement.CSV.gz", "wb") as file:
        file.write((plain / "MEASUREMENT.csv").read_bytes())
    words = (plain / "CONCEPT.csv").read_text().replace("concept_id", "concept_name,concept_id")
    lines = [words.splitlines()[0], *(f'"half,{line}' for line in words.splitlines()[1:])]
    (place / "CONCEPT.csv").write_text("\n".join(lines).replace(",", "\t") + "\n")
    assert read(place)[0] == expected


def test_quotation_marks_between_tabs(tmp_path: Path) -> None:
    """They are marks if the names of the columns have them, and else a part of the cells."""
    row = clinical("observation", concept=0, source_value='a "high" one', text="ever, and on")
    tables = {**small(), "observation": [row, {**row, "observation_id": 2}]}
    expected, _ = read(as_csv(tmp_path / "plain", tables))
    place = as_csv(tmp_path / "cdm", tables)
    file = place / "OBSERVATION.csv"
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)
    assert read(place)[0] == expected
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines, delimiter="\t").writerows(rows)
    events, tally = read(place)
    assert said(events, "observation#1").code == 'LOCAL//"a_""high""_one"'
    (marked,) = (count for note, count in tally.notes.items() if "in quotation marks" in note)
    assert marked == 2


def test_what_stands_for_nothing_is_the_same_in_every_form(tmp_path: Path) -> None:
    """A column of text holds an empty text where CSV has nothing."""
    tables = small()
    cells = ["", "NULL", "\\N", " ", "NA"]
    tables["observation"] = [
        clinical("observation", concept=3000001, id=number, text=cell, source_text="beside")
        for number, cell in enumerate(cells, start=1)
    ]
    for name, nothing in (("birth_datetime", "NULL"), ("month_of_birth", ""), ("day_of_birth", "")):
        tables["person"][1][name] = nothing
    expected, _ = read(as_csv(tmp_path / "csv", tables))
    texts = [said(expected, f"observation#{number}").text_value for number in range(1, 6)]
    assert texts == ["beside"] * 4 + ["NA"]
    folder = tmp_path / "parquet"
    folder.mkdir()
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        whole = {
            column: [None if row.get(column) is None else str(row[column]) for row in rows]
            for column in columns
        }
        pq.write_table(pa.table(whole), folder / f"{name}.parquet")
    assert read(folder)[0] == expected


def test_parts_and_numbers_of_parquet(tmp_path: Path) -> None:
    """Spark writes a folder of parts; pandas writes whole numbers with gaps as 1.0."""
    expected, _ = read(as_csv(tmp_path / "plain", small()))
    place = as_parquet(tmp_path / "cdm", small())
    for name in ("measurement", "concept", "person"):
        table = pq.read_table(place / f"{name}.parquet")
        (place / f"{name}.parquet").unlink()
        folder = place / name
        folder.mkdir()
        floats = [
            pa.field(field.name, pa.float64() if pa.types.is_integer(field.type) else field.type)
            for field in table.schema
        ]
        pq.write_table(table.cast(pa.schema(floats)), folder / "part-0000.parquet")
        pq.write_table(table.slice(0, 0), folder / "part-0001.parquet")
        (folder / "_SUCCESS").touch()
    assert read(place)[0] == expected


def test_a_table_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    place = as_csv(tmp_path, small())
    (place / "person.csv.gz").write_bytes(gzip.compress((place / "PERSON.csv").read_bytes()))
    with pytest.raises(RecordError, match=r"the table person once .* PERSON.csv, person.csv.gz"):
        read(place)


def test_damaged_containers(tmp_path: Path) -> None:
    whole = as_zip(tmp_path / "cdm.zip", small()).read_bytes()
    for name, content in (
        ("cut.zip", whole[: len(whole) // 2]),
        ("none.zip", b"nothing"),
        ("none.duckdb", b"nothing at all" * 500),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            RecordError, match=r"not a whole zip file|cannot read the OMOP database"
        ):
            read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "cdm.zip") as file:
        at = file.getinfo("cdm/MEASUREMENT.csv").header_offset + 80
    (tmp_path / "bent.zip").write_bytes(whole[:at] + b"\x00\xff\x00" + whole[at + 3 :])
    with pytest.raises(RecordError, match=r"cannot read cdm/MEASUREMENT.csv"):
        read(tmp_path / "bent.zip")
    folder = as_parquet(tmp_path / "parquet", small())
    (folder / "death.parquet").write_bytes((folder / "death.parquet").read_bytes()[:-9])
    with pytest.raises(RecordError, match=r"cannot read death.parquet"):
        read(folder)


def test_a_view_of_a_duckdb_file_reads_no_other_file(tmp_path: Path) -> None:
    place = as_duckdb(tmp_path / "x.duckdb", small())
    (tmp_path / "secret.csv").write_text("person_id,death_date\n1,2024-01-01\n")
    with duckdb.connect(str(place)) as db:
        db.execute("DROP TABLE death")
        db.execute(f"CREATE VIEW death AS FROM read_csv('{tmp_path / 'secret.csv'}')")
    with pytest.raises(RecordError, match="cannot read the OMOP database"):
        read(place)


def test_wrong_types_of_columns_are_found_by_the_rules(tmp_path: Path) -> None:
    """A date as a number of days, a value as text: put aside, not a failure of the driver."""
    place = as_duckdb(tmp_path / "x.duckdb", small())
    with duckdb.connect(str(place)) as db:
        db.execute("ALTER TABLE observation ALTER observation_date TYPE INTEGER USING 19724")
        db.execute("ALTER TABLE measurement ALTER value_as_number TYPE VARCHAR USING 'high'")
        db.execute("ALTER TABLE device_exposure ALTER device_concept_id TYPE INTEGER[] USING [1]")
    _, tally = read(place)
    assert tally.reasons == {
        "a time that cannot be read": 1,
        "expected a number, found text": 1,
        "no code": 1,
    }


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[Any] = []
    read(as_csv(tmp_path, small()), progress=said.append)
    assert "measurement: 1 rows" in said


def test_two_tables_of_one_name_are_refused() -> None:
    """PostgreSQL tells quoted names apart by case; a copy may be of another year."""
    found = [("cdm", table, "person_id") for table in ("person", "concept", "DEATH", "death")]
    with pytest.raises(RecordError, match=r"the tables DEATH and death in one schema of X"):
        arrange(found, "X")
    assert set(arrange([*found[:3], ("cdm", "Death_old", "x")], "X").tables) == {
        "person", "concept", "death", "death_old",
    }  # fmt: skip
