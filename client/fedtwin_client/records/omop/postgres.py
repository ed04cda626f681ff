"""An OMOP database on a PostgreSQL server, read in one read-only transaction.

All tables are read as of one moment (REPEATABLE READ), through server-side cursors, a limited
number of rows at a time. The password comes from ~/.pgpass or a file, never from the address, which
other users of the machine could see.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from fedtwin_client.records.omop.schemas import arrange
from fedtwin_client.records.omop.sql import Questions
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError

_ROWS = 50_000
_CONNECT_S = 10
# From the catalogue and not from information_schema, which hides tables without rights: a missing
# table and a missing right are two faults.
_COLUMNS = """
SELECT n.nspname, c.relname, a.attname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY a.attnum
"""


class OmopPostgres:
    """The tables of a PostgreSQL database.

    Attributes:
        title: what it is, in words.
        tables: names of the tables, each with its columns.
    """

    def __init__(
        self,
        address: str,
        *,
        password_file: Path | None = None,
        schema: str | None = None,
        vocabulary_schema: str | None = None,
        timeout_s: int = 3600,
    ) -> None:
        """Connect and begin the transaction.

        Args:
            address: `postgresql://user@host:port/database`, without a password.
            password_file: holds the password alone; none: libpq looks in ~/.pgpass.
            schema: of the clinical tables; none: the only one with a table `person`.
            vocabulary_schema: of the vocabularies; none: the same, or the only one with `concept`.
            timeout_s: the longest that the server may work on one question, in seconds.

        Raises:
            RecordError: the address holds a password, the server does not answer or refuses, or the
                database has no such schema.
        """
        parameters = _parameters(address, password_file)
        host, name = parameters.get("host") or "this machine", parameters.get("dbname")
        self.title = f"the OMOP database {name} on {host}"
        self._questions = Questions("postgres")
        with ExitStack() as undo:
            with self._explained():
                self._db = undo.enter_context(closing(psycopg.connect(**parameters)))
                found = self._begin(timeout_s)
            self._schemas = arrange(found, self.title, schema, vocabulary_schema)
            undo.pop_all()
        self.tables: Mapping[str, frozenset[str]] = self._schemas.tables

    def _begin(self, timeout_s: int) -> list[Any]:
        """Begin the transaction; all columns of all tables that can be seen."""
        self._db.read_only = True
        self._db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for setting, value in (
            ("statement_timeout", f"{timeout_s}s"),
            ("datestyle", "ISO"),
            ("timezone", "UTC"),
            ("extra_float_digits", "3"),
        ):
            self._db.execute("SELECT set_config(%s, %s, false)", (setting, value))
        return self._db.execute(_COLUMNS).fetchall()

    def rows(self, table: str, columns: Sequence[str], tally: Tally | None) -> Iterator[pa.Table]:
        """All rows of some columns, as text.

        Raises:
            RecordError: the server fails, or refuses for want of rights.
        """
        place, names = self._schemas.places[table], self._schemas.columns(table, columns)
        yield from self._answers(self._questions.rows(*place, names), columns)

    def chosen(
        self, table: str, columns: Sequence[str], key: str, values: Collection[str]
    ) -> Iterator[pa.Table]:
        """The rows whose key is one of some whole numbers.

        Raises:
            RecordError: the server fails, or refuses for want of rights.
        """
        place, names = self._schemas.places[table], self._schemas.columns(table, columns)
        (key,) = self._schemas.columns(table, [key])
        for question in self._questions.chosen(*place, names, key, values):
            yield from self._answers(question, columns)

    def distinct(self, table: str, columns: Sequence[str]) -> set[str]:
        """What stands in any of some columns.

        Raises:
            RecordError: the server fails, or refuses for want of rights.
        """
        place = self._schemas.places[table]
        found: set[str] = set()
        for name in self._schemas.columns(table, columns):
            for batch in self._answers(self._questions.distinct(*place, name), [name]):
                found.update(batch[name].drop_null().to_pylist())
        return found

    def count(self, table: str) -> int:
        """How many rows a table has.

        Raises:
            RecordError: the server fails, or refuses for want of rights.
        """
        with self._explained():
            row = self._db.execute(self._questions.count(*self._schemas.places[table])).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """End the transaction and the connection."""
        self._db.close()

    def _answers(self, question: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        with self._explained(), self._db.cursor(name="fedtwin") as cursor:
            cursor.execute(question)
            while rows := cursor.fetchmany(_ROWS):
                cells = zip(*rows, strict=True)
                arrays = [pa.array(column, type=pa.string()) for column in cells]
                yield pa.table(arrays, names=list(columns))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise RecordError(
                f"{self.title} refuses: {_first_line(error)}; let its administrator say "
                "GRANT SELECT ON ALL TABLES IN SCHEMA … TO this user"
            ) from error
        except psycopg.errors.QueryCanceled as error:
            raise RecordError(
                f"{self.title} did not answer in time: {_first_line(error)}; nothing was imported. "
                "Give it longer with --timeout"
            ) from error
        except psycopg.Error as error:
            raise RecordError(
                f"cannot read {self.title}: {_first_line(error)}; nothing was imported. Check "
                "the address, that the server runs, and the password in ~/.pgpass or "
                "--password-file"
            ) from error


def _parameters(address: str, password_file: Path | None) -> dict[str, Any]:
    """What to connect with.

    Raises:
        RecordError: the address is none or holds a password, or the password file is not safe.
    """
    try:
        parameters: dict[str, Any] = conninfo_to_dict(address)
    except psycopg.Error as error:
        raise RecordError(
            "expected an address such as postgresql://user@host:5432/database, found something "
            f"else: {_first_line(error)}"
        ) from error
    if "password" in parameters:
        raise RecordError(
            "expected an address without a password, because other users of this machine can see "
            "it; put the password into ~/.pgpass, or into a file for --password-file"
        )
    if password_file is not None:
        parameters["password"] = _password(password_file)
    if "sslmode" not in parameters and "PGSSLMODE" not in os.environ and _elsewhere(parameters):
        parameters["sslmode"] = "require"
    return {"connect_timeout": _CONNECT_S, "application_name": "fedtwin", **parameters}


def _elsewhere(parameters: Mapping[str, Any]) -> bool:
    host = str(parameters.get("host") or "")
    return bool(host) and not host.startswith("/") and host not in {"localhost", "127.0.0.1", "::1"}


def _password(file: Path) -> str:
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise RecordError(f"{file} can be read by other users; run 'chmod 600 {file}'")
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read the password file {file}: {error}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
