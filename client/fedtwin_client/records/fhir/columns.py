"""Lines of FHIR Observations as columns, and which of these lines hold nothing but them.

DuckDB reads the columns, as JSON text, so that a number stays a number. It is lenient where the
reading of single resources is strict: of a key that comes twice it takes the first, and it lets
commas at ends, NaN and the like pass. So a line counts as proven only if one of two things holds:

- its length is the length of what was found. What DuckDB passed over would have made the line
  longer; what it wrote longer than it stood there (1e3 as 1000.0) is left to the other proof;
- pyarrow's JSON reader, which is strict about keys and types, accepts it.
"""

import os
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from fedtwin_client.records.resources import MODIFIERS, may_be_modified

Mask = NDArray[np.bool_]
TEXTS: Final = ("resourceType", "id", "status", "code", "subject", "effectiveDateTime", "issued")
QUANTITY: Final = ("value", "comparator", "unit", "code", "system")
_META: Final = ("lastUpdated", "versionId", "source", "profile", "security", "tag")
KNOWN: Final = frozenset((*TEXTS, "meta", "valueQuantity", "component"))
_MOST_REFUSALS: Final = 20
_AFTER_A_REFUSAL: Final = 64
_SAMPLE: Final = 256
_MOST_BRACKETS: Final = 200
_MOST_IN_A_TEXT: Final = _MOST_BRACKETS // 2  # of one member: it stands in others
_MANY_DIGITS: Final = 600  # Python can be told to stop anywhere from 640 digits on
_LONG_NUMBER: Final = re.compile(rb"[0-9]{600}")
_TWO_DIGITS: Final = re.compile(rb"[0-9][0-9]")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ROW: Final = re.compile(r"in row (\d+)")
_BARE: Final = re.compile(r'(?:":|[\[,]|\A)[-+0-9nNiI]')


class Columns(NamedTuple):
    """Rows of columns, one for each line that is not blank.

    Attributes:
        table: `TEXTS` as JSON text; `meta` and `valueQuantity`, structs of JSON texts; `component`,
            a list of structs of `code` and `valueQuantity`.
        proven: (rows,) whether the line holds these members and no others of their names.
        only_quantities: (rows,) whether no member of the line has another kind of value.
    """

    table: pa.Table
    proven: Mask
    only_quantities: Mask


class ColumnReader:
    """Reads pieces of a file with one DuckDB connection on one thread."""

    def __init__(self) -> None:
        self._db = duckdb.connect()
        self._db.execute("SET threads = 1")
        self._db.execute("SET enable_external_file_cache = false")

    def close(self) -> None:
        """Let go of the memory."""
        self._db.close()

    def read(
        self,
        data: bytes,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        more: Sequence[str],
    ) -> Columns | None:
        """The columns of lines.

        Args:
            data: whole lines.
            starts: (rows,) where each line that is not blank begins.
            lengths: (rows,) of each line, without its line end.
            more: other members that these lines are expected to have.

        Returns:
            The columns, or none if the lines cannot be told apart.
        """
        if b"\r" in data:
            ends = starts + lengths - 1
            lengths = lengths - (np.frombuffer(data, dtype=np.uint8)[ends] == 13)
        try:
            table = self._query(data, more)
        except duckdb.Error:
            return None
        if table.num_rows != len(starts):
            return None
        proven = (_found_length(table, more) == lengths) & ~_doubtful(table, more)
        for name in MODIFIERS.keys() & set(more):
            proven &= ~_present(table[name])
        only = np.ones(len(starts), dtype=np.bool_)
        for name in more:
            if name.startswith("value"):
                only &= ~_present(table[name])
        lines = _Lines(data, starts, lengths)
        observations = _equals(table["resourceType"], '"Observation"')
        rest = np.flatnonzero(observations & ~proven)
        if len(rest):
            accepted = rest[lines.accepted(rest)]
            proven[accepted] = True
            counts = pc.fill_null(pc.list_value_length(table["component"]), 0).to_numpy()
            only[accepted] = lines.count_values(accepted) == 2 * counts[accepted]
        return Columns(table.drop_columns(list(more)), proven & observations, only)

    def _query(self, data: bytes, more: Sequence[str]) -> pa.Table:
        """The lines lie in memory under a name that DuckDB can open."""
        handle = os.memfd_create("lines")
        try:
            os.write(handle, data)
            sql = (
                f"SELECT * FROM read_json('/proc/self/fd/{handle}',"  # noqa: S608 - names checked
                f" columns = {_types(more)},"
                " format = 'newline_delimited', ignore_errors = true,"
                " maximum_object_size = 4194304)"
            )
            return self._db.sql(sql).to_arrow_table().combine_chunks()
        finally:
            os.close(handle)


def _types(more: Sequence[str]) -> str:
    quantity = _struct(QUANTITY)
    columns = [f"'{name}': 'JSON'" for name in (*TEXTS, *more)]
    columns.append(f"'meta': '{_struct(_META)}'")
    columns.append(f"'valueQuantity': '{quantity}'")
    columns.append(f"'component': 'STRUCT(\"code\" JSON, \"valueQuantity\" {quantity})[]'")
    return "{" + ", ".join(columns) + "}"


def _struct(names: Sequence[str]) -> str:
    return "STRUCT(" + ", ".join(f'"{name}" JSON' for name in names) + ")"


def _array(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks else pa.array([], type=column.type)
    return column


def _present(column: Any) -> Mask:
    return np.asarray(_array(column).is_valid())


def _equals(column: Any, text: str) -> Mask:
    return np.asarray(pc.fill_null(pc.equal(_array(column), text), False))


def _member(name: str, column: Any) -> NDArray[np.int64]:
    """Characters that a member takes, with the comma after it."""
    lengths = pc.fill_null(pc.add(pc.binary_length(_array(column)), len(name) + 4), 0)
    return np.asarray(lengths).astype(np.int64)


def _fields(column: pa.Array, names: Sequence[str]) -> dict[str, pa.Array]:
    return dict(zip(names, column.flatten(), strict=True))


def _object(name: str, present: Mask, inside: NDArray[np.int64]) -> NDArray[np.int64]:
    """Characters that a member takes that is an object with at least one member."""
    return np.where(present, inside + 1 + len(name) + 4, 0)


def _inside(column: pa.Array, names: Sequence[str]) -> NDArray[np.int64]:
    total = np.zeros(len(column), dtype=np.int64)
    for name, field in _fields(column, names).items():
        if field.null_count < len(field):
            total += _member(name, field)
    return total


def _found_length(table: pa.Table, more: Sequence[str]) -> NDArray[np.int64]:
    """Characters that the found members take as an object without white space."""
    total = np.ones(table.num_rows, dtype=np.int64)
    for name in (*TEXTS, *more):
        if table[name].null_count < table.num_rows:
            total += _member(name, table[name])
    for name, names in (("meta", _META), ("valueQuantity", QUANTITY)):
        column = _array(table[name])
        total += _object(name, _present(column), _inside(column, names))
    component = _array(table["component"])
    if component.null_count < len(component):
        parts = component.flatten()
        code, quantity = parts.flatten()
        each = _member("code", code) + 2
        each += _object("valueQuantity", _present(quantity), _inside(quantity, QUANTITY))
        counts = pc.fill_null(pc.list_value_length(component), 0).to_numpy()
        sums = np.concatenate([[0], np.cumsum(each)])[np.concatenate([[0], np.cumsum(counts)])]
        total += np.where(_present(component), np.diff(sums) + 1 + len("component") + 4, 0)
    return total


def _doubtful(table: pa.Table, more: Sequence[str]) -> Mask:
    """Rows with something that may stand in the line in fewer characters than it was found in."""
    doubtful = np.zeros(table.num_rows, dtype=np.bool_)
    meta = _fields(_array(table["meta"]), _META)
    for column in (*(table[name] for name in (*TEXTS, *more)), *meta.values()):
        doubtful |= _odd_text(_array(column))
    quantity = _fields(_array(table["valueQuantity"]), QUANTITY)
    doubtful |= _doubtful_number(quantity["value"])
    for name in QUANTITY[1:]:
        doubtful |= _odd_text(quantity[name])
    component = _array(table["component"])
    if component.null_count < len(component):
        parts = component.flatten()
        code, inner = parts.flatten()
        fields = _fields(inner, QUANTITY)
        odd = _doubtful_number(fields["value"])
        for column in (code, *(fields[name] for name in QUANTITY[1:])):
            odd |= _odd_text(column)
        rows = np.repeat(
            np.arange(len(component)), pc.fill_null(pc.list_value_length(component), 0).to_numpy()
        )
        doubtful[rows[odd]] = True
    return doubtful


def numbers_of(texts: pa.Array) -> pa.Array:
    """JSON texts as numbers; null where a text is none."""
    try:
        return pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        texts = pc.if_else(pc.starts_with(texts, '"'), pa.scalar(None, texts.type), texts)
    try:
        return pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        coded = pc.dictionary_encode(texts)
        return pa.array(
            [_number(text) for text in coded.dictionary.to_pylist()], type=pa.float64()
        ).take(coded.indices)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _doubtful_number(texts: pa.Array) -> Mask:
    """Numbers that exponents may write shorter: whole ones as 5.0, small and very large ones."""
    present = np.asarray(texts.is_valid())
    size = np.abs(np.asarray(pc.fill_null(numbers_of(texts), np.nan)))
    certain = (size >= 0.01) & (size < 1e15)
    whole = certain & (size == np.floor(size))
    if whole.any():
        certain[whole] = ~np.asarray(
            pc.fill_null(pc.match_substring(texts.filter(pa.array(whole)), "."), True)
        )
    doubtful: Mask = present & ~certain
    return doubtful


def _odd_text(texts: pa.Array) -> Mask:
    """Rows of JSON texts that may have stood there shorter, or may be nested too deeply."""
    odd = _bare(texts)
    lengths = np.asarray(pc.fill_null(pc.binary_length(texts), 0))
    long = np.flatnonzero(lengths > 2 * _MOST_IN_A_TEXT)  # each bracket is closed
    if len(long):
        coded = pc.dictionary_encode(texts.take(pa.array(long)))
        brackets = pc.add(*(pc.count_substring(coded.dictionary, mark) for mark in "[{"))
        odd[long] |= np.asarray(pc.greater(brackets, _MOST_IN_A_TEXT).take(coded.indices))
    return odd


def _bare(texts: pa.Array) -> Mask:
    """Rows of JSON texts in which a number, null, NaN or the like may stand."""
    if texts.null_count == len(texts):
        return np.zeros(len(texts), dtype=np.bool_)
    if pc.all(pc.starts_with(texts, '"')).as_py():
        return np.zeros(len(texts), dtype=np.bool_)
    if pc.count_distinct(texts.slice(0, _SAMPLE)).as_py() > _SAMPLE // 2:
        return np.asarray(pc.fill_null(pc.match_substring_regex(texts, _BARE.pattern), False))
    coded = pc.dictionary_encode(texts)
    odd = [_BARE.search(text) is not None for text in coded.dictionary.to_pylist()]
    return np.asarray(pc.fill_null(pa.array(odd, type=pa.bool_()).take(coded.indices), False))


class _Lines:
    """Some lines by themselves."""

    def __init__(self, data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self._data, self._starts, self._lengths = data, starts, lengths

    def _line(self, row: int) -> bytes:
        start = int(self._starts[row])
        return self._data[start : start + int(self._lengths[row])]

    def count_values(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many names may begin with `value`; -1 where names may be written with escapes."""
        lines = (self._line(row) for row in rows.tolist())
        counts = [-1 if b"\\u" in line else line.count(b'"value') for line in lines]
        return np.array(counts, dtype=np.int64)

    def accepted(self, rows: NDArray[np.int64]) -> Mask:
        """Which of some rows the strict reader accepts."""
        lines = [self._line(row) for row in rows.tolist()]
        fit = np.array([_is_plain(line) for line in lines], dtype=np.bool_)
        numbers = np.flatnonzero(fit)
        joined = [lines[number] for number in numbers.tolist()]
        fit[numbers] = _accepted(joined)
        return fit


def _is_plain(line: bytes) -> bool:
    """Whether a line is one object on the outside, without what only the strict reader takes."""
    return (
        line[:1] == b"{"
        and line[-1:] == b"}"
        and b"NaN" not in line
        and b"Inf" not in line
        and not _is_extreme(line)
        and (b"\\" not in line or _SURROGATE.search(line) is None)
        and not may_be_modified(line)
        and _is_utf8(line)
    )


def _is_extreme(line: bytes) -> bool:
    """Whether a line may be nested too deeply, or hold a whole number of too many digits."""
    if line.count(b"[") + line.count(b"{") > _MOST_BRACKETS:
        return True
    # Of so many digits at least two lie half as many bytes apart: most lines need no closer look.
    few = _TWO_DIGITS.search(line[:: _MANY_DIGITS // 2])
    return few is not None and _LONG_NUMBER.search(line) is not None


def _is_utf8(line: bytes) -> bool:
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _accepted(lines: list[bytes]) -> Mask:
    accepted = np.zeros(len(lines), dtype=np.bool_)
    start, refusals = 0, 0
    while start < len(lines) and refusals < _MOST_REFUSALS:
        # After a refusal few at a time: those behind the next one are read once more.
        some = lines[start : start + _AFTER_A_REFUSAL] if refusals else lines[start:]
        count, faulty = _refused(some)
        if faulty and count and _refused(some[:count]) != (count, False):
            return accepted
        accepted[start : start + count] = True
        start, refusals = start + count + faulty, refusals + faulty
    return accepted


def _refused(lines: list[bytes]) -> tuple[int, bool]:
    """How many lines stand before the first that the strict reader refuses, and if there is one."""
    data = b"\n".join(lines)
    try:
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=_STRICT, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid as error:
        row = _ROW.search(str(error))
        return (int(row[1]) if row else 0), True
    return (len(lines), False) if table.num_rows == len(lines) else (0, True)


def _strict_schema() -> pa.Schema:
    text = pa.string()
    quantity = pa.struct(
        [("value", pa.float64()), *((name, text) for name in ("comparator", "unit", "code"))]
    )
    coding = pa.list_(pa.struct([("system", text), ("code", text)]))
    code = pa.struct([("coding", coding)])
    return pa.schema(
        [
            *((name, text) for name in ("resourceType", "id", "status")),
            ("code", code),
            ("subject", pa.struct([("reference", text)])),
            *((name, text) for name in ("effectiveDateTime", "issued")),
            ("meta", pa.struct([("lastUpdated", text)])),
            ("valueQuantity", quantity),
            ("component", pa.list_(pa.struct([("code", code), ("valueQuantity", quantity)]))),
        ]
    )


_STRICT: Final = _strict_schema()
