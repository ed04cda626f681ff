"""Rows of OMOP's clinical tables into events, a whole batch at a time.

Few rows of a batch differ in what they say apart from their value: the same concept, unit and day
come again and again. Each different saying is understood once, by the rules of every door, and
DuckDB joins what it means to all rows that say it. A test holds that to what one row alone gives.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.records.omop.codes import Concepts, Said, Understood
from fedtwin_client.records.omop.tables import Meaning
from fedtwin_client.records.omop.times import RowTimes
from fedtwin_client.records.reading import TOO_LARGE, Reading

BEFORE_BIRTH = "lies before birth"
AFTER_DEATH = "lies after death"
SOURCE_BOUND = "a comparator that value_source_value alone has"
TWO_DAYS = "the date and the datetime are of different days"
UNKNOWN_PERSON = "refers to a person that is not known"
PERSON_NOT_USED = "of a person who is not used"

_REMEMBERED = 100_000
_TIMESTAMP = pa.timestamp("us")
_UNDERSTOOD = pa.schema(
    [
        *((name, pa.string()) for name in Said._fields),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("number_reason", pa.string()),
        ("known", pa.bool_()),
        ("unit_kept", pa.string()),
        ("src_unit", pa.string()),
        ("factor", pa.float64()),
        ("shift", pa.float64()),
        ("comparator", pa.string()),
        ("answer_code", pa.string()),
        ("answer_number", pa.float64()),
        ("saying", pa.int64()),
    ]
)
PEOPLE = pa.schema(
    [
        ("person", pa.string()),
        ("subject_id", pa.int64()),
        ("birth", _TIMESTAMP),
        ("death", _TIMESTAMP),
    ]
)
_SAME_SAYING = " AND ".join(f"b.{name} IS NOT DISTINCT FROM s.{name}" for name in Said._fields)
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
# `<5` beside the number 5, where no operator says so: a bound that would be read as a value.
_SOURCE_BOUND = f"""
CASE WHEN ltrim(b.source_text)[1] IN ('<', '>') AND coalesce(b.operator, '0') = '0'
  AND try_cast(regexp_extract(b.source_text, '^\\s*[<>]=?\\s*({_NUMBER})\\s*$', 1) AS DOUBLE)
    = try_cast(trim(b.number) AS DOUBLE)
  THEN regexp_extract(b.source_text, '[<>]=?') END
"""
_MAP = f"""
WITH said AS (
  SELECT b.row, b.key, b.person, b.number, coalesce(b.text, b.source_text) AS answer_text,
    {_SOURCE_BOUND} AS source_bound,
    p.person AS found, p.subject_id, p.birth, p.death,
    coalesce(e.time, d.time) AS time, coalesce(e.available_time, d.available_time)
      AS available_time, coalesce(e.time, d.latest) AS latest,
    CASE WHEN e.row IS NULL THEN d.time_reason END AS time_reason,
    CASE WHEN e.row IS NULL THEN d.two_days END AS two_days,
    s.* EXCLUDE ({", ".join(Said._fields)}),
    CASE WHEN regexp_full_match(trim(b.number), '{_NUMBER}')
      THEN try_cast(trim(b.number) AS DOUBLE) END AS written
  FROM batch b
  LEFT JOIN people p ON p.person = b.person
  LEFT JOIN exact e ON e.row = b.row
  LEFT JOIN days d
    ON d.date IS NOT DISTINCT FROM b.date AND d.datetime IS NOT DISTINCT FROM b.datetime
  LEFT JOIN sayings s ON {_SAME_SAYING}
), valued AS (
  SELECT *, written * factor + shift AS number_kept FROM said
)
SELECT row, key, subject_id, time, available_time, code, saying,
  CASE WHEN number IS NULL THEN answer_number ELSE number_kept END AS numeric_value,
  coalesce(answer_code, CASE WHEN number IS NULL THEN answer_text END) AS text_value,
  CASE WHEN number IS NOT NULL THEN unit_kept END AS unit,
  CASE WHEN number IS NOT NULL THEN src_unit END AS src_unit,
  CASE WHEN number IS NOT NULL THEN coalesce(comparator, source_bound) END AS comparator,
  CASE
    WHEN person IS NULL THEN 'no patient'
    WHEN found IS NULL THEN '{UNKNOWN_PERSON}'
    WHEN subject_id IS NULL THEN '{PERSON_NOT_USED}'
    WHEN time_reason IS NOT NULL THEN time_reason
    WHEN reason IS NOT NULL THEN reason
    WHEN number IS NOT NULL AND number_reason IS NOT NULL THEN number_reason
    WHEN number IS NOT NULL AND written IS NULL THEN 'expected a number, found text'
    WHEN number IS NOT NULL AND NOT isfinite(written) THEN 'expected a finite number'
    WHEN number IS NOT NULL AND NOT isfinite(number_kept) THEN '{TOO_LARGE}'
    WHEN number IS NULL AND answer_code IS NULL AND answer_text IS NOT NULL AND known
      THEN 'expected a number, found text'
  END AS reason,
  coalesce(latest < birth, false) AS before_birth,
  coalesce(time > death, false) AS after_death,
  coalesce(two_days, false) AS two_days,
  source_bound IS NOT NULL AS source_bound
FROM valued ORDER BY row
"""  # noqa: S608 - of constants


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapped:
    """What a batch became.

    Attributes:
        events: `key`, `subject_id`, `time`, `available_time` (UTC), `code`, `numeric_value`,
            `text_value`, `unit`, `src_unit`, `comparator`.
        unused: the other rows, with `row` (its place in the batch), `key` and `reason`.
        notes: how often something is worth a look, with the key of one such row.
    """

    events: pa.Table
    unused: pa.Table
    notes: Mapping[str, tuple[int, int]]


class RowMapper:
    """Maps batches of one database."""

    def __init__(self, reading: Reading, concepts: Concepts, people: pa.Table) -> None:
        """Start.

        Args:
            reading: the import's rules and account.
            concepts: those that the database uses.
            people: the persons, as in `PEOPLE`; without a subject_id those who are not used.
        """
        self._concepts = concepts
        self._db = duckdb.connect()
        self._db.execute("SET temp_directory = ''")
        self._db.register("given", people)
        self._db.execute("CREATE TABLE people AS SELECT * FROM given")
        self._times = RowTimes(reading)
        self._understood: dict[tuple[str, Said], Understood] = {}

    def map(self, batch: pa.Table, prefix: str = "", delay: timedelta = timedelta(0)) -> Mapped:
        """Map one batch.

        Args:
            batch: text, with the columns of `Meaning`; and `row` and `key`, whole numbers.
            prefix: of the code, in place of the vocabulary.
            delay: how long after it happened something became known.
        """
        whole = _with_all_columns(batch)
        self._db.register("batch", whole)
        self._times.read(self._db, delay)
        sayings, understood = self._sayings(whole, prefix)
        self._db.register("sayings", sayings)
        mapped = self._db.sql(_MAP).to_arrow_table()
        used = pc.is_null(mapped["reason"])
        events = mapped.filter(used)
        return Mapped(
            events=events,
            unused=mapped.select(["row", "key", "reason"]).filter(pc.invert(used)),
            notes=_notes(events, understood),
        )

    def close(self) -> None:
        """Let go of the memory."""
        self._db.close()

    def _sayings(self, batch: pa.Table, prefix: str) -> tuple[pa.Table, list[Understood]]:
        concepts = self._concepts.prefixed(prefix) if prefix else self._concepts
        rows: list[tuple[Any, ...]] = []
        understood: list[Understood] = []
        for cells in _distinct(batch, Said._fields):
            said = Said(*cells)
            found = self._understood.get((prefix, said))
            if found is None:
                if len(self._understood) >= _REMEMBERED:
                    self._understood.clear()
                found = self._understood[prefix, said] = concepts.understand(said)
            values = [getattr(found, field.name) for field in fields(found)]
            rows.append((*said, *values[:-1], len(understood)))
            understood.append(found)
        return _table(rows, _UNDERSTOOD), understood


def _with_all_columns(batch: pa.Table) -> pa.Table:
    for meaning in Meaning:
        if meaning.value not in batch.column_names:
            batch = batch.append_column(meaning.value, pa.nulls(batch.num_rows, pa.string()))
    return batch


def _distinct(batch: pa.Table, names: Iterable[str]) -> Iterable[tuple[Any, ...]]:
    columns = list(names)
    different = batch.select(columns).group_by(columns).aggregate([])
    return zip(*(different[name].to_pylist() for name in columns), strict=True)


def _notes(events: pa.Table, understood: list[Understood]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for name, note in (
        ("before_birth", BEFORE_BIRTH),
        ("after_death", AFTER_DEATH),
        ("two_days", TWO_DAYS),
        ("source_bound", SOURCE_BOUND),
    ):
        some = events.filter(events[name])
        if some.num_rows:
            found[note] = (some.num_rows, some["key"][0].as_py())
    counted = events.group_by("saying").aggregate([("key", "count"), ("key", "min")])
    for saying, count, key in zip(
        *(counted[name].to_pylist() for name in ("saying", "key_count", "key_min")), strict=True
    ):
        for note in understood[saying].notes:
            before, first = found.get(note, (0, key))
            found[note] = (before + count, first)
    return found


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        pa.array(cells, type=field.type) for cells, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
