"""What the OMOP reader asks of a database, whatever holds it: files, DuckDB or PostgreSQL.

All cells come as text (none where there is nothing), so that one set of rules reads every kind of
database, and a wrong type in a hospital's table is found by those rules and not by a driver.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import pyarrow as pa

from fedtwin_client.records.report import Tally

BATCH_ROWS = 100_000
# Written for what is not there, in files and in columns of text alike.
ABSENT = ("", "NULL", "null", "\\N")


class Database(Protocol):
    """One OMOP database, open for reading."""

    @property
    def title(self) -> str:
        """What it is, in words."""

    @property
    def tables(self) -> Mapping[str, frozenset[str]]:
        """Names of the tables that are there, each with its columns, all in lower case."""

    def rows(self, table: str, columns: Sequence[str], tally: Tally | None) -> Iterator[pa.Table]:
        """All rows of some columns, in parts of limited size.

        Args:
            table: one that is there.
            columns: of the table; all come as strings, in this order.
            tally: takes what is no row at all; none: it is passed over, because the same table is
                read once more.

        Raises:
            RecordError: it cannot be read to its end.
        """

    def chosen(
        self, table: str, columns: Sequence[str], key: str, values: Collection[str]
    ) -> Iterator[pa.Table]:
        """The rows whose key is one of some whole numbers.

        Raises:
            RecordError: it cannot be read to its end.
        """

    def distinct(self, table: str, columns: Sequence[str]) -> set[str]:
        """What stands in any of some columns.

        Raises:
            RecordError: it cannot be read to its end.
        """

    def count(self, table: str) -> int:
        """How many rows a table has.

        Raises:
            RecordError: it cannot be read to its end.
        """

    def close(self) -> None:
        """Let go of it."""


OpenDatabase: TypeAlias = Callable[[], Database]
