"""Batches of an OMOP table on their way from a database's columns to what the mapper takes."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.records.omop.database import ABSENT
from fedtwin_client.records.omop.tables import CONCEPT_MEANINGS, VISITS, Meaning, Table
from fedtwin_client.records.seen_keys import SeenKeys

VISIT_START = "VISIT_START"
VISIT_END = "VISIT_END"
NO_END = "a visit without an end"
_NUMBERED = (Meaning.ID, Meaning.PERSON, *CONCEPT_MEANINGS)
# R writes NA for what is absent; in a source value it can be a code (sodium).
_NEVER_NA = (
    *_NUMBERED, Meaning.DATE, Meaning.DATETIME, Meaning.END_DATE, Meaning.END_DATETIME,
    Meaning.NUMBER,
)  # fmt: skip
_TEXTS = (Meaning.TEXT, Meaning.SOURCE_TEXT)
_WHOLE = r"^[+-]?\d{1,19}$"
_LARGEST = str(2**63 - 1)


class TableReading:
    """One table on its way from a database's columns to what the mapper takes."""

    def __init__(self, table: Table, columns: Mapping[Meaning, str], concepts: pa.Array) -> None:
        self.table = table
        self.columns = columns
        self._concepts = concepts
        self._seen = SeenKeys()

    def prepare(self, batch: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Name the columns by their meaning; without the rows that have no key of their own.

        Returns:
            The rows, and those that cannot be told apart, with `row`, `key` and `reason`.
        """
        cells = {meaning: _there(meaning, batch[name]) for meaning, name in self.columns.items()}
        for meaning in _NEVER_NA:
            if meaning in cells:
                cells[meaning] = _without_na(cells[meaning])
        for meaning in _NUMBERED:
            if meaning in cells:
                cells[meaning] = _whole_numbers(cells[meaning])
        mapped = pc.is_in(cells[Meaning.CONCEPT], value_set=self._concepts)
        for meaning in (Meaning.SOURCE_VALUE, Meaning.SOURCE_CONCEPT):
            if meaning in cells:
                cells[meaning] = pc.if_else(mapped, None, cells[meaning])
        keys = _keys(cells[Meaning.ID])
        rows = pa.table(
            {
                **{meaning.value: column for meaning, column in cells.items()},
                "row": pa.array(np.arange(batch.num_rows), type=pa.int64()),
                "key": keys,
            }
        )
        reasons = self._reasons(keys)
        wrong = rows.select(["row", "key"]).append_column("reason", reasons)
        unusable = pc.is_valid(reasons)
        return rows.filter(pc.invert(unusable)), wrong.filter(unusable)

    def parts(self, rows: pa.Table) -> Iterator[tuple[pa.Table, str, str]]:
        """What the mapper takes one after the other: rows, the codes' prefix, the source's end."""
        if self.table is not VISITS:
            yield rows, "", ""
            return
        yield rows, VISIT_START, ""
        ends = {"date": "end_date", "datetime": "end_datetime", "answer": "end_answer"}
        kept = [name for name in rows.column_names if name not in {*ends, *ends.values()}]
        ending = rows.select(kept)
        for name, end in ends.items():
            if end in rows.column_names:
                ending = ending.append_column(name, rows[end])
        yield ending, VISIT_END, "/end"

    def _reasons(self, keys: pa.Array) -> pa.Array:
        valid = pc.is_valid(keys)
        fresh = np.ones(len(keys), dtype=np.bool_)
        fresh[valid.to_numpy(zero_copy_only=False)] = self._seen.first_time(
            keys.drop_null().to_numpy()
        )
        name = self.columns[Meaning.ID]
        return pc.case_when(
            pc.make_struct(pc.invert(valid), pc.invert(pa.array(fresh))),
            f"a {name} that is no whole number",
            f"a {name} that stood before",
            pa.scalar(None, pa.string()),
        )


def _keys(column: pa.ChunkedArray) -> pa.Array:
    """Keys as the model's 64-bit numbers, which some databases fill with hashes; else null."""
    digits = pc.replace_substring_regex(column, r"^[+-]", "")
    small = pc.or_(pc.less(pc.utf8_length(digits), 19), pc.less_equal(digits, _LARGEST))
    fit = pc.and_(pc.match_substring_regex(column, _WHOLE), small)
    texts = pc.if_else(pc.fill_null(fit, False), column, None)
    return pc.cast(texts, pa.int64()).combine_chunks()


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without the `.0` that a table through floating-point numbers gets, and without spaces."""
    plain = pc.utf8_trim_whitespace(column)
    if pc.any(pc.match_substring(plain, ".")).as_py():
        return pc.replace_substring_regex(plain, r"\.0*$", "")
    return plain


def _there(meaning: Meaning, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without what stands for nothing: a database of text columns holds it as CSV does."""
    plain = pc.utf8_trim_whitespace(column) if meaning in _TEXTS else column
    nothing = pc.is_in(plain, value_set=pa.array(ABSENT))
    return pc.if_else(nothing, None, column) if pc.any(nothing).as_py() else column


def _without_na(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(column, "NA"), None, column)
