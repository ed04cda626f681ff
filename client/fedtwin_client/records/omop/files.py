"""An OMOP database as files: a folder or a zip of CSV (also gzipped) or Parquet, a table each.

A table is a file of its name in any case (`PERSON.csv`, `person.parquet`) or a folder of that name
with Parquet parts. CSV is read as a stream, from a zip without unpacking it, so that no copy of a
record comes to lie on the disk. Where the header is parted by tabs nothing is quoted, unless the
names are: OHDSI's vocabularies come with quotation marks that have no end (athena.ohdsi.org).
"""

import csv
import gzip
import zipfile
import zlib
from codecs import getincrementaldecoder
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from fedtwin_client.records.arrow_streams import Batches, batches_of
from fedtwin_client.records.omop.database import ABSENT, BATCH_ROWS
from fedtwin_client.records.report import Place, Tally
from fedtwin_protocol.errors import RecordError

_PARQUET = ".parquet"
_ENDINGS = (".csv", ".csv.gz", _PARQUET)
_DELIMITERS = ",\t;|"
_LONGEST_LINE = 8 * 1024 * 1024
_LONGEST_HEADER = 64 * 1024
_MARKS_STAY = "a cell in quotation marks, which stay: between tabs, and the names have none"
_FORGOTTEN_QUOTE = "has a quotation mark without its end"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Csv:
    """How one CSV file is written."""

    columns: tuple[str, ...]
    delimiter: str
    quoted: bool


class OmopFiles:
    """The tables of a folder or a zip.

    Attributes:
        title: what it is, in words.
        tables: names of the tables, each with its columns.
    """

    def __init__(self, path: Path) -> None:
        """Find the tables and read the names of their columns.

        Args:
            path: the folder or the zip.

        Raises:
            RecordError: it cannot be read, or a table is there twice.
        """
        self.title = f"OMOP tables of {path.resolve().name}"
        self._path = path
        self._zip = None if path.is_dir() else _open_zip(path)
        members = self._members()
        self._parts: dict[str, list[str]] = {}
        for name in sorted(members):
            self._parts.setdefault(_table_of(name), []).append(name)
        self._forms: dict[str, _Csv] = {}
        self._unfinished: list[Batches] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            self.tables: Mapping[str, frozenset[str]] = {
                table: self._columns(table, parts) for table, parts in self._parts.items()
            }
            undo.pop_all()

    def rows(self, table: str, columns: Sequence[str], tally: Tally | None) -> Iterator[pa.Table]:
        """All rows of some columns, as text.

        Raises:
            RecordError: a file cannot be read to its end.
        """
        for part in self._parts[table]:
            with self._explained(part):
                if part.lower().endswith(_PARQUET):
                    yield from self._parquet(part, columns)
                else:
                    yield from self._csv(part, columns, tally)

    def chosen(
        self, table: str, columns: Sequence[str], key: str, values: Collection[str]
    ) -> Iterator[pa.Table]:
        """The rows whose key is one of some whole numbers.

        Raises:
            RecordError: a file cannot be read to its end.
        """
        wanted = pa.array(sorted(values), type=pa.string())
        for batch in self.rows(table, columns, None):
            plain = pc.replace_substring_regex(batch[key], r"\.0*$", "")  # of floating point
            yield batch.filter(pc.is_in(plain, value_set=wanted))

    def distinct(self, table: str, columns: Sequence[str]) -> set[str]:
        """What stands in any of some columns.

        Raises:
            RecordError: a file cannot be read to its end.
        """
        found: set[str] = set()
        for batch in self.rows(table, columns, None):
            for column in batch.columns:
                found.update(pc.unique(column).drop_null().to_pylist())
        return found

    def count(self, table: str) -> int:
        """How many rows a table has.

        Raises:
            RecordError: a file cannot be read to its end.
        """
        some = sorted(self.tables[table])[:1]
        return sum(batch.num_rows for batch in self.rows(table, some, None))

    def close(self) -> None:
        """Stop what is under way, whoever still holds it, and close the zip."""
        for batches in [*self._unfinished]:
            batches.close()
        if self._zip is not None:
            self._zip.close()

    def _members(self) -> list[str]:
        if self._zip is not None:
            names = [item.filename for item in self._zip.infolist() if not item.is_dir()]
        else:
            files = (file for file in self._path.rglob("*") if file.is_file())
            names = [file.relative_to(self._path).as_posix() for file in files]
        return [name for name in names if _is_table(name)]

    def _columns(self, table: str, parts: list[str]) -> frozenset[str]:
        whole = [part for part in parts if not _in_folder_of(part, table)]
        if len(parts) > 1 and whole:
            raise RecordError(
                f"expected the table {table} once in {self._path}, found {', '.join(parts)}; "
                "keep one of them"
            )
        with self._explained(parts[0]):
            if parts[0].lower().endswith(_PARQUET):
                with self._open(parts[0]) as stream, pq.ParquetFile(stream) as file:
                    return frozenset(name.lower() for name in file.schema_arrow.names)
            return frozenset(self._form(parts[0]).columns)

    def _form(self, part: str) -> _Csv:
        if part not in self._forms:
            with self._open(part) as stream:
                self._forms[part] = _read_header(stream.readline(_LONGEST_HEADER), part)
        return self._forms[part]

    @contextmanager
    def _open(self, part: str) -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            if self._zip is not None:
                stream = cast("BinaryIO", stack.enter_context(self._zip.open(part)))
            else:
                stream = stack.enter_context((self._path / part).open("rb"))
            if part.lower().endswith(".gz"):
                stream = cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=stream)))
            yield stream

    def _parquet(self, part: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        with self._open(part) as stream, pq.ParquetFile(stream) as file:
            written = {name.lower(): name for name in file.schema_arrow.names}
            names = [written[name] for name in columns]
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                table = pa.Table.from_batches([batch]).select(names).rename_columns(list(columns))
                yield table.cast(pa.schema([(name, pa.string()) for name in columns]))

    def _csv(self, part: str, columns: Sequence[str], tally: Tally | None) -> Iterator[pa.Table]:
        form, name = self._form(part), PurePosixPath(part).name
        quoted = form.quoted
        marked = 0

        def refused(row: pacsv.InvalidRow) -> str:
            if tally is not None:
                tally.read["lines that are no rows"] += 1
                reason = f"expected {row.expected_columns} cells, found {row.actual_columns}"
                tally.put_aside(reason, Place(name, row.number or 0), row.text)
            return "skip"

        with self._open(part) as stream:
            stream.readline(_LONGEST_HEADER)
            watched = _Watched(stream)
            if not watched.begins:
                return
            opened = partial(
                pacsv.open_csv,
                pa.PythonFile(watched, mode="r"),
                read_options=pacsv.ReadOptions(
                    use_threads=False, block_size=_LONGEST_LINE, column_names=list(form.columns)
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=form.delimiter,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=refused,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(form.columns, pa.string()),
                    include_columns=list(columns),
                    null_values=list(ABSENT),
                    strings_can_be_null=True,
                ),
            )
            with self._under_way(batches_of(opened, watched.stop)) as batches:
                for batch in batches:
                    marked += 0 if quoted else _marked(batch)
                    yield pa.Table.from_batches([batch])
            if quoted and watched.quotes % 2:
                raise RecordError(f"{part} {_FORGOTTEN_QUOTE}; export the table again")
            if tally is not None and marked:
                tally.note(_MARKS_STAY, Place(name, 0), marked)
            if tally is not None and not watched.ended:
                tally.note("the last line has no line end: was the file cut off?", Place(name, 0))

    @contextmanager
    def _under_way(self, batches: Batches) -> Iterator[Batches]:
        """Batches that end with this, or when the tables are closed."""
        self._unfinished.append(batches)
        try:
            yield batches
        finally:
            self._unfinished.remove(batches)
            batches.close()

    @contextmanager
    def _explained(self, part: str) -> Iterator[None]:
        where = f"{part} of {self._path}"
        try:
            yield
        except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise RecordError(
                f"cannot read {where}: {error}; nothing was imported. Copy or export it again"
            ) from error
        except _NotTextError as error:
            raise RecordError(f"{where} is not UTF-8 text: {error}; export it as UTF-8") from error
        except (pa.ArrowException, KeyError) as error:
            raise RecordError(f"cannot read {where}: {_in_words(error)}") from error


class _NotTextError(Exception):
    """A file that should be UTF-8 is not."""


class _Watched:
    """A stream that is UTF-8, and remembers how it ended and whether quotation marks come in pairs.

    The check comes before the parser, which passes over broken text in a line that is no row.
    """

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._first = stream.read(1)
        self._decoder = getincrementaldecoder("utf-8")()
        self._line = 2
        self.begins = bool(self._first)
        self.quotes = 0
        self.ended = True
        self._stopped = False
        self._reading = Lock()

    def stop(self) -> None:
        """Wait until nobody reads; from then on this is at its end."""
        with self._reading:
            self._stopped = True

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            _NotTextError: they are not UTF-8.
        """
        with self._reading:
            return b"" if self._stopped else self._read(size)

    def _read(self, size: int) -> bytes:
        data = self._first + self._stream.read(size if size < 0 else size - len(self._first))
        self._first = b""
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line = self._line + data.count(b"\n", 0, error.start)
            raise _NotTextError(f"other bytes stand in line {line}") from error
        self._line += data.count(b"\n")
        self.quotes += data.count(b'"')
        if data:
            self.ended = data.endswith((b"\n", b"\r"))
        return data

    def close(self) -> None:
        """Nothing: whoever opened the stream closes it."""

    def readable(self) -> bool:
        """Yes."""
        return True


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{path} is not a whole zip file: {error}; copy it again, or name a folder"
        ) from error


def _is_table(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return name.lower().endswith(_ENDINGS) and not hidden


def _table_of(name: str) -> str:
    """The table of a file: by the file's name, or by its folder's where it is one part of it."""
    path = PurePosixPath(name)
    stem = path.name.partition(".")[0].lower()
    return path.parent.name.lower() if stem.startswith("part-") else stem


def _in_folder_of(part: str, table: str) -> bool:
    return PurePosixPath(part).parent.name.lower() == table


def _read_header(line: bytes, part: str) -> _Csv:
    """The columns' names, and what parts them.

    Raises:
        RecordError: the first line is no list of names.
    """
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"expected the names of the columns in UTF-8 in the first line of {part}, found other "
            "bytes; export the table as UTF-8"
        ) from error
    delimiter = max(_DELIMITERS, key=text.count)
    names = tuple(name.strip().lower() for name in next(csv.reader([text], delimiter=delimiter)))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecordError(f"the column {twice[0]} stands twice in the first line of {part}")
    return _Csv(
        columns=names, delimiter=delimiter, quoted=delimiter != "\t" or text.startswith('"')
    )


def _marked(batch: pa.RecordBatch) -> int:
    """How many cells stand in quotation marks."""
    found = 0
    for column in batch.columns:
        both = pc.and_(pc.starts_with(column, '"'), pc.ends_with(column, '"'))
        found += pc.sum(both).as_py() or 0
    return int(found)


def _in_words(error: Exception) -> str:
    text = str(error)
    if "straddling" in text:
        return (
            f"a line is longer than {_LONGEST_LINE // 1024**2} MiB, or it {_FORGOTTEN_QUOTE}; "
            "export the table again"
        )
    return f"{text.splitlines()[0] if text else type(error).__name__}; export the table again"
