"""OMOP in PostgreSQL: the same events as from files, and nothing written."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtwin_client.records.omop.places import Way
from fedtwin_protocol.errors import RecordError

from .omop_cdm import (
    as_csv,
    as_duckdb,
    has_postgres,
    in_postgres,
    postgres,
    read,
    read_csvs,
    rich,
    small,
)

SYNTHEA = Path(__file__).parents[4] / "shared/data/omop_synthea27nj/Synthea27Nj_5.4.zip"
needs_postgres = pytest.mark.skipif(not has_postgres(), reason="there is no PostgreSQL here")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL server on a socket, in a folder that its own user can reach."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, postgres(Path(folder)) as address:
        yield address


@needs_postgres
def test_postgres_gives_the_same_as_files(tmp_path: Path, server: str) -> None:
    tables = rich()
    in_postgres(server, tables, 'Odd "one"'.replace('"', ""))
    expected, account = read(as_csv(tmp_path / "csv", tables))
    events, tally = read(server, Way(schema="Odd one"))
    assert events == expected
    assert (tally.reasons, tally.notes, tally.read) == (
        account.reasons, account.notes, account.read
    )  # fmt: skip


@pytest.mark.skipif(not SYNTHEA.is_file(), reason="the shared data sets are not here")
def test_all_of_the_published_sample_comes_in(tmp_path: Path, server: str) -> None:
    """28 patients; every row is an event (a visit two), or its table is counted as not read."""
    expected, account = read(SYNTHEA)
    counts: dict[str, int] = {}
    for event in expected:
        table = event.source.partition(":")[2].partition("#")[0]
        counts[table] = counts.get(table, 0) + 1
    assert counts == {
        "person": 56, "death": 3, "condition_occurrence": 470, "drug_exposure": 883,
        "device_exposure": 1, "measurement": 10_040, "observation": 8_099,
        "procedure_occurrence": 1_649, "visit_occurrence": 2 * 1_791,
    }  # fmt: skip
    assert account.reasons == {
        "the table visit_detail is not read": 1_791,
        "the table condition_era is not read": 469,
        "the table observation_period is not read": 28,
    }
    assert len({event.subject_id for event in expected}) == 28
    tables = read_csvs(SYNTHEA)
    assert read(as_duckdb(tmp_path / "s.duckdb", tables))[0] == expected
    if has_postgres():
        in_postgres(server, tables, "synthea")
        assert read(server, Way(schema="synthea"))[0] == expected


@needs_postgres
def test_vocabularies_may_lie_in_another_schema(server: str) -> None:
    tables = small()
    words = {"concept": tables.pop("concept")}
    in_postgres(server, words, "words")
    in_postgres(server, tables, "records")
    in_postgres(server, words, "more_words")
    with pytest.raises(RecordError, match=r"in the schemas .*more_words.*--vocabulary-schema"):
        read(server, Way(schema="records"))
    events, _ = read(server, Way(schema="records", vocabulary_schema="words"))
    assert len(events) == 13


@needs_postgres
def test_a_server_that_refuses_says_what_to_do(server: str, tmp_path: Path) -> None:
    import psycopg

    in_postgres(server, small(), "closed")
    with psycopg.connect(server) as db:
        db.execute("CREATE ROLE reader LOGIN")
        db.execute("GRANT USAGE ON SCHEMA closed TO reader")
    as_reader = server.replace("postgres@", "reader@")
    with pytest.raises(RecordError, match=r"permission denied.*GRANT SELECT ON ALL TABLES"):
        read(as_reader, Way(schema="closed"))
    with pytest.raises(RecordError, match=r"no table person in the schema 'nowhere'.*closed"):
        read(server, Way(schema="nowhere"))
    with pytest.raises(RecordError, match='"nobody" does not exist; nothing was imported'):
        read(server.replace("postgres@", "nobody@"))
    with pytest.raises(RecordError, match=r"nothing was imported. Check the address"):
        read(f"postgresql://a@/b?host={tmp_path}")


@needs_postgres
def test_the_password_comes_from_a_file(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    in_postgres(server, small(), "kept")
    with psycopg.connect(server) as db:
        db.execute("CREATE ROLE locked LOGIN PASSWORD 'open sesame'")
        db.execute("GRANT USAGE ON SCHEMA kept TO locked")
        db.execute("GRANT SELECT ON ALL TABLES IN SCHEMA kept TO locked")
    address, file = server.replace("postgres@", "locked@"), tmp_path / "password"
    with pytest.raises(RecordError, match=r"no password supplied.*~/.pgpass"):
        read(address, Way(schema="kept"))
    file.write_text("wrong\n")
    file.chmod(0o600)
    with pytest.raises(RecordError, match="password authentication failed"):
        read(address, Way(schema="kept", password_file=file))
    file.write_text("open sesame\n")
    assert len(read(address, Way(schema="kept", password_file=file))[0]) == 13
    file.write_text("*:*:*:locked:open sesame\n")
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert len(read(address, Way(schema="kept"))[0]) == 13


@needs_postgres
def test_a_server_that_goes_away_is_told(server: str) -> None:
    import psycopg

    in_postgres(server, small(), "gone")
    with psycopg.connect(server) as db:
        db.execute("ALTER TABLE gone.drug_exposure RENAME TO kept")
        db.execute(
            "CREATE VIEW gone.drug_exposure AS"
            " SELECT kept.* FROM gone.kept WHERE pg_terminate_backend(pg_backend_pid())"
        )
    with pytest.raises(RecordError, match=r"cannot read the OMOP database .* nothing was imported"):
        read(server, Way(schema="gone"))


@needs_postgres
def test_a_question_that_takes_too_long_ends(server: str) -> None:
    import psycopg

    in_postgres(server, small(), "slow")
    with psycopg.connect(server) as db:
        db.execute("ALTER TABLE slow.drug_exposure RENAME TO kept")
        db.execute("CREATE VIEW slow.drug_exposure AS SELECT kept.* FROM slow.kept, pg_sleep(20)")
    with pytest.raises(RecordError, match=r"did not answer in time.*--timeout"):
        read(server, Way(schema="slow", timeout_s=1))


@needs_postgres
def test_nothing_is_written_to_a_server(server: str) -> None:
    """A view that writes fails: the transaction only reads."""
    import psycopg

    in_postgres(server, small(), "trap")
    with psycopg.connect(server) as db:
        db.execute("CREATE TABLE trap.log (n int)")
        db.execute(
            "CREATE FUNCTION trap.write() RETURNS text LANGUAGE sql VOLATILE AS"
            " $$ INSERT INTO trap.log VALUES (1) RETURNING 'x'::text $$"
        )
        db.execute("DROP TABLE trap.death")
        db.execute(
            "CREATE VIEW trap.death AS"
            " SELECT 1 AS person_id, trap.write() AS death_date, NULL AS death_datetime"
        )
    with pytest.raises(RecordError, match="read-only transaction"):
        read(server, Way(schema="trap"))
