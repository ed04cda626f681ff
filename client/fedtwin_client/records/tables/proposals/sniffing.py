"""What form a table's file has: encoding, delimiter, header, and the marks in its numbers.

What cannot be told for sure is said so. A table is looked at from its start: up to 32 MiB and
50,000 lines of CSV, 50,000 rows of Parquet.
"""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedtwin_client.records.tables.figures import PLAIN, Figures
from fedtwin_client.records.tables.proposals.number_marks import figures_of
from fedtwin_client.records.tables.rows import EXCEL_MARK, refuse_foreign, spell_cell
from fedtwin_protocol.errors import RecordError

MOST_BYTES = 32 * 1024 * 1024
MOST_ROWS = 50_000
MOST_COLUMNS = 2_000
_DELIMITERS = (",", ";", "\t", "|")
_FIGURE = re.compile(r"[<>]?=?\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?%?\Z")
_DATE_LIKE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}|\d{4}-\d\d")
_NOTHING = frozenset({"", "?", "NA", "NaN", "null", "NULL", "-", ".", "n/a", "N/A"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The start of a table, as text cells.

    Attributes:
        path: its file.
        format: `csv` or `parquet`.
        encoding: of a CSV file.
        delimiter: between the cells of a CSV file.
        header: whether the first line names the columns.
        figures: the marks in numbers.
        names: the columns; `column_1` and so on without a header.
        columns: the cells of each, stripped.
        skipped: lines that have another number of cells.
        whole: whether all of it was looked at.
        unsure: what a person must look at, by key of the mapping.
    """

    path: Path
    format: str
    encoding: str
    delimiter: str
    header: bool
    figures: Figures
    names: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    skipped: int
    whole: bool
    unsure: dict[str, str]

    @property
    def rows(self) -> int:
        """How many rows were looked at."""
        return len(self.columns[0]) if self.columns else 0


def read_start(path: Path) -> Table:
    """Read the start of a table, and tell its form.

    Raises:
        RecordError: it cannot be read, is no table, or holds no row.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RecordError(f"cannot read the table {path}: {error.strerror}") from error
    if data[:4] == b"PAR1" or path.suffix in {".parquet", ".pq"}:
        return _parquet(path)
    refuse_foreign(path, data)
    return _csv(path, data)


def _parquet(path: Path) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            batch = next(file.iter_batches(batch_size=MOST_ROWS), None)
            whole = file.metadata.num_rows <= MOST_ROWS
            rows = [] if batch is None else batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{path} is not a whole Parquet file: {error}") from error
    _refuse_odd(path, names, len(rows))
    columns = tuple(tuple(spell_cell(row[name]) for row in rows) for name in names)
    return Table(
        path=path,
        format="parquet",
        encoding="utf-8",
        delimiter=",",
        header=True,
        figures=PLAIN,
        names=names,
        columns=columns,
        skipped=0,
        whole=whole,
        unsure={},
    )


def _csv(path: Path, data: bytes) -> Table:
    unsure: dict[str, str] = {}
    whole = len(data) <= MOST_BYTES
    if not whole:
        data = data[: data.rfind(b"\n", 0, MOST_BYTES) + 1]
    encoding, text = _decoded(path, data, unsure)
    if "\0" in text[:100_000]:
        raise RecordError(f"{path} is no text table: it holds zero bytes; export it as CSV")
    if text[: len(EXCEL_MARK)].lower() == EXCEL_MARK:
        text = text.partition("\n")[2]
    delimiter = _delimiter(text, unsure)
    lines, whole_lines = _lines(path, text, delimiter)
    if not lines:
        raise RecordError(f"{path} holds no line; expected a table with a row for each patient")
    header = _has_header(lines, unsure)
    width = len(lines[0]) if header else Counter(map(len, lines)).most_common(1)[0][0]
    body = [line for line in lines[header:] if len(line) == width]
    names = (
        tuple(name.strip() for name in lines[0])
        if header
        else tuple(f"column_{number}" for number in range(1, width + 1))
    )
    if not body and len(lines) > header:
        usual = Counter(len(line) for line in lines[header:]).most_common(1)[0][0]
        raise RecordError(
            f"{path} names {width} columns in its first line, and most of its lines have {usual} "
            "cells; give every column a name, or take away what follows the last one"
        )
    _refuse_odd(path, names, len(body))
    skipped = len(lines) - header - len(body)
    if skipped:
        unsure["lines"] = f"{skipped:,} lines do not have {width} cells; they would be put aside"
    columns = tuple(tuple(cell.strip() for cell in column) for column in zip(*body, strict=True))
    return Table(
        path=path,
        format="csv",
        encoding=encoding,
        delimiter=delimiter,
        header=header,
        figures=figures_of(columns, unsure),
        names=names,
        columns=columns,
        skipped=skipped,
        whole=whole and whole_lines,
        unsure=unsure,
    )


def _refuse_odd(path: Path, names: tuple[str, ...], rows: int) -> None:
    if rows == 0:
        raise RecordError(f"{path} has no row that could be looked at")
    if len(names) > MOST_COLUMNS:
        raise RecordError(
            f"{path} has {len(names):,} columns; expected at most {MOST_COLUMNS:,}, a row for each "
            "patient or visit"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecordError(
            f"{path} has {len(twice)} column names that come twice or are empty; give each column "
            "its own name"
        )


def _decoded(path: Path, data: bytes, unsure: dict[str, str]) -> tuple[str, str]:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            try:
                return encoding, data.decode(encoding)
            except UnicodeDecodeError as error:
                raise RecordError(f"{path} is not whole UTF-16 text: {error.reason}") from error
    try:
        return "utf-8", data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    for encoding in ("cp1252", "latin-1"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        unsure["encoding"] = f"it is not UTF-8; {encoding} fits, and so may others: look at umlauts"
        return encoding, text
    raise AssertionError("latin-1 decodes every byte")


def _delimiter(text: str, unsure: dict[str, str]) -> str:
    """The mark that cuts most of the first lines into one number of cells, more than one."""
    start = text[:200_000]
    scores: dict[str, tuple[float, int]] = {}
    for mark in _DELIMITERS:
        try:
            rows = csv.reader(StringIO(start, newline=""), delimiter=mark)
            widths = Counter(len(row) for _, row in zip(range(200), rows, strict=False) if row)
        except csv.Error:
            continue
        if widths:
            width, count = widths.most_common(1)[0]
            scores[mark] = (count / widths.total() if width > 1 else 0.0, width)
    good = [mark for mark, (share, _) in scores.items() if share >= 0.9]
    if not good:
        best = max(scores, key=lambda mark: scores[mark], default=",")
        best = best if scores.get(best, (0.0, 0))[0] > 0.5 else ","
        unsure["delimiter"] = "no mark cuts the lines into one number of cells"
        return best
    # A comma beside another good mark stands in decimals: 7;5,4;6,1
    others = [mark for mark in good if mark != ","]
    if not others:
        return ","
    best = max(others, key=lambda mark: scores[mark])
    if "," in good and scores[","][1] >= scores[best][1]:
        unsure["delimiter"] = f"commas would cut the lines into {scores[','][1]} cells as well"
    return best


def _lines(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], bool]:
    lines: list[list[str]] = []
    try:
        for line in csv.reader(StringIO(text, newline=""), delimiter=delimiter):
            if len(lines) > MOST_ROWS:
                return lines, False
            if line and any(cell.strip() for cell in line):
                lines.append(line)
    except csv.Error as error:
        raise RecordError(
            f"{path} is not CSV after line {len(lines):,}: {error}; is a quotation mark left open?"
        ) from error
    return lines, True


def _has_header(lines: list[list[str]], unsure: dict[str, str]) -> bool:
    first = [cell.strip() for cell in lines[0]]
    figures = sum(bool(_FIGURE.match(cell) or _DATE_LIKE.match(cell)) for cell in first)
    nothing = sum(cell in _NOTHING for cell in first)
    if figures == 0 and nothing <= 1:
        repeats = sum(
            any(line[place : place + 1] == [lines[0][place]] for line in lines[1:])
            for place in range(len(first))
        )
        if len(lines) > 3 and repeats > len(first) / 2:
            unsure["header"] = "the cells of the first line come again below: are they names?"
        return True
    if figures + nothing < len(first) / 3:
        unsure["header"] = "the first line holds figures beside words: are they names?"
        return True
    unsure["header"] = "the first line holds figures, so it is read as a patient's"
    return False
