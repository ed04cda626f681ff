"""Reading the lines of a CSV or Parquet file as text cells, with their numbers.

A CSV line with too many or too few cells (a half-written last line, a stray delimiter) is put aside
as a whole, because its cells may stand under the wrong columns.
"""

import csv
import re
from collections.abc import Iterator
from datetime import date, datetime
from io import StringIO
from os import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from fedtwin_client.records.lines import LONGEST_LINE
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.tables.mapping import TableMapping
from fedtwin_protocol.errors import RecordError

_LINE_ENDS = ("\n", "\r")
_SHOWN = 800_000  # more characters than a quarantine keeps, which then says so
EXCEL_MARK = "sep="
"""With what Excel's own line about the delimiter begins, before the names of the columns."""
_LONGEST_SIGN = 16
_EXACT = 2.0**53  # whole numbers up to it are exact
_FOREIGN = {
    b"PK\x03\x04": "is an Excel workbook or an archive; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save the sheet as CSV",
    b"\x1f\x8b": "is compressed with gzip; unpack it first (gunzip)",
    b"%PDF": "is a PDF; ask for the table itself",
    b"SQLite format": "is an SQLite database; export the table as CSV",
}
_FIGURE = re.compile(r"\d[\d.,:/ T+Z-]*")


class Row(NamedTuple):
    """One line: where it stands, and its stripped cells by column."""

    place: Place
    cells: dict[str, str]


def read_rows(path: Path, mapping: TableMapping, tally: Tally) -> Iterator[Row]:
    """All lines of a table that have the right number of cells.

    Raises:
        RecordError: the file cannot be read, or lacks a column that the mapping names.
    """
    form = mapping.format or ("parquet" if path.suffix in {".parquet", ".pq"} else "csv")
    try:
        if form == "parquet":
            yield from _parquet(path, mapping, tally)
            return
        # "-sig" takes a byte-order mark off where there is one, and changes nothing elsewhere.
        utf8 = mapping.encoding.lower().replace("_", "-") in {"utf-8", "utf8"}
        encoding = "utf-8-sig" if utf8 else mapping.encoding
        with path.open("rb") as raw:
            refuse_foreign(path, raw.read(_LONGEST_SIGN))
        with path.open(encoding=encoding, newline="") as file:
            yield from _csv(file, path, mapping, tally)
    except OSError as error:
        raise RecordError(f"cannot read the table {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(
            f"{path} is not {mapping.encoding.removesuffix('-sig')} text ({error.reason}); set "
            f"'encoding' in the mapping, for example to {_other_encoding(path)}"
        ) from error
    except pa.ArrowException as error:
        raise RecordError(f"{path} is not a whole Parquet file: {error}") from error


def refuse_foreign(path: Path, start: bytes) -> None:
    """Refuse what is no text.

    Args:
        path: the file, for the sentence.
        start: its first bytes.

    Raises:
        RecordError: it is an Excel workbook, a compressed file or the like.
    """
    for sign, says in _FOREIGN.items():
        if start.startswith(sign):
            raise RecordError(f"{path} {says}")


def _other_encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in {b"\xff\xfe", b"\xfe\xff"} else "cp1252"


def spell_cell(cell: Any) -> str:
    """A cell of Parquet as a CSV file would hold it; empty for what is absent."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _EXACT:
        return str(int(cell))  # a patient's number in a column with gaps is no 4711.0
    return str(cell).strip()


def other_number(names: list[str], cells: list[str]) -> str:
    """Why a line is not read that has more or fewer cells than there are names."""
    return f"expected {len(names)} cells, found {min(len(cells), 10_000)}"


def _written(names: list[str], delimiter: str, *lines: list[str]) -> str:
    """Lines as CSV below the names of the columns, to be mended and read again."""
    text = StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([names, *lines])
    return text.getvalue()


class _LongLineError(Exception):
    """A line that is longer than the limit, and was passed over."""


class _Swallowed:
    """The lines that were read since the last row, to have them where no row can be made.

    Attributes:
        lines: since they were last cleared; of one that is too long, its beginning.
        number: of the line that was read last, from 1.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.lines: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == LONGEST_LINE and not line.endswith(_LINE_ENDS):
            self.lines.append(line[:_SHOWN])
            while line and not line.endswith(_LINE_ENDS):
                line = self._file.readline(LONGEST_LINE)
            raise _LongLineError
        self.lines.append(line)
        return line


def _put_aside_lines(reason: str, place: Place, names: str, lines: list[str], tally: Tally) -> None:
    """Put aside what a quote without its end has swallowed: every line of it is counted."""
    count = max(1, len(lines))
    tally.read["rows"] += count
    tally.wrong(reason, place)
    for number in range(1, count):
        tally.skip(reason, Place(place.file, place.line + number))
    tally.set_aside([reason], place, names + "".join(lines))


def _has_end(path: Path) -> bool:
    """Whether a file ends with the end of a line; a line that was cut off can look whole."""
    with path.open("rb") as file:
        file.seek(0, SEEK_END)
        file.seek(max(0, file.tell() - 2))
        tail = file.read()
    return b"\n" in tail or b"\r" in tail


def _csv(file: TextIO, path: Path, mapping: TableMapping, tally: Tally) -> Iterator[Row]:
    lines = _Swallowed(file)
    reader = csv.reader(lines, delimiter=mapping.delimiter, strict=True)
    names = list(mapping.column_names)
    if mapping.header:
        names = _header(reader, path)
    _check_columns(names, path, mapping)
    while True:
        place = Place(path.name, lines.number + 1)
        lines.lines.clear()
        try:
            cells = next(reader, None)
        except (csv.Error, _LongLineError) as error:
            long = isinstance(error, _LongLineError)
            reason = "a line of more than 16 MiB" if long else f"not CSV: {error}"
            head = _written(names, mapping.delimiter)
            _put_aside_lines(reason, place, head, lines.lines, tally)
            continue
        if cells is None:
            if not _has_end(path):
                place = Place(path.name, lines.number)
                tally.note("the last line has no line end: was the file cut off?", place)
            return
        if not cells or (len(names) > 1 and not any(cell.strip() for cell in cells)):
            continue
        tally.read["rows"] += 1
        place = Place(path.name, lines.number)
        if len(cells) != len(names):
            raw = _written(names, mapping.delimiter, cells)
            tally.put_aside(other_number(names, cells), place, raw)
            continue
        yield Row(place, {name: cell.strip() for name, cell in zip(names, cells, strict=True)})


def _header(reader: Any, path: Path) -> list[str]:
    try:
        names = [name.strip() for name in next(reader, [])]
        if names and names[0].lower().startswith(EXCEL_MARK) and "".join(names[1:]) == "":
            names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise RecordError(f"the first line of {path} is not CSV: {error}") from error
    except _LongLineError as error:
        raise RecordError(f"the first line of {path} is longer than 16 MiB: no table") from error
    if not names:
        raise RecordError(f"expected the names of the columns in the first line of {path}")
    # A spreadsheet's further columns often have no name, and then no mapping asks for them.
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        # Named only where the line is one of names: without it a patient's row stands there.
        named = "the same" if any(_FIGURE.fullmatch(name) for name in names) else ", ".join(twice)
        raise RecordError(f"{path} has several columns named {named}; rename them")
    return names


def _parquet(path: Path, mapping: TableMapping, tally: Tally) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        names = list(file.schema_arrow.names)
        _check_columns(names, path, mapping)
        number = 0
        for batch in file.iter_batches(columns=mapping.needed()):
            for cells in batch.to_pylist():
                number += 1
                tally.read["rows"] += 1
                yield Row(
                    Place(path.name, number),
                    {name: spell_cell(cell) for name, cell in cells.items()},
                )


def _check_columns(names: list[str], path: Path, mapping: TableMapping) -> None:
    absent = [name for name in mapping.needed() if name not in names]
    if absent:
        whole = len(names) == 1 and any(mark in names[0] for mark in ";\t|")
        hint = ". Is 'delimiter' in the mapping right?" if whole else ""
        raise RecordError(
            f"the mapping names the columns {', '.join(absent)}, which {path} lacks; "
            f"{_shown(names)}{hint}"
        )


def _shown(names: list[str]) -> str:
    """The names of the columns, unless the line that should hold them is one of a patient."""
    if not any(_FIGURE.fullmatch(name) for name in names):
        return f"it has: {', '.join(names)}"
    return (
        "its first line holds figures or dates, so it looks like a patient's and is not shown: if "
        "the file has no line of names, write 'header: false' and 'column_names' into the mapping"
    )
