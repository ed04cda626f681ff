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
_AT_ONCE: Final = 1_000_000
_KEYS: Final = ("one", "two")


class Held:
    """What some files say; the caller closes it.

    Raises:
        OSError: a file does not open: it is absent, was changed, or its key is another's.
    """

    def __init__(self, folder: Path, files: Sequence[VersionFile], keyring: Keyring | None) -> None:
        self._files: list[_Opened] = []
        try:
            for file in files:
                reader = open_reader(*file.opened(folder, keyring))
                self._files.append(_Opened(reader, *_spans(reader.metadata)))
        except BaseException:
            self.shut()
            raise

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

    def updated(self, records: Hashes) -> NDArray[np.int64]:
        """(records,) When what is held of each was changed, microseconds; 0: nothing is known."""
        found = np.zeros(len(records[0]), np.int64)
        if not self._files or not len(found):
            return found
        order = np.argsort(records[0])
        one, two = records[0][order], records[1][order]
        there = found[order]
        for file in self._files:
            firsts, lasts = (
                np.searchsorted(one, file.lowest),
                np.searchsorted(one, file.highest, "right"),
            )
            for group in np.flatnonzero(firsts < lasts).tolist():
                asked = slice(firsts[group], lasts[group])
                piece = file.reader.read_row_group(
                    group, columns=[*_KEYS, "updated"], use_threads=False
                )
                _look_up(piece, one[asked], two[asked], there[asked])
        found[order] = there
        return found


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
    reader: pq.ParquetFile
    lowest: NDArray[np.uint64]
    highest: NDArray[np.uint64]


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
    order = np.lexsort((two, one))  # stable
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
