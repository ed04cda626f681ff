"""Taking an import over into the store: all of it or nothing.

1. Of several versions of a record in one import the newest counts, and none that is older than
   what the store holds of it (`versions`).
2. Buckets that get new events, or hold events of a record that has a new version, are written anew
   under new names: the old events without those records, and the new ones.
3. The new manifest takes the old one's place.

Within a file events are ordered by subject, time (none first), available time, source and code.
One bucket is in memory at a time. Where the node's files are encrypted each new file gets a key of
its own, nothing is spilled to the disk, and a file that was replaced cannot be read by its
successor's key.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.at_rest.room import how_to_mend
from fedtwin_client.at_rest.tables import open_tables, open_writer
from fedtwin_client.records.blocks import REPEATED, coded
from fedtwin_client.store import unit_counts, versions
from fedtwin_client.store.known_later import known_later
from fedtwin_client.store.manifest import (
    EventFile,
    Manifest,
    PastImport,
    VersionFile,
    sync_folder,
    write_manifest,
)
from fedtwin_client.store.moving import given_away
from fedtwin_client.store.ordering import in_order
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.replacing import Renewed, origins_of, parts_of
from fedtwin_client.store.staging import SCHEMA, Staging
from fedtwin_protocol.errors import RecordError

POSITION = pa.field("file_row_number", pa.int64())
_ORDERED = ("subject_id", "time")
_REPEATED = ("subject_id", *REPEATED)
_SAMPLE = 1_000
_DIFFERENT = 0.9  # of a sample of numbers, where most have so many digits that few come twice
_ROW_GROUP = 16_384  # one patient's events are read with few others', a whole file in few pieces


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What the store took over.

    Attributes:
        events: new rows.
        subjects: different patients among them.
        withdrawn: earlier records that have no events any more.
        outdated: versions of a record that a newer one in the same import replaced.
        late: versions of a record that are older than what the store has.
    """

    events: int
    subjects: int
    withdrawn: int
    outdated: int
    late: int


def take_over(  # noqa: PLR0913 - what an import and a compaction say
    folder: Path,
    staging: Staging,
    previous: Manifest,
    keyring: Keyring | None,
    *,
    origin: str,
    now: datetime,
    live_through: int | None = None,
    zone: tuple[str, str] | None = None,
    even_older: bool = False,
    resent: bool = False,
) -> Taken:
    """Make staged events part of the store.

    Args:
        folder: the store's.
        staging: what was gathered, flushed.
        previous: the store's state.
        keyring: the node's; none: nothing is encrypted.
        origin: what was imported, in words, for the history.
        now: for the history.
        live_through: if they are of the live tail, the number of its last version.
        zone: the source, and the zone that its times were read in; none: that does not matter. What
            was read in another zone before is older or newer by that alone, and always replaced.
        even_older: replace also what is newer.
        resent: mind that values may be sent anew under an old time (`known_later`).

    Raises:
        RecordError: the disk is full or another fault; the store is then what it was.
    """
    assert staging.origins.secret == previous.names_key, "records would not be known again"
    with _explained(folder):
        writing = _Writing(folder, staging, keyring, previous)
        zones = previous.zones | ({} if zone is None else dict([zone]))
        late = 0
        if not even_older and zones == zones | previous.zones:
            with versions.Held(folder, previous.versions, keyring) as held:
                late = writing.renewed.pass_over(held)
            if resent and staging.dated:
                writing.changed = writing.renewed.updated
        files = writing.all_buckets()
        withdrawn = writing.gone()
        remembered = writing.renewed.to_remember(*withdrawn)
        history = PastImport(time=now, origin=origin, events=writing.events)
        following = _next(
            previous,
            files,
            history if live_through is None else None,
            versions.added(folder, previous, remembered, keyring),
        ).model_copy(update={"zones": zones})
        if live_through is not None:
            following = following.model_copy(update={"live_through": live_through})
        write_manifest(folder, following)
        return Taken(
            events=writing.events,
            subjects=writing.subjects,
            withdrawn=len(withdrawn[0]),
            outdated=int(writing.renewed.outdated.sum()) - late,
            late=late,
        )


def rewrite(
    folder: Path, previous: Manifest, keyring: Keyring | None, *, without: int | None
) -> Manifest:
    """Write files anew, under new keys: all of them, or those of one patient, without the patient.

    Args:
        folder: the store's.
        previous: the store's state, whose files the keyring opens.
        keyring: the node's, whose newest key seals.
        without: the patient's pseudonym; none: nobody is left out, and every file is written.

    Returns:
        The new state, which is the store's when this returns.

    Raises:
        RecordError: the disk is full or another fault; the store is then what it was.
    """
    kept: list[EventFile] = []
    origins = Origins(previous.names_key)
    gone = origins.hashes(pa.array([], pa.string()))
    with _explained(folder):
        for file in previous.files:
            if without is not None and file.bucket != without % 64:
                kept.append(file)
                continue
            rows = open_tables([file.opened(folder, keyring)], SCHEMA).to_table()
            if without is not None:
                theirs = pc.equal(rows["subject_id"], without)
                gone = origins.hashes(_records_of(rows["source"].filter(theirs)))
                rows = rows.filter(pc.invert(theirs))
            path = f"events/{previous.generation + 1:06d}-{file.bucket:02d}.parquet"
            written = _write_bucket(rows, path, folder, keyring)
            if written.rows:
                kept.append(written.model_copy(update={"bucket": file.bucket}))
        sync_folder(folder / "events")
        held = versions.rewritten(
            folder, previous, keyring, None if without is None else gone, without
        )
        following = _next(previous, tuple(kept), None, held)
        write_manifest(folder, following)
    return following


def _records_of(sources: pa.ChunkedArray) -> pa.Array:
    """The names of the records that events are of, and of the parts of them."""
    names = pa.concat_tables([origins_of(sources), parts_of(sources)])["origin"]
    return pc.unique(names.drop_null())


def move(folder: Path, previous: Manifest, keyring: Keyring | None, moves: pa.Table) -> Manifest:
    """Give events of some patients to others, writing the files of both anew.

    Args:
        folder: the store's.
        previous: the store's state.
        keyring: the node's; none: nothing is encrypted.
        moves: columns `moving` and `moving_to`, pseudonyms, and `moving_source`: the one event that
            is moved, or none for all of the patient's.

    Returns:
        The new state, which is the store's when this returns.

    Raises:
        RecordError: the disk is full or another fault; the store is then what it was.
    """
    subjects = moves["moving"].to_pylist() + moves["moving_to"].to_pylist()
    buckets = {subject % 64 for subject in subjects}
    files = {file.bucket: file for file in previous.files if file.bucket not in buckets}
    affected = tuple(file for file in previous.files if file.bucket in buckets)
    if not affected:
        return previous
    with _explained(folder):
        opened = open_tables([file.opened(folder, keyring) for file in affected], SCHEMA)
        rows = given_away(opened.to_table(), moves)
        into = rows["subject_id"].to_numpy() % 64
        for bucket in sorted(buckets):
            mine = in_order(coded(rows.filter(pa.array(into == bucket))))
            path = f"events/{previous.generation + 1:06d}-{bucket:02d}.parquet"
            written = _write_bucket(mine, path, folder, keyring)
            if written.rows:
                files[bucket] = written.model_copy(update={"bucket": bucket})
        sync_folder(folder / "events")
        kept = tuple(files[bucket] for bucket in sorted(files))
        following = _next(previous, kept, None, previous.versions)
        write_manifest(folder, following)
    return following


def _next(
    previous: Manifest,
    files: tuple[EventFile, ...],
    history: PastImport | None,
    held: tuple[VersionFile, ...],
) -> Manifest:
    live = {file.path for file in (*files, *held)}
    before = (*previous.files, *previous.versions)
    return Manifest(
        generation=previous.generation + 1,
        files=files,
        retired=tuple(file.path for file in before if file.path not in live),
        imports=previous.imports if history is None else (*previous.imports, history),
        live_through=previous.live_through,
        names_key=previous.names_key,
        versions=held,
        zones=previous.zones,
    )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise RecordError(
            f"cannot write the timeline store {folder}: {error}; it is what it was before: "
            + how_to_mend(error, folder, "free disk space or mend the fault, and import again")
        ) from error


class _Writing:
    """Buckets written anew, one after another.

    Attributes:
        renewed: the records that the import has versions of.
        events: new rows so far.
        subjects: different patients among them.
        changed: (versions,) when each was changed, microseconds, if values are to be looked at that
            are sent anew (`known_later`).
    """

    def __init__(
        self,
        folder: Path,
        staging: Staging,
        keyring: Keyring | None,
        previous: Manifest,
    ) -> None:
        self._folder, self._staging, self._keyring = folder, staging, keyring
        self._previous = previous
        self.renewed = Renewed(staging)
        self.events = self.subjects = 0
        self.changed: NDArray[np.int64] | None = None
        self._gone: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def all_buckets(self) -> tuple[EventFile, ...]:
        """The store's files."""
        (self._folder / "events").mkdir(mode=0o700, exist_ok=True)
        old = {file.bucket: file for file in self._previous.files}
        kept: list[EventFile] = []
        for bucket in sorted(self._staging.buckets | old.keys()):
            file = self._bucket(bucket, old.get(bucket))
            if file is not None:
                kept.append(file)
        sync_folder(self._folder / "events")
        return tuple(kept)

    def gone(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The versions whose records had events and have none any more, and whose they were."""
        nothing = np.zeros(0, np.int64)
        left = [(nothing, nothing)]
        for numbers, whose in self._gone:  # one by one, for most of them have events again
            rows = ~self.renewed.made[numbers]
            left.append((numbers[rows], whose[rows]))
        numbers, whose = (np.concatenate(column) for column in zip(*left, strict=True))
        numbers, first = np.unique(numbers, return_index=True)
        return numbers, whose[first]

    def _bucket(self, bucket: int, old: EventFile | None) -> EventFile | None:
        staged = self._staging.bucket(bucket)
        numbers = staged["version"].to_numpy()
        newest = ~self.renewed.outdated[numbers]
        self.renewed.made[numbers[newest]] = True
        staying, replaced, by = self._staying(old, read=bool(newest.any()))
        if not newest.any() and not len(by):
            return old
        fresh = staged.select(SCHEMA.names)
        if self.changed is not None:
            fresh = known_later(
                pa.concat_tables([coded(replaced), coded(fresh)]),
                np.concatenate([self.renewed.held[by], self.changed[numbers]]),
                np.concatenate([np.zeros(len(by), np.bool_), newest]),
            )
        elif not newest.all():
            fresh = fresh.filter(pa.array(newest))
        self.events += fresh.num_rows
        self.subjects += len(pc.unique(fresh["subject_id"]))
        rows = in_order(pa.concat_tables([coded(fresh), coded(staying)]))
        path = f"events/{self._previous.generation + 1:06d}-{bucket:02d}.parquet"
        written = _write_bucket(rows, path, self._folder, self._keyring)
        return written.model_copy(update={"bucket": bucket}) if written.rows else None

    def _staying(
        self, old: EventFile | None, *, read: bool
    ) -> tuple[pa.Table, pa.Table, NDArray[np.int64]]:
        """The rows of a file whose records are not renewed, those that are, and the versions by.

        Args:
            old: the file; none where there is none yet.
            read: whether the rows are wanted also if none is renewed.
        """
        nothing = SCHEMA.empty_table()
        if old is None:
            return nothing, nothing, np.zeros(0, np.int64)
        events = open_tables([old.opened(self._folder, self._keyring)], SCHEMA)
        columns = events.to_table(columns=["source", "subject_id"])
        places = self.renewed.places(columns["source"])
        replaced = places >= 0
        by = places[replaced]
        gone, first = np.unique(by, return_index=True)
        self._gone.append((gone, columns["subject_id"].to_numpy()[replaced][first]))
        if not len(by):
            return events.to_table() if read else nothing, nothing, by
        whole = events.to_table()
        before = nothing if self.changed is None else whole.filter(pa.array(replaced))
        return whole.filter(pa.array(~replaced)), before, by


def _write_bucket(rows: pa.Table, path: str, folder: Path, keyring: Keyring | None) -> EventFile:
    """Write one file; an encrypted one also keeps each row's place, which DuckDB does not tell."""
    target = folder / path
    secret = None if keyring is None else fresh_key()
    rows = coded(rows)
    counts = unit_counts.unit_counts(rows)
    if secret is not None:
        rows = rows.append_column(POSITION, pa.array(np.arange(rows.num_rows)))
    rows = _without_gaps_said(rows)
    repeated = (*_REPEATED, "numeric_value") if _numbers_repeat(rows) else _REPEATED
    counting = () if secret is None else (POSITION.name,)
    with open_writer(
        target, rows.schema, secret, repeated, ordered=_ORDERED, counting=counting
    ) as writer:
        writer.write_table(rows, row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata({unit_counts.NAME: counts})
    with target.open("rb") as file:
        os.fsync(file.fileno())
    key = None if keyring is None or secret is None else keyring.close(secret, path)
    return EventFile(bucket=0, path=path, rows=rows.num_rows, key=key)


def _without_gaps_said(rows: pa.Table) -> pa.Table:
    """The same, with a schema that says which columns are full: readers look for no gaps there."""
    fields = [field.with_nullable(rows[field.name].null_count > 0) for field in rows.schema]
    return pa.Table.from_arrays(rows.columns, schema=pa.schema(fields))


def _numbers_repeat(rows: pa.Table) -> bool:
    """Whether numbers are written with few digits, so that many are the same."""
    places = np.linspace(0, max(rows.num_rows - 1, 0), min(_SAMPLE, rows.num_rows), dtype=np.int64)
    some = rows["numeric_value"].take(pa.array(places)).drop_null()
    return len(pc.unique(some)) <= _DIFFERENT * len(some)
