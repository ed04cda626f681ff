"""The timelines as columns of numbers, some patients at a time: for whoever summarises all of them.

Files keep each patient's events together and in order, so that what is asked of a patient is asked
of neighbours; no table is joined and nothing is sorted. A piece holds whole patients. Patients whom
something live concerns come in pieces of their own, put together as `joining` does it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fedtwin_client.at_rest.tables import open_reader
from fedtwin_client.records.blocks import REPEATED, coded
from fedtwin_client.store.joining import Live
from fedtwin_client.store.manifest import EventFile
from fedtwin_client.store.ordering import in_order
from fedtwin_client.store.renewed_rows import rows_of
from fedtwin_client.store.staging import SCHEMA
from fedtwin_client.store.timeline import Timeline, unreadable
from fedtwin_client.store.touched import Touched
from fedtwin_client.store.unit_counts import counted, known_counts

NEVER: Final = np.iinfo(np.int64).max
"""Stands for a time that is not there: it lies after every other."""
_ALWAYS: Final = ("subject_id", "time", "available_time", "code")
_ROWS_AT_ONCE: Final = 400_000
_FEW: Final = 4


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Whole patients' events, in the order of the store.

    Attributes:
        table: the columns that were asked for; those of `REPEATED` as dictionaries, of one chunk.
    """

    table: pa.Table
    _looked_at: dict[str, tuple[list[str], NDArray[np.int32]]] = field(
        default_factory=dict, repr=False
    )

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(patients,) each one's first row."""
        subjects = self._whole("subject_id").to_numpy()
        if not len(subjects):
            return np.zeros(0, np.int64)
        return np.append(0, np.flatnonzero(subjects[1:] != subjects[:-1]) + 1)

    @cached_property
    def subjects(self) -> NDArray[np.int64]:
        """(patients,) pseudonyms, rising."""
        return np.asarray(self._whole("subject_id").to_numpy()[self.starts])

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """(rows,) the place of the patient among `subjects`."""
        lengths = np.diff(self.starts, append=self.table.num_rows)
        return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    @cached_property
    def time(self) -> NDArray[np.int64]:
        """(rows,) microseconds since 1970, UTC; `NEVER` for what has no time."""
        return _microseconds(self._whole("time"))

    @cached_property
    def known(self) -> NDArray[np.int64]:
        """(rows,) when it became known, as `time`."""
        return _microseconds(self._whole("available_time"))

    @cached_property
    def timed(self) -> bool:
        """Whether of each row it is known when it happened and when it became known."""
        return not (self.table["time"].null_count or self.table["available_time"].null_count)

    @cached_property
    def numbers(self) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """(rows,) numeric values, and where there is one (elsewhere they may be anything).

        The second is none if there is one everywhere.
        """
        column = self._whole("numeric_value")
        _, buffer = column.buffers()
        if buffer is None:
            return np.zeros(len(column)), np.zeros(len(column), np.bool_)
        end = column.offset + len(column)
        values = np.frombuffer(buffer, np.float64, end)[column.offset :]
        return values, _there(column) if column.null_count else None

    def has(self, name: str) -> NDArray[np.bool_]:
        """(rows,) whether there is anything in a column."""
        column = self._whole(name)
        return _there(column.indices if name in REPEATED else column)

    def coded(self, name: str) -> tuple[list[str], NDArray[np.int32]]:
        """A column of texts that repeat.

        Args:
            name: one of `REPEATED`.

        Returns:
            the texts, the last of them empty for none, and (rows,) the place of each row's text.
        """
        if name not in self._looked_at:
            column = self._whole(name)
            names = [*column.dictionary.to_pylist(), ""]
            indices = column.indices
            if indices.null_count:
                indices = pc.fill_null(indices, len(names) - 1)
            self._looked_at[name] = names, np.asarray(indices)
        return self._looked_at[name]

    @cached_property
    def unit_pairs(self) -> NDArray[np.int32]:
        """(rows,) a number for each unit at the source with each stored unit.

        It is the former's place times how many of the latter there are, and the latter's place;
        the places are those of `coded`.
        """
        stored, unit = self.coded("unit")
        _, source = self.coded("src_unit")
        return np.asarray(source * np.int32(len(stored)) + unit)

    def of_code(
        self,
        wanted: Mapping[str, int],
        otherwise: int,
        kind: Any,
        rows: NDArray[np.int64] | None = None,
    ) -> NDArray[Any]:
        """What a mapping says of each row's code.

        Args:
            wanted: from a code, as the store writes it.
            otherwise: of other codes.
            kind: numpy's type of the result.
            rows: (rows,) of these only; none: of all.
        """
        return self._looked_up("code", wanted, otherwise, kind, rows)

    def of_unit(
        self,
        wanted: Mapping[str, int],
        otherwise: int,
        kind: Any,
        rows: NDArray[np.int64] | None = None,
    ) -> NDArray[Any]:
        """What a mapping says of each row's unit, empty for none; as `of_code`."""
        return self._looked_up("unit", wanted, otherwise, kind, rows)

    def texts(self, rows: NDArray[np.int64]) -> list[str | None]:
        """The texts of some rows."""
        found: list[str | None] = self._whole("text_value").take(pa.array(rows)).to_pylist()
        return found

    def _looked_up(
        self,
        name: str,
        wanted: Mapping[str, int],
        otherwise: int,
        kind: Any,
        rows: NDArray[np.int64] | None,
    ) -> NDArray[Any]:
        """As `of_code`; what the mapping says of the empty text holds where there is none."""
        names, places = self.coded(name)
        said = np.array([wanted.get(one, otherwise) for one in names], kind)
        if rows is not None:
            places = taken(places, rows)
        meant = np.flatnonzero(said != otherwise)
        if len(meant) <= _FEW:
            return _said_of(meant, said, otherwise, places)
        # Rows of one code mostly have one unit, rows that are looked at together several codes.
        if name == "unit" and len(places) and alike(places):
            return np.full(len(places), said[places[0]], kind)
        return taken(said, places)

    def _whole(self, name: str) -> Any:
        """A column as one array."""
        column = self.table[name]
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@dataclass(frozen=True, kw_only=True)
class PatientColumns:
    """One state of the store, read as pieces.

    Attributes:
        timeline: the state.
    """

    timeline: Timeline

    @cached_property
    def _live(self) -> Live:
        return self.timeline.live()

    @cached_property
    def _touched(self) -> dict[str, Touched]:
        """By file, the rows of patients whom something live concerns."""
        if not self._live.origins:
            return {}
        origins = pa.array(self._live.origins, pa.string())
        live = pc.unique(self._live.events["subject_id"])
        found = {}
        for file in self.timeline.manifest.files:
            parts = [Touched.nothing()]
            for first, table in self._tables(file, ["subject_id", "source"]):
                replaced = rows_of(table["source"], origins)
                theirs = table["subject_id"].take(pa.array(replaced)).combine_chunks()
                among = pa.concat_arrays([live, theirs])
                touched = np.flatnonzero(pc.is_in(table["subject_id"], among))
                stays = np.setdiff1d(touched, replaced, assume_unique=True)
                sources = table["source"].take(pa.array(stays)).combine_chunks()
                parts.append(
                    Touched(replaced=first + replaced, stays=first + stays, sources=sources)
                )
            found[file.path] = Touched.together(parts)
        return found

    def units(self) -> dict[str, list[tuple[str, int]]]:
        """For each code with numbers the units they have (empty: none), and how many have each.

        Raises:
            RecordError: a file cannot be read: it was changed, or its key is not this node's.
        """
        counts: Counter[tuple[str, str]] = Counter(counted(coded(self._live.events)))
        with unreadable(self.timeline.folder):
            for file in self.timeline.manifest.files:
                counts.update(self._units_of(file))
        found: dict[str, list[tuple[str, int]]] = {}
        for (code, unit), number in sorted(counts.items()):
            if number:
                found.setdefault(code, []).append((unit, number))
        return found

    def pieces(self, columns: Collection[str] = ()) -> Iterator[Piece]:
        """All patients, each in one piece; one empty piece if there is nobody.

        Args:
            columns: besides pseudonym, times and code.

        Raises:
            RecordError: as `units`.
        """
        asked = [name for name in SCHEMA.names if name in {*_ALWAYS, *columns}]
        apart = [coded(self._live.events).select(_with_order(asked))]
        nobody = True
        for file in self.timeline.manifest.files:
            with unreadable(self.timeline.folder):
                for piece in self._untouched(file, asked, apart):
                    nobody = False
                    yield piece
        joined = in_order(pa.concat_tables(apart))
        if joined.num_rows or nobody:
            yield Piece(table=joined.select(asked).combine_chunks())

    def _untouched(
        self, file: EventFile, asked: Sequence[str], apart: list[pa.Table]
    ) -> Iterator[Piece]:
        """The pieces of a file; patients whom something live concerns go `apart`."""
        if not self._live.origins:
            yield from (Piece(table=table) for _, table in self._tables(file, asked))
            return
        touched = self._touched[file.path]
        for first, table in self._tables(file, asked):
            stays, sources = touched.staying(first, table.num_rows)
            gone = touched.gone(first, table.num_rows)
            if len(stays):
                theirs = table.take(pa.array(stays))
                if "source" not in asked:
                    theirs = theirs.append_column("source", sources)
                apart.append(theirs.select(apart[0].column_names).cast(apart[0].schema))
            if len(stays) or len(gone):
                others = np.ones(table.num_rows, np.bool_)
                others[stays] = others[gone] = False
                table = table.filter(pa.array(others)).combine_chunks()  # noqa: PLW2901 - the rest
            if table.num_rows:
                yield Piece(table=table)

    def _units_of(self, file: EventFile) -> Counter[tuple[str, str]]:
        """Of the rows of a file that no newer version replaces."""
        opened = file.opened(self.timeline.folder, self.timeline.keyring)
        touched = self._touched.get(file.path, Touched.nothing())
        known = known_counts([opened])
        if known is not None and not len(touched.replaced):
            return known
        counts: Counter[tuple[str, str]] = Counter() if known is None else known.copy()
        asked = ["subject_id", "code", "numeric_value", "unit"]
        for first, table in self._tables(file, asked):
            gone = table.take(pa.array(touched.gone(first, table.num_rows)))
            if known is None:
                counts.update(counted(table))
            counts.subtract(counted(gone))
        return counts

    def _tables(self, file: EventFile, asked: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """A file in pieces that end with a patient, each with the number of its first row."""
        path, key = file.opened(self.timeline.folder, self.timeline.keyring)
        first, left = 0, None
        with open_reader(path, key, repeated=REPEATED) as reader:
            groups = _together(reader.metadata)
            for group in groups:
                table = reader.read_row_groups(group, columns=list(asked), use_threads=False)
                if left is not None:
                    table = pa.concat_tables([left, table])
                table = table.unify_dictionaries().combine_chunks()
                end = table.num_rows
                if group is not groups[-1]:
                    subjects = table["subject_id"].to_numpy()
                    end = int(np.searchsorted(subjects, subjects[-1]))
                left = table.slice(end)
                if end:
                    yield first, table.slice(0, end)
                first += end


def _said_of(
    meant: NDArray[np.int64], said: NDArray[Any], otherwise: int, places: NDArray[Any]
) -> NDArray[Any]:
    """What is said of places of which few matter: comparing is quicker than looking up."""
    found = np.full(len(places), otherwise, said.dtype)
    for place in meant:
        found[places == place] = said[place]
    return found


def alike(values: NDArray[Any]) -> bool:
    """Whether all of some values, at least one, are the same."""
    return bool((values == values[0]).all())


def taken(values: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """What lies at some places; behind the end lies the last. So told, numpy does not look."""
    return np.take(values, places, mode="clip")


def _together(metadata: pq.FileMetaData) -> list[list[int]]:
    """Row groups that are read at once."""
    found: list[list[int]] = [[]]
    rows = 0
    for number in range(metadata.num_row_groups):
        rows += metadata.row_group(number).num_rows
        if rows > _ROWS_AT_ONCE and found[-1]:
            found.append([])
            rows = metadata.row_group(number).num_rows
        found[-1].append(number)
    return found if found[0] else []


def _with_order(asked: Sequence[str]) -> list[str]:
    """Columns, and those that the order of events depends on."""
    return [name for name in SCHEMA.names if name in {*asked, "source"}]


def _microseconds(column: pa.Array) -> NDArray[np.int64]:
    whole = column.cast(pa.int64())
    return np.asarray(pc.fill_null(whole, NEVER) if whole.null_count else whole)


def _there(column: pa.Array) -> NDArray[np.bool_]:
    """(rows,) where a column has a value."""
    bits = column.buffers()[0]
    if bits is None:
        return np.ones(len(column), np.bool_)
    end = column.offset + len(column)
    said = np.unpackbits(np.frombuffer(bits, np.uint8), count=end, bitorder="little")
    return said[column.offset :].view(np.bool_)
