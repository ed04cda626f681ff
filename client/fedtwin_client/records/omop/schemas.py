"""In which schema of a database the OMOP tables lie, and which tables and columns are there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedtwin_client.records.omop.tables import CONCEPT, PERSON, READ
from fedtwin_protocol.errors import RecordError

_VOCABULARY = frozenset(
    (CONCEPT, "vocabulary", "domain", "concept_class", "concept_relationship", "relationship")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schemas:
    """Where the tables lie.

    Attributes:
        tables: by name in lower case, the columns' names in lower case.
        places: by name in lower case, the schema and the table as the database writes them.
        written: by table, the columns as the database writes them, by their names in lower case.
    """

    tables: Mapping[str, frozenset[str]]
    places: Mapping[str, tuple[str, str]]
    written: Mapping[str, Mapping[str, str]]

    def columns(self, table: str, names: Iterable[str]) -> list[str]:
        """Columns as the database writes them."""
        return [self.written[table][name] for name in names]


def arrange(
    found: Iterable[tuple[str, str, str]],
    title: str,
    schema: str | None = None,
    vocabulary_schema: str | None = None,
) -> Schemas:
    """Choose the schemas among all that a database has.

    Args:
        found: schema, table and column, of every column.
        title: the database, in words.
        schema: of the clinical tables; none: the only one with a table `person`.
        vocabulary_schema: of the vocabularies; none: the same, or else the only one with `concept`.

    Raises:
        RecordError: no schema fits, or more than one does.
    """
    there: dict[str, dict[str, list[str]]] = {}
    for name, table, column in found:
        there.setdefault(name, {}).setdefault(table, []).append(column)
    main = _choose(there, PERSON, title, "--schema", schema)
    chosen = {table: (main, table) for table in there[main]}
    with_words = [name for name, tables in there.items() if _holds(tables, CONCEPT)]
    if vocabulary_schema is not None or (with_words and main not in with_words):
        other = _choose(there, CONCEPT, title, "--vocabulary-schema", vocabulary_schema)
        chosen = {table: place for table, place in chosen.items() if not _is_vocabulary(table)}
        chosen |= {table: (other, table) for table in there[other] if _is_vocabulary(table)}
    _refuse_two(chosen, title)
    places = {table.lower(): place for table, place in chosen.items()}
    written = {
        table: {column.lower(): column for column in there[place[0]][place[1]]}
        for table, place in places.items()
    }
    return Schemas(
        tables={table: frozenset(columns) for table, columns in written.items()},
        places=places,
        written=written,
    )


def _refuse_two(tables: Iterable[str], title: str) -> None:
    """Refuse tables that only upper and lower case tell apart: either could be the one."""
    spelled: dict[str, str] = {}
    for table in sorted(tables):
        other = spelled.setdefault(table.lower(), table)
        if other != table and table.lower() in (*READ, CONCEPT):
            raise RecordError(
                f"found the tables {other} and {table} in one schema of {title}, where one was "
                "expected; rename or remove the one that is not to be read"
            )


def _choose(
    there: Mapping[str, Mapping[str, object]], table: str, title: str, option: str, said: str | None
) -> str:
    fitting = sorted(name for name, tables in there.items() if _holds(tables, table))
    listed = ", ".join(sorted(there)[:20]) or "none"
    if said is not None:
        if said in fitting:
            return said
        raise RecordError(
            f"found no table {table} in the schema '{said}' of {title}; schemas that can be seen: "
            f"{listed}. Name another with {option}"
        )
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise RecordError(
            f"found a table {table} in the schemas {', '.join(fitting)} of {title}; name one of "
            f"them with {option}"
        )
    raise RecordError(
        f"found no table {table} in {title}; schemas that can be seen: {listed}. Is it an OMOP "
        "database, and may this user see its schema (GRANT USAGE ON SCHEMA)?"
    )


def _holds(tables: Iterable[str], table: str) -> bool:
    return table in (name.lower() for name in tables)


def _is_vocabulary(table: str) -> bool:
    return table.lower() in _VOCABULARY
