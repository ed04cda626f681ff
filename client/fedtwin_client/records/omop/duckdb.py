"""An OMOP database in a DuckDB file, opened for reading alone and cut off from everything else."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from fedtwin_client.records.omop.database import BATCH_ROWS
from fedtwin_client.records.omop.schemas import arrange
from fedtwin_client.records.omop.sql import Questions
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError

_COLUMNS = """
SELECT table_schema, table_name, column_name FROM information_schema.columns
WHERE table_catalog = current_database() ORDER BY ordinal_position
"""


class OmopDuckDb:
    """The tables of a DuckDB file.

    A view in the file that would read other files or the network is refused by DuckDB.

    Attributes:
        title: what it is, in words.
        tables: names of the tables, each with its columns.
    """

    def __init__(
        self, path: Path, schema: str | None = None, vocabulary_schema: str | None = None
    ) -> None:
        """Open the file.

        Args:
            path: the file.
            schema: of the clinical tables; none: the only one with a table `person`.
            vocabulary_schema: of the vocabularies; none: the same, or the only one with `concept`.

        Raises:
            RecordError: it is no such file, another program writes to it, or it has no such schema.
        """
        self.title = f"the OMOP database {path.name}"
        self._questions = Questions("duckdb")
        config: dict[str, str | bool | int | float | list[str]] = {
            "enable_external_access": "false",
            "temp_directory": "",
        }
        with ExitStack() as undo:
            with self._explained():
                opened = duckdb.connect(str(path), read_only=True, config=config)
                self._db = undo.enter_context(closing(opened))
                self._db.execute("SET TimeZone = 'UTC'")
                found = self._db.execute(_COLUMNS).fetchall()
            self._schemas = arrange(found, self.title, schema, vocabulary_schema)
            undo.pop_all()
        self._cursors: list[duckdb.DuckDBPyConnection] = []
        self.tables: Mapping[str, frozenset[str]] = self._schemas.tables

    def rows(self, table: str, columns: Sequence[str], tally: Tally | None) -> Iterator[pa.Table]:
        """All rows of some columns, as text.

        Raises:
            RecordError: the file is damaged.
        """
        place, names = self._schemas.places[table], self._schemas.columns(table, columns)
        yield from self._answers(self._questions.rows(*place, names), columns)

    def chosen(
        self, table: str, columns: Sequence[str], key: str, values: Collection[str]
    ) -> Iterator[pa.Table]:
        """The rows whose key is one of some whole numbers.

        Raises:
            RecordError: the file is damaged.
        """
        place, names = self._schemas.places[table], self._schemas.columns(table, columns)
        (key,) = self._schemas.columns(table, [key])
        for question in self._questions.chosen(*place, names, key, values):
            yield from self._answers(question, columns)

    def distinct(self, table: str, columns: Sequence[str]) -> set[str]:
        """What stands in any of some columns.

        Raises:
            RecordError: the file is damaged.
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
            RecordError: the file is damaged.
        """
        with self._explained():
            ((rows,),) = self._db.execute(
                self._questions.count(*self._schemas.places[table])
            ).fetchall()
        return int(rows)

    def close(self) -> None:
        """Stop what is under way, whoever still holds it, and close the file."""
        for cursor in self._cursors:
            cursor.close()
        self._db.close()

    def _answers(self, question: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        with self._explained(), self._cursor() as cursor:
            for batch in cursor.sql(question).to_arrow_reader(BATCH_ROWS):
                table = pa.Table.from_batches([batch]).rename_columns(list(columns))
                yield table.cast(pa.schema([(name, pa.string()) for name in columns]))

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with closing(self._db.cursor()) as cursor:
            self._cursors.append(cursor)
            try:
                yield cursor
            finally:
                self._cursors.remove(cursor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise RecordError(
                f"cannot read {self.title}: {str(error).splitlines()[0]}; nothing was imported. "
                "Is it a DuckDB file, and does no other program write to it?"
            ) from error
