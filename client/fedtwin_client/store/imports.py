"""The doors into the store: FHIR and tables, each all or nothing.

One import runs at a time (a lock file). Patients' identities are written to the site's map before
their events become part of the store, so that no pseudonym is ever without its way back.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fedtwin_client.records.fhir import LOOKED_UP, FhirReader
from fedtwin_client.records.mapping import read_mapping
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Identity, IdentityMap, Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import ImportReport, Tally
from fedtwin_client.records.resources import find_files, mentions, read_resources
from fedtwin_client.records.subjects import Subjects
from fedtwin_client.records.tables import TableReader
from fedtwin_client.store.commit import take_over
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.staging import Staging
from fedtwin_protocol.errors import ConfigurationError, RecordError

_SERVER = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\Z")
_OUTDATED = "an older version of a resource that comes twice"


def import_fhir(
    paths: Sequence[Path],
    store: Path,
    *,
    secret: bytes,
    now: datetime,
    server: str = "fhir",
    identifier_system: str | None = None,
    zone: str = "UTC",
) -> ImportReport:
    """Import FHIR R4 records.

    Args:
        paths: files and folders: NDJSON, bundles, single resources, also gzipped.
        store: the timeline store's folder; made where there is none.
        secret: the site's 32 bytes that pseudonyms are made with.
        now: aware; records that lie after it are put aside.
        server: a name for where the records come from; ids of two servers do not meet.
        identifier_system: whose identifier makes the pseudonym; none: the server's own id.
        zone: IANA time zone of dates without one.

    Returns:
        The account of the import.

    Raises:
        RecordError: nothing can be read or the store cannot be written; nothing was imported.
        ConfigurationError: the secret or the time handed in is not usable.
    """
    if not _SERVER.match(server):
        raise RecordError(f"expected a server name of a-z, 0-9 and '-', found '{server}'")
    files = find_files(paths)
    pseudonyms = Pseudonyms(secret)
    with _job(store, now) as job:
        reading = Reading(source=server, zone=read_zone(zone), now=now, tally=job.tally)
        subjects = Subjects(
            pseudonyms,
            server=server,
            identifier_system=identifier_system,
            known=job.identities.addresses(),
        )
        reader = FhirReader(reading, subjects)
        for file in files:
            for found in mentions(file, LOOKED_UP):
                reader.learn(found)
        for file in files:
            for found in read_resources(file, job.tally):
                for version in reader.read(found):
                    number = job.staging.version(version.origin, version.updated)
                    job.staging.add(number, version.events)
        if job.tally.reasons and not job.tally.read:
            listed = ", ".join(str(path) for path in paths)
            raise RecordError(
                f"found no FHIR resource in {listed}{_first(job.tally)}; nothing was imported"
            )
        title = f"{len(files)} FHIR files from {server}"
        return job.finish(title, pseudonyms, subjects.learned)


def import_table(
    path: Path, mapping: Path, store: Path, *, secret: bytes, now: datetime
) -> ImportReport:
    """Import a CSV or Parquet table.

    Args:
        path: the table.
        mapping: the YAML file that says what its columns mean.
        store: the timeline store's folder; made where there is none.
        secret: the site's 32 bytes that pseudonyms are made with.
        now: aware; rows that lie after it are put aside.

    Returns:
        The account of the import.

    Raises:
        RecordError: the table or its mapping is wrong; nothing was imported.
        ConfigurationError: the secret or the time handed in is not usable.
    """
    meaning = read_mapping(mapping)
    pseudonyms = Pseudonyms(secret)
    if not path.is_file():
        raise RecordError(f"expected a table, found no file {path}")
    with _job(store, now) as job:
        reading = Reading(
            source=f"table:{meaning.name}",
            zone=read_zone(meaning.timezone),
            now=now,
            tally=job.tally,
        )
        reader = TableReader(path, meaning, reading, pseudonyms)
        version = job.staging.version(reader.origin, None)
        for events in reader.read():
            job.staging.add(version, events)
        if not job.staging.subjects:
            raise RecordError(
                f"found no row in {path} that can be used{_first(job.tally)}; nothing was "
                "imported, and what came from this file before is still there"
            )
        return job.finish(f"{path.name} as {meaning.name}", pseudonyms, {})


def _first(tally: Tally) -> str:
    """The commonest reasons why things were not used, for a sentence."""
    reasons = [f"{reason} ({count})" for reason, count in tally.reasons.most_common(3)]
    return f": {', '.join(reasons)}" if reasons else ""


class _Job:
    """One import under way."""

    def __init__(self, folder: Path, previous: Manifest, now: datetime) -> None:
        self._folder = folder
        self._previous = previous
        self._now = now
        self.identities = IdentityMap(folder / "identities.sqlite")
        name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{previous.generation + 1:06d}.ndjson"
        self.tally = Tally(quarantine=folder / "quarantine" / name)
        self.staging = Staging(folder / "staging")

    def finish(
        self, title: str, pseudonyms: Pseudonyms, addresses: dict[str, Identity]
    ) -> ImportReport:
        self.staging.flush()
        self.identities.record(pseudonyms.identities(self.staging.subjects), addresses)
        taken = take_over(
            self._folder, self.staging.folder, self._previous, origin=title, now=self._now
        )
        if taken.outdated:
            self.tally.reasons[_OUTDATED] += taken.outdated
        return self.tally.report(
            origin=title,
            events=taken.events,
            patients=taken.subjects,
            withdrawn=taken.withdrawn,
        )


@contextmanager
def _job(folder: Path, now: datetime) -> Iterator[_Job]:
    """Lock the store, clear what a killed import left, and clear up at the end."""
    if now.tzinfo is None:
        raise ConfigurationError("expected a time with its zone, found one without")
    _attempt(folder, lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
    with _lock(folder):
        previous = read_manifest(folder) or Manifest()
        staging = folder / "staging"
        _attempt(folder, lambda: _clear(folder, previous))
        _attempt(folder, lambda: staging.mkdir(mode=0o700))
        job = _Job(folder, previous, now)
        try:
            yield job
        except OSError as error:
            raise RecordError(f"cannot write to {folder}: {error}; nothing was imported") from error
        finally:
            job.tally.close()
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RecordError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordError(
                f"another import into {folder} is running; wait for its end"
            ) from error
        yield
    finally:
        os.close(handle)


def _clear(folder: Path, manifest: Manifest) -> None:
    """Remove files that no reader can need: unlisted ones, and those retired before."""
    shutil.rmtree(folder / "staging", ignore_errors=True)
    live = {folder / file.path for file in manifest.files}
    for file in (folder / "events").glob("*.parquet"):
        if file not in live:
            file.unlink()


def _attempt(folder: Path, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        raise RecordError(f"cannot write to {folder}: {error.strerror}") from error
