"""Small OMOP databases for tests, in every form that the node reads, and a PostgreSQL server."""

import csv
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.omop.places import Way, omop_place
from fedtwin_client.records.omop.source import Wishes, omop_source
from fedtwin_client.records.omop.tables import CLINICAL
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, OpenSource

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"s" * 32
Tables = dict[str, list[dict[str, Any]]]

CONCEPTS = [
    {"concept_id": number, "vocabulary_id": vocabulary, "concept_code": code, "standard_concept": s}
    for number, vocabulary, code, s in (
        (3027114, "LOINC", "2093-3", "S"),
        (3004249, "LOINC", "8480-6", "S"),
        (3020891, "LOINC", "8310-5", "S"),
        (3000001, "LOINC", "99999-9", "S"),
        (316866, "SNOMED", "38341003", "S"),
        (45591453, "ICD10CM", "I10", None),
        (1539403, "RxNorm", "36567", "S"),
        (9201, "Visit", "IP", "S"),
        (8844, "PoS", "99", "S"),
        (8840, "UCUM", "mg/dL", "S"),
        (8876, "UCUM", "mm[Hg]", "S"),
        (9289, "UCUM", "[degF]", "S"),
        (45877994, "LOINC", "LA33-6", "S"),
        (9191, "SNOMED", "10828004", "S"),
    )
]


def small() -> Tables:
    """Two persons with one row of everything."""
    return {
        "cdm_source": [{"cdm_version": "v5.4.0"}],
        "concept": [dict(row) for row in CONCEPTS],
        "person": [
            {
                "person_id": 1,
                "gender_concept_id": 8532,
                "year_of_birth": 1950,
                "month_of_birth": 6,
                "day_of_birth": 7,
                "person_source_value": "M1",
            },
            {
                "person_id": 2,
                "gender_concept_id": 8507,
                "year_of_birth": 1960,
                "person_source_value": "M2",
            },
        ],
        "death": [{"person_id": 2, "death_date": "2024-05-01", "death_datetime": None}],
        "condition_occurrence": [clinical("condition_occurrence", concept=316866)],
        "drug_exposure": [clinical("drug_exposure", concept=1539403)],
        "procedure_occurrence": [clinical("procedure_occurrence", concept=316866)],
        "device_exposure": [clinical("device_exposure", concept=316866)],
        "measurement": [
            clinical("measurement", concept=3027114, number=200, unit=8840, operator=4171756)
        ],
        "observation": [clinical("observation", concept=3000001, text="often")],
        "visit_occurrence": [
            clinical(
                "visit_occurrence",
                concept=9201,
                datetime="2024-01-02 08:30:00",
                end_date="2024-01-05",
                end_datetime="2024-01-05 14:00:00",
                end_answer=8844,
            )
        ],
    }


def clinical(table: str, **cells: Any) -> dict[str, Any]:
    """A row of a clinical table, by what its columns mean."""
    (form,) = (found for found in CLINICAL if found.name == table)
    said = {"id": 1, "person": 1, "date": "2024-01-02", **cells}
    return {names[0]: said.get(meaning.value) for meaning, names in form.columns.items()}


def as_csv(folder: Path, tables: Tables) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with (folder / f"{name.upper()}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _columns(name, rows), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return folder


def as_zip(path: Path, tables: Tables) -> Path:
    folder = as_csv(path.with_suffix(""), tables)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(folder.iterdir()):
            file.write(member, f"cdm/{member.name}")
            file.writestr(f"__MACOSX/cdm/._{member.name}", b"\x00\x05\x16\x07")
    return path


def as_parquet(folder: Path, tables: Tables) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as db:
        for name, rows in tables.items():
            db.register("given", _texts(name, rows))
            db.execute(
                f"COPY (SELECT {_typed(_columns(name, rows))} FROM given)"
                f" TO '{folder / f'{name}.parquet'}' (FORMAT parquet)"
            )
            db.unregister("given")
    assert all(pq.read_metadata(file).num_columns for file in folder.iterdir())
    return folder


def as_duckdb(path: Path, tables: Tables, schema: str = "main") -> Path:
    with duckdb.connect(str(path)) as db:
        db.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        for name, rows in tables.items():
            db.register("given", _texts(name, rows))
            columns = _typed(_columns(name, rows))
            db.execute(f"CREATE TABLE {schema}.{name} AS SELECT {columns} FROM given")
            db.unregister("given")
    return path


def in_postgres(server: str, tables: Tables, schema: str = "cdm") -> str:
    """Put tables into a schema of a server, which must not be there yet."""
    import psycopg

    with psycopg.connect(server) as db:
        db.execute(f'CREATE SCHEMA "{schema}"')
        for name, rows in tables.items():
            columns = _columns(name, rows)
            typed = ", ".join(f"{column} {_type(column)}" for column in columns)
            db.execute(f'CREATE TABLE "{schema}".{name} ({typed})')
            with (
                db.cursor() as cursor,
                cursor.copy(f'COPY "{schema}".{name} FROM STDIN') as copy,
            ):
                for row in rows:
                    cells = (row.get(column) for column in columns)
                    copy.write_row([None if cell in (None, "") else str(cell) for cell in cells])
    return server


def read_csvs(archive: Path) -> Tables:
    """The tables of a zip of CSV, those about patients and the concepts."""
    found: Tables = {}
    wanted = {form.name for form in CLINICAL} | {"person", "death", "concept", "cdm_source"}
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            table = name.partition(".")[0].lower()
            if table in wanted:
                text = file.read(name).decode().splitlines(keepends=True)
                found[table] = list(csv.DictReader(text))
    return found


def read(
    place: Path | str, way: Way | None = None, tally: Tally | None = None, **wishes: Any
) -> tuple[list[Any], Tally]:
    """All events of a database, and the account; without a store."""
    tally = tally or Tally(quarantine=None)
    zone = read_zone(wishes.pop("zone", "UTC"))
    reading = Reading(source="omop", zone=zone, now=NOW, tally=tally)
    desk = Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})
    source = source_at(place, way, **wishes)(desk)
    events = [event for version in source.versions() for event in version.events]
    return sorted(events, key=lambda event: event.source), tally


def source_at(place: Path | str, way: Way | None = None, **wishes: Any) -> OpenSource:
    return omop_source(omop_place(str(place), way or Way()), Wishes(**wishes))


def said(events: Iterable[Any], part: str) -> Any:
    (found,) = (event for event in events if event.source == f"omop:{part}")
    return found


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server of its own on a socket in a folder; yields its address."""
    programs = _programs()
    assert programs is not None
    user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    make = [*user, programs["initdb"], "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    _run(make, folder)
    rules = data / "pg_hba.conf"
    rules.write_text(f"local all locked scram-sha-256\n{rules.read_text()}")
    _run(
        [*user, programs["pg_ctl"], "-D", data, "-o", options, "-l", folder / "log", "-w", "start"],
        folder,
    )
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        _run([*user, programs["pg_ctl"], "-D", data, "-m", "immediate", "-w", "stop"], folder)


def has_postgres() -> bool:
    return _programs() is not None and (os.geteuid() != 0 or shutil.which("runuser") is not None)


def _programs() -> Mapping[str, str] | None:
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([*map(str, there), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in ("initdb", "pg_ctl")}
    return None if None in found.values() else {k: str(v) for k, v in found.items()}


def _run(command: list[Any], folder: Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _columns(table: str, rows: list[dict[str, Any]]) -> list[str]:
    if rows:
        return list(dict.fromkeys(name for row in rows for name in row))
    forms = {form.name: [names[0] for names in form.columns.values()] for form in CLINICAL}
    return forms.get(table, ["person_id", "death_date"])


def _texts(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    columns = _columns(table, rows)
    texts = [
        [None if row.get(name) in (None, "") else str(row[name]) for row in rows]
        for name in columns
    ]
    return pa.table([pa.array(cells, type=pa.string()) for cells in texts], names=columns)


def _typed(columns: list[str]) -> str:
    return ", ".join(f"CAST({name} AS {_type(name)}) AS {name}" for name in columns)


def _type(column: str) -> str:
    """As in the model's own DDL."""
    if column.endswith("_datetime"):
        return "TIMESTAMP"
    if column.endswith("_date"):
        return "DATE"
    if column.endswith("_of_birth"):
        return "INTEGER"
    if column == "value_as_number":
        return "DOUBLE PRECISION"
    if (
        column.endswith("_id")
        and column not in {"vocabulary_id", "domain_id", "concept_class_id"}
        and "unique" not in column
        and "production" not in column
    ):
        return "BIGINT"
    return "TEXT"


def rich() -> Tables:
    """The small database with more of everything, right and wrong."""
    tables = small()
    more = [
        {"id": 2, "concept": 0, "source_value": "NA"},
        {"id": 3, "concept": 316866, "person": 2, "datetime": "2024-06-01 10:00:00"},
        {"id": 4, "concept": 316866, "person": 77},
        {"id": 5, "concept": 316866, "date": "2031-01-01"},
        {"id": 6, "concept": 0, "source_value": 'says "high", often'},
        {"id": None, "concept": 316866},
        {"id": 6, "concept": 316866},
    ]
    for name in ("condition_occurrence", "observation", "drug_exposure"):
        tables[name] += [clinical(name, **cells) for cells in more]
    tables["measurement"] += [
        clinical("measurement", id=2, concept=3020891, number=100.4, unit=9289),
        clinical("measurement", id=3, concept=3027114, number=5.17, unit=8876),
        clinical("measurement", id=4, concept=3000001, number=1e-7, unit_text="µmol/L"),
        clinical("measurement", id=5, concept=3000001, source_text="trace\nof it"),
        clinical("measurement", id=6, concept=3000001, number="NaN"),
    ]
    return tables
