"""When the version that the store holds of each record was last changed, as its source says.

So an archive of last year undoes no correction and revives nothing that was taken back since. Each
record is known by the two numbers of `origins`; of one that has left no event the patient is noted
whose it was, so that nothing of it stays when they are erased.

The files are sorted by the first number. A job adds one file with what it brought, together with
the files before it that are not much larger, so that there are few and a small job writes little.
What a newer file says of a record holds. They are part of the manifest, and like all else in it
encrypted where the node's files are.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.at_rest.tables import open_reader, open_writer
from fedtwin_client.store.manifest import Manifest, VersionFile, sync_folder
from fedtwin_client.store.origins import Hashes

FOLDER: Final = "versions"
SCHEMA: Final = pa.schema(
    [
        ("one", pa.uint64()),
        ("two", pa.uint32()),
        ("updated", pa.int64()),  # microseconds since 1970
        ("subject", pa.int64()),  # of records that have no event
    ]
)
_ROW_GROUP: Final = 16_384
_ALWAYS_JOINED: Final = 65_536
_AT_ONCE: Final = 200_000
_BITS_A_ROW: Final = 16
_MOST_BITS: Final = 29
_KEYS: Final = ("one", "two")


class Held:
    """What some files say; the caller closes it.

    Args:
        folder: the store's.
        files: as its manifest has them.
        keyring: the node's; none: nothing is encrypted.
        few: few records are asked for at a time, most of them new: those are known by a table of
            bits, of two bytes a record and at most 64 MB a file, without reading.
        before: with the same settings, of an earlier state; what it has open of the same files goes
            over to this one, and it is closed.

    Raises:
        OSError: a file does not open: it is absent, was changed, or its key is another's.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[VersionFile],
        keyring: Keyring | None,
        *,
        few: bool = False,
        before: "Held | None" = None,
    ) -> None:
        self._files: list[_Opened] = []
        there = {} if before is None else {file.path: file for file in before._files}
        try:
            for file in files:
                opened = there.pop(file.path, None)
                self._files.append(opened or _opened(folder, file, keyring, few=few))
        except BaseException:
            self.shut()
            raise
        finally:
            for left in there.values():
                left.reader.close()

    def __enter__(self) -> "Held":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the files."""
        for file in self._files:
            file.reader.close()

    @property
    def empty(self) -> bool:
        """Whether there is no file."""
        return not self._files

    def updated(self, records: Hashes) -> NDArray[np.int64]:
        """(records,) When what is held of each was changed, microseconds; 0: nothing is known."""
        found = np.zeros(len(records[0]), np.int64)
        if not self._files or not len(found):
            return found
        order = np.argsort(records[0])
        one, two = records[0][order], records[1][order]
        there = found[order]
        for file in self._files:
            if file.bits is not None:
                some = _may_be(one, file.bits)
                if not len(some):
                    continue
                into = np.zeros(len(some), np.int64)
                self._read(file, one[some], two[some], into)
                there[some] = np.where(into > 0, into, there[some])
            else:
                self._read(file, one, two, there)
        found[order] = there
        return found

    def _read(
        self,
        file: "_Opened",
        one: NDArray[np.uint64],
        two: NDArray[np.uint32],
        into: NDArray[np.int64],
    ) -> None:
        """Write down what a file says of records in the order of their numbers."""
        firsts = np.searchsorted(one, file.lowest)
        lasts = np.searchsorted(one, file.highest, "right")
        for group in np.flatnonzero(firsts < lasts).tolist():
            asked = slice(firsts[group], lasts[group])
            piece = file.reader.read_row_group(
                group, columns=[*_KEYS, "updated"], use_threads=False
            )
            _look_up(piece, one[asked], two[asked], into[asked])


def added(
    folder: Path, previous: Manifest, fresh: pa.Table, keyring: Keyring | None
) -> tuple[VersionFile, ...]:
    """The store's files after a job.

    Args:
        folder: the store's.
        previous: its state before.
        fresh: `SCHEMA`, sorted by `one`, each record once; what is held of these now.
        keyring: the node's; none: nothing is encrypted.
    """
    if not fresh.num_rows:
        return previous.versions
    kept, total = list(previous.versions), fresh.num_rows
    joined: list[VersionFile] = []
    while kept and kept[-1].rows <= max(2 * total, _ALWAYS_JOINED):
        joined.insert(0, kept.pop())
        total += joined[0].rows
    if not joined:
        with _Written(folder, previous, 0, keyring) as file:
            file.add(fresh)
        return (*kept, *file.found)
    sources = [_Sorted(_pieces(folder, file, keyring)) for file in joined]
    sources.append(_Sorted(iter([fresh])))
    with _Written(folder, previous, 0, keyring) as file:
        for bound in _bounds(total):
            file.add(_newest(pa.concat_tables([source.below(bound) for source in sources])))
    return (*kept, *file.found)


def rewritten(
    folder: Path,
    previous: Manifest,
    keyring: Keyring | None,
    gone: Hashes | None = None,
    subject: int | None = None,
) -> tuple[VersionFile, ...]:
    """The store's files anew under new keys; with `subject` those alone that speak of a patient.

    Args:
        folder: the store's.
        previous: its state before.
        keyring: the node's; none: nothing is encrypted.
        gone: the records of the patient, who is left out.
        subject: the patient's pseudonym.
    """
    found: list[VersionFile] = []
    for number, before in enumerate(previous.versions):
        with _Written(folder, previous, number, keyring) as file:
            for piece in _pieces(folder, before, keyring):
                file.add(piece if gone is None else _without(piece, gone, subject))
        if gone is not None and file.rows == before.rows:
            file.remove()
            found.append(before)
        else:
            found += file.found
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Opened:
    path: str
    reader: pq.ParquetFile
    lowest: NDArray[np.uint64]
    highest: NDArray[np.uint64]
    bits: NDArray[np.uint8] | None


def _opened(folder: Path, file: VersionFile, keyring: Keyring | None, *, few: bool) -> _Opened:
    reader = open_reader(*file.opened(folder, keyring))
    bits = _bits(reader, file.rows) if few else None
    return _Opened(file.path, reader, *_spans(reader.metadata), bits)


def _bits(reader: pq.ParquetFile, rows: int) -> NDArray[np.uint8]:
    """A table of bits, set where the first numbers of a file's records lie."""
    places = min(max((_BITS_A_ROW * rows).bit_length(), 3), _MOST_BITS)
    bits = np.zeros(1 << (places - 3), np.uint8)
    for group in range(reader.num_row_groups):
        ones = reader.read_row_group(group, columns=["one"], use_threads=False)["one"].to_numpy()
        byte, bit = _place(ones, bits)
        starts = np.flatnonzero(np.append(True, byte[1:] != byte[:-1]))
        bits[byte[starts]] |= np.bitwise_or.reduceat(bit, starts)
    return bits


def _may_be(one: NDArray[np.uint64], bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The rows whose record a file may hold, as its table of bits says."""
    byte, bit = _place(one, bits)
    return np.flatnonzero(bits[byte] & bit)


def _place(
    one: NDArray[np.uint64], bits: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Which byte of a table of bits stands for each number, and which bit of it."""
    place = (one >> np.uint64(64 - 3 - (len(bits).bit_length() - 1))).astype(np.int64)
    return place >> 3, np.left_shift(1, place & 7).astype(np.uint8)


class _Sorted:
    """A file's rows, from lower to higher."""

    def __init__(self, pieces: Iterator[pa.Table]) -> None:
        self._pieces = pieces
        self._left: pa.Table | None = None

    def below(self, bound: np.uint64 | None) -> pa.Table:
        """The next rows, those below a bound; none: all that are left."""
        parts = [SCHEMA.empty_table()]
        while True:
            piece = next(self._pieces, None) if self._left is None else self._left
            if piece is None:
                break
            self._left, end = None, piece.num_rows
            if bound is not None:
                end = int(np.searchsorted(piece["one"].to_numpy(), bound))
            parts.append(piece.slice(0, end))
            if end < piece.num_rows:
                self._left = piece.slice(end)
                break
        return pa.concat_tables(parts)


class _Written:
    """A new file; one without rows is removed.

    Attributes:
        rows: how many it has.
        found: the file, if it has any.
    """

    def __init__(
        self, folder: Path, previous: Manifest, number: int, keyring: Keyring | None
    ) -> None:
        self._path = f"{FOLDER}/{previous.generation + 1:06d}-{number:02d}.parquet"
        self._target, self._keyring = folder / self._path, keyring
        self._target.parent.mkdir(mode=0o700, exist_ok=True)
        self._secret = None if keyring is None else fresh_key()
        self._writer = open_writer(
            self._target, SCHEMA, self._secret, (), ordered=("one",), counting=("one",)
        )
        self.rows = 0
        self.found: tuple[VersionFile, ...] = ()

    def __enter__(self) -> "_Written":
        return self

    def add(self, rows: pa.Table) -> None:
        """Add rows that follow those before."""
        if rows.num_rows:
            self._writer.write_table(rows, row_group_size=_ROW_GROUP)
            self.rows += rows.num_rows

    def remove(self) -> None:
        """It is not wanted."""
        self._target.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is not None or not self.rows:
            self.remove()
            return
        with self._target.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(self._target.parent)
        key = None
        if self._keyring is not None and self._secret is not None:
            key = self._keyring.close(self._secret, self._path)
        self.found = (VersionFile(path=self._path, rows=self.rows, key=key),)


def _pieces(folder: Path, file: VersionFile, keyring: Keyring | None) -> Iterator[pa.Table]:
    with open_reader(*file.opened(folder, keyring)) as reader:
        for group in range(reader.num_row_groups):
            yield reader.read_row_group(group, use_threads=False).cast(SCHEMA)


def _spans(metadata: pq.FileMetaData) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The lowest and the highest first number of each row group."""
    found = [
        metadata.row_group(group).column(0).statistics for group in range(metadata.num_row_groups)
    ]
    return (
        np.array([one.min for one in found], np.uint64),
        np.array([one.max for one in found], np.uint64),
    )


def _look_up(
    piece: pa.Table, one: NDArray[np.uint64], two: NDArray[np.uint32], into: NDArray[np.int64]
) -> None:
    """Write down when records were changed that are in a piece."""
    held_one, held_two, updated = (piece[name].to_numpy() for name in (*_KEYS, "updated"))
    first = np.searchsorted(held_one, one)
    for step in (0, 1):  # two records may share the first number; three never do
        place = np.minimum(first + step, len(held_one) - 1)
        same = (held_one[place] == one) & (held_two[place] == two)
        into[same] = updated[place[same]]


def _bounds(total: int) -> list[np.uint64 | None]:
    """Where to cut the first numbers, so that not too many rows lie between two cuts."""
    parts = -(-total // _AT_ONCE)
    return [*(np.uint64((number << 64) // parts) for number in range(1, parts)), None]


def _newest(rows: pa.Table) -> pa.Table:
    """Rows in order, of each record the last one.

    Args:
        rows: older ones first.
    """
    one, two = (rows[name].to_numpy() for name in _KEYS)
    order = np.argsort(one, kind="stable")
    same = one[order[1:]] == one[order[:-1]]
    if (two[order[1:]] != two[order[:-1]])[same].any():
        order = np.lexsort((two, one))  # stable, too
    one, two = one[order], two[order]
    last = np.append((one[1:] != one[:-1]) | (two[1:] != two[:-1]), True)[: len(one)]
    return rows.take(pa.array(order[last]))


def _without(piece: pa.Table, gone: Hashes, subject: int | None) -> pa.Table:
    """The rows that are not of a patient."""
    one: Any = piece["one"].to_numpy()
    theirs = np.isin(one, gone[0])
    for row in np.flatnonzero(theirs):
        theirs[row] = piece["two"][int(row)].as_py() in gone[1][gone[0] == one[row]]
    noted = piece["subject"].fill_null(-1 if subject != -1 else 0).to_numpy() == subject
    return piece.filter(pa.array(~(theirs | noted)))
