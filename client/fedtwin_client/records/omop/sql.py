"""The few questions that are asked of a database, written once for every SQL that it may speak.

They are built as expressions and written out by sqlglot in the database's own dialect, with every
name quoted: a schema or a table is never pasted into a text.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Literal, TypeAlias

from sqlglot import exp

Dialect: TypeAlias = Literal["duckdb", "postgres"]
_VALUES_AT_ONCE = 2_000


class Questions:
    """Questions to the tables of one database, as SQL text in its dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def rows(self, schema: str, table: str, columns: Sequence[str]) -> str:
        """All rows of some columns, as text."""
        return self._text(_select(columns).from_(_table(schema, table)))

    def distinct(self, schema: str, table: str, column: str) -> str:
        """What stands in one column."""
        return self._text(_select([column]).distinct().from_(_table(schema, table)))

    def count(self, schema: str, table: str) -> str:
        """How many rows a table has."""
        return self._text(exp.select(exp.Count(this=exp.Star())).from_(_table(schema, table)))

    def chosen(
        self, schema: str, table: str, columns: Sequence[str], key: str, values: Collection[str]
    ) -> Iterator[str]:
        """The rows whose key is one of some whole numbers, a limited number of them at once."""
        left = iter(sorted(int(value) for value in values))
        while some := list(islice(left, _VALUES_AT_ONCE)):
            where = exp.In(
                this=_column(key), expressions=[exp.Literal.number(value) for value in some]
            )
            yield self._text(_select(columns).from_(_table(schema, table)).where(where))

    def _text(self, question: exp.Expression) -> str:
        return question.sql(dialect=self._dialect)


def _select(columns: Sequence[str]) -> exp.Select:
    return exp.select(
        *(
            exp.alias_(exp.cast(_column(name), exp.DataType.Type.TEXT), name, quoted=True)
            for name in columns
        )
    )


def _column(name: str) -> exp.Column:
    return exp.column(name, quoted=True)


def _table(schema: str, table: str) -> exp.Table:
    return exp.table_(table, db=schema, quoted=True)
