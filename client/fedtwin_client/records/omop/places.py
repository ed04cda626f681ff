"""Where an OMOP database is: a folder or zip of tables, a DuckDB file, a PostgreSQL server."""

from dataclasses import dataclass
from pathlib import Path

from fedtwin_client.records.omop.database import Database, OpenDatabase
from fedtwin_protocol.errors import RecordError

_SERVERS = ("postgresql://", "postgres://")
_DUCKDB = (".duckdb", ".ddb", ".db")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How to get into a database.

    Attributes:
        schema: of the clinical tables; none: the only one with a table `person`.
        vocabulary_schema: of the vocabularies; none: the same, or the only one with `concept`.
        password_file: of a server; none: ~/.pgpass.
        timeout_s: the longest that a server may work on one question, in seconds.
    """

    schema: str | None = None
    vocabulary_schema: str | None = None
    password_file: Path | None = None
    timeout_s: int = 3600


def omop_place(place: str, way: Way) -> OpenDatabase:
    """The database at a place, not opened yet.

    Args:
        place: a path, or an address `postgresql://…`.
        way: how to get in.

    Raises:
        RecordError: there is no such place, or the way does not fit it.
    """
    if place.startswith(_SERVERS):
        return lambda: _server(place, way)
    path = Path(place)
    if way.password_file is not None:
        raise RecordError("--password-file is for a server; leave it out for files")
    if path.is_file() and path.suffix.lower() in _DUCKDB:
        return lambda: _file(path, way)
    if way.schema or way.vocabulary_schema:
        raise RecordError("--schema and --vocabulary-schema are for databases, not for tables")
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip"):
        return lambda: _tables(path)
    raise RecordError(
        "expected a folder or a .zip of OMOP tables (CSV or Parquet), a .duckdb file or an address "
        f"postgresql://user@host/database, found {'no such file' if not path.exists() else path}"
        f"{': ' + place if not path.exists() else ''}"
    )


# Each kind of database brings its library along only where it is used.
def _server(address: str, way: Way) -> Database:
    from fedtwin_client.records.omop.postgres import OmopPostgres  # noqa: PLC0415

    return OmopPostgres(
        address,
        password_file=way.password_file,
        schema=way.schema,
        vocabulary_schema=way.vocabulary_schema,
        timeout_s=way.timeout_s,
    )


def _file(path: Path, way: Way) -> Database:
    from fedtwin_client.records.omop.duckdb import OmopDuckDb  # noqa: PLC0415

    return OmopDuckDb(path, way.schema, way.vocabulary_schema)


def _tables(path: Path) -> Database:
    from fedtwin_client.records.omop.files import OmopFiles  # noqa: PLC0415

    return OmopFiles(path)
