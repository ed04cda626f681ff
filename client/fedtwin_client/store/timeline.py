"""Reading the timeline store: one consistent state, by codes and patients.

A timeline holds the list of files that was valid when it was opened, and the number of the newest
live record, so that an import or a door that works meanwhile changes nothing of what it reads. The
number is read before the list: what the files have taken over in between is then in both, and is
counted in the files alone. Times are UTC.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from fedtwin_client.at_rest.keyring import Keyring, keyring_of
from fedtwin_client.at_rest.tables import open_tables
from fedtwin_client.store.commit import POSITION
from fedtwin_client.store.joining import Live, join
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.staging import SCHEMA
from fedtwin_client.store.tail import FILE, Tail
from fedtwin_protocol.errors import RecordError


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """One state of a hospital's timeline store.

    Attributes:
        folder: where it lies.
        manifest: which files are valid.
        keyring: opens them; none where they are not encrypted.
        live_through: number of the newest live record that is read.
    """

    folder: Path
    manifest: Manifest
    keyring: Keyring | None = field(default=None, repr=False)
    live_through: int = 0

    @classmethod
    def open(cls, folder: Path, keyring: Keyring | None = None) -> "Timeline":
        """Open the newest state.

        Args:
            folder: the store's.
            keyring: the node's; none: the one of its folder, if it has one.

        Raises:
            RecordError: nothing was imported yet, or the store is damaged.
            ConfigurationError: the keys are not at hand.
        """
        keyring = keyring or keyring_of(folder)
        live_through = 0
        if (folder / FILE).exists():
            with Tail(folder, keyring) as tail:
                live_through = tail.last()
        manifest = read_manifest(folder)
        if manifest is None and not live_through:
            raise RecordError(
                f"there are no records in {folder} yet; import some with "
                "'fedtwin client records fhir' or 'fedtwin client records table'"
            )
        manifest = manifest or Manifest()
        absent = [file.path for file in manifest.files if not (folder / file.path).is_file()]
        if absent:
            raise RecordError(
                f"{folder} lacks {absent[0]} and {len(absent) - 1} more files that its manifest "
                "names; restore the folder as a whole from a backup"
            )
        return cls(folder=folder, manifest=manifest, keyring=keyring, live_through=live_through)

    @property
    def rows(self) -> int:
        """How many events there are; a live record that replaces an older one is counted twice."""
        return sum(file.rows for file in self.manifest.files) + int(self.live().events.num_rows)

    def live(
        self,
        subject: int | None = None,
        among: Collection[str] | None = None,
        tail: Tail | None = None,
    ) -> Live:
        """What came in since the files were written.

        Args:
            subject: events of this pseudonym only; none: of everybody.
            among: only of these records it is said that they are out of date; none: of all.
            tail: the store's, if the caller holds it open.

        Raises:
            RecordError: the file cannot be read.
        """
        after, through = self.manifest.live_through, self.live_through
        if through <= after:
            return Live(events=SCHEMA.empty_table(), origins=[])
        with nullcontext(tail) if tail is not None else Tail(self.folder, self.keyring) as opened:
            return Live(
                events=opened.events(after, through, subject),
                origins=opened.origins(after, through, among),
            )

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own with the view `events`; the caller closes it.

        Besides the store's columns the view has `file_row_number`: a patient's events lie in one
        file in the order of time, available time, source and code, and this number says so.
        One thread, so that sums of floating-point numbers come out the same every time. What does
        not fit into memory is spilled into the store's own folder, never elsewhere; of encrypted
        records nothing is spilled, because DuckDB cannot encrypt what it spills.

        Raises:
            RecordError: a file does not open: it was changed, or its key is not this node's.
        """
        db = duckdb.connect()
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET threads = 1")
        files = [file.opened(self.folder, self.keyring) for file in self.manifest.files]
        sealed = any(key is not None for _, key in files)
        spill = "" if sealed else str(self.folder / "spill")
        db.execute("SET temp_directory = $folder", {"folder": spill})
        live = self.live()
        view = "written" if live.origins else "events"
        if not files:
            db.register(view, SCHEMA.append(POSITION).empty_table())
        elif sealed:
            try:
                db.register(view, open_tables(files, SCHEMA.append(POSITION)))
            except OSError as error:
                raise RecordError(f"cannot read {self.folder}: {_changed(error)}") from error
        else:
            paths = [str(path) for path, _ in files]
            db.read_parquet(paths, file_row_number=True).create_view(view)
        if live.origins:
            join(db, live)
        return db

    def events(
        self, codes: Iterable[str] | None = None, subjects: Iterable[int] | None = None
    ) -> pa.Table:
        """Events by subject, time, available time, source and code.

        Args:
            codes: only these; none means all.
            subjects: only these pseudonyms; none means all.

        Returns:
            A table with the columns of the store's schema.

        Raises:
            RecordError: the files cannot be read.
        """
        db = self.connect()
        try:
            found = db.sql(
                "SELECT * FROM events WHERE ($codes IS NULL OR list_contains($codes, code))"
                " AND ($subjects IS NULL OR list_contains($subjects, subject_id))"
                " ORDER BY subject_id, time NULLS FIRST, available_time, source, code",
                params={
                    "codes": None if codes is None else sorted(set(codes)),
                    "subjects": None if subjects is None else sorted(set(subjects)),
                },
            )
            table: pa.Table = found.to_arrow_table()
            return table.select(SCHEMA.names)
        except duckdb.Error as error:
            raise RecordError(f"cannot read {self.folder}: {_changed(error)}") from error
        finally:
            db.close()

    def codes(self) -> list[tuple[str, str | None, int, int]]:
        """Every code and unit with its events and patients, most frequent first."""
        db = self.connect()
        try:
            rows = db.execute(
                "SELECT code, unit, count(*), count(DISTINCT subject_id) FROM events"
                " GROUP BY code, unit ORDER BY 3 DESC, 1, 2"
            ).fetchall()
        except duckdb.Error as error:
            raise RecordError(f"cannot read {self.folder}: {_changed(error)}") from error
        finally:
            db.close()
        return [(code, unit, int(events), int(subjects)) for code, unit, events, subjects in rows]


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Say of a fault in reading a store's files what it means.

    Raises:
        RecordError: instead of the library's error.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"cannot read {folder}: {_changed(error)}") from error


def _changed(error: Exception) -> str:
    text = str(error)
    if "decrypt" not in text.lower():
        return text
    return (
        f"a file was changed or is not this node's ({text.strip()}); restore the records from a "
        "backup, or move them away and import again"
    )
