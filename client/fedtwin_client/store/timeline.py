"""Reading the timeline store: one consistent state, by codes and patients.

A timeline holds the list of files that was valid when it was opened, so that an import that runs
meanwhile changes nothing of what it reads. Times are UTC.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.staging import SCHEMA
from fedtwin_protocol.errors import RecordError

_POSITION = pa.field("file_row_number", pa.int64())


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """One state of a hospital's timeline store.

    Attributes:
        folder: where it lies.
        manifest: which files are valid.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Timeline":
        """Open the newest state.

        Raises:
            RecordError: nothing was imported yet, or the store is damaged.
        """
        manifest = read_manifest(folder)
        if manifest is None:
            raise RecordError(
                f"there are no records in {folder} yet; import some with "
                "'fedtwin client import fhir' or 'fedtwin client import table'"
            )
        absent = [file.path for file in manifest.files if not (folder / file.path).is_file()]
        if absent:
            raise RecordError(
                f"{folder} lacks {absent[0]} and {len(absent) - 1} more files that its manifest "
                "names; restore the folder as a whole from a backup"
            )
        return cls(folder=folder, manifest=manifest)

    @property
    def rows(self) -> int:
        """How many events there are."""
        return sum(file.rows for file in self.manifest.files)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own with the view `events`; the caller closes it.

        Besides the store's columns the view has `file_row_number`: a patient's events lie in one
        file in the order of time, available time, source and code, and this number says so.
        One thread, so that sums of floating-point numbers come out the same every time. What does
        not fit into memory is spilled into the store's own folder, never elsewhere.
        """
        db = duckdb.connect()
        db.execute("SET TimeZone = 'UTC'")
        db.execute("SET threads = 1")
        db.execute("SET temp_directory = $folder", {"folder": str(self.folder / "spill")})
        paths = [str(self.folder / file.path) for file in self.manifest.files]
        if paths:
            db.read_parquet(paths, file_row_number=True).create_view("events")
        else:
            db.register("events", SCHEMA.append(_POSITION).empty_table())
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
            raise RecordError(f"cannot read the timeline store {self.folder}: {error}") from error
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
        finally:
            db.close()
        return [(code, unit, int(events), int(subjects)) for code, unit, events, subjects in rows]
