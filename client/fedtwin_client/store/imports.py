"""The door into the store: any source of records, all or nothing.

One import runs at a time (a lock file). Patients' identities are written to the site's map before
their events become part of the store, so that no pseudonym is ever without its way back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.records.blocks import BlockSource
from fedtwin_client.records.codes.check import CodeCheck
from fedtwin_client.records.codes.plausible import Plausibility
from fedtwin_client.records.codes.tables import site_tables, using
from fedtwin_client.records.consent import Consent
from fedtwin_client.records.fhir.files import fhir_files
from fedtwin_client.records.fhir.lines import fhir_recipe
from fedtwin_client.records.lines import Progress
from fedtwin_client.records.mapped import mapped_file
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import IdentityMap, Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import ImportReport, Recipe, Tally
from fedtwin_client.records.source import Desk, OpenSource, ReadAgainError, ResendingSource, Source
from fedtwin_client.records.subjects import Systems
from fedtwin_client.store.commit import take_over
from fedtwin_client.store.compaction import compact_within
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.jobs import job_in, staging_in
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.merging import finish_merges, pseudonyms_of
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.staging import Staging
from fedtwin_client.store.tail import OUTDATED
from fedtwin_protocol.errors import ConfigurationError, RecordError

_OUTDATED = "an older version of a resource that comes twice"
_ERASED = "events of patients who are erased here"
_ERASED_CONSENT = "consents of patients who are erased here"
_MERGED = "patients found to be one with another"
_NOT_FINISHED = (
    "the records are in the timelines, but not all that belongs to them (which versions they are, "
    "who is one person): import the same once more when what is wrong is mended"
)
_NOT_RESEARCH = "a Consent that says nothing of research"


def import_fhir(  # noqa: PLR0913 - what a person says on the command line
    paths: Sequence[Path],
    store: Path,
    *,
    secret: bytes,
    now: datetime,
    server: str = "fhir",
    identifier_system: Systems = None,
    zone: str = "UTC",
    progress: Progress | None = None,
    even_older: bool = False,
) -> ImportReport:
    """Import FHIR R4 records.

    Args:
        paths: files and folders: NDJSON, bundles, single resources, also gzipped.
        store: the timeline store's folder; made where there is none.
        secret: the site's 32 bytes that pseudonyms are made with.
        now: aware; records that lie after it are put aside.
        server: a name for where the records come from; ids of two servers do not meet.
        identifier_system: whose identifier makes the pseudonym, of several the first that a patient
            has; none: the server's own id.
        zone: IANA time zone of dates without one.
        progress: is told how many bytes more of the files were read.
        even_older: replace also what is newer in the store.

    Returns:
        The account of the import.

    Raises:
        RecordError: nothing can be read or the store cannot be written; nothing was imported.
        ConfigurationError: the secret or the time handed in is not usable.
    """
    opening = fhir_files(paths, server, identifier_system, progress)
    recipe = fhir_recipe(server, identifier_system, zone)
    return import_source(
        opening,
        store,
        secret=secret,
        now=now,
        source=server,
        zone=zone,
        recipe=recipe,
        even_older=even_older,
    )


def import_table(
    path: Path,
    mapping: Path,
    store: Path,
    *,
    secret: bytes,
    now: datetime,
    even_older: bool = False,
) -> ImportReport:
    """Import a CSV or Parquet table, or FHIR resources through a view that the mapping names.

    Args:
        path: the table; with a view, a file or folder of FHIR resources.
        mapping: the YAML file that says what its columns mean.
        store: the timeline store's folder; made where there is none.
        secret: the site's 32 bytes that pseudonyms are made with.
        now: aware; rows that lie after it are put aside.
        even_older: replace also what is newer in the store; of rows through a view.

    Returns:
        The account of the import.

    Raises:
        RecordError: the table or its mapping is wrong; nothing was imported.
        ConfigurationError: the secret or the time handed in is not usable.
    """
    with using(site_tables(store)):
        opening, meaning, recipe = mapped_file(path, mapping)
    return import_source(
        opening,
        store,
        secret=secret,
        now=now,
        source=recipe.source,
        zone=meaning.timezone,
        recipe=recipe,
        even_older=even_older,
    )


def import_source(  # noqa: PLR0913 - what a person says on the command line
    opening: OpenSource,
    store: Path,
    *,
    secret: bytes,
    now: datetime,
    source: str,
    zone: str,
    recipe: Recipe | None = None,
    even_older: bool = False,
    replayed: bool = False,
) -> ImportReport:
    """Import the records of any source.

    Args:
        opening: opens the source.
        store: the timeline store's folder; made where there is none.
        secret: the site's 32 bytes that pseudonyms are made with.
        now: aware; records that lie after it are put aside.
        source: the name of the source, with which every event's `source` starts.
        zone: IANA time zone of dates without one.
        recipe: how to read mended lines of it again; none: they cannot be replayed.
        even_older: replace also what is newer in the store.
        replayed: these are mended lines, whose zone says nothing of the rest of the source.

    Returns:
        The account of the import.

    Raises:
        RecordError: nothing can be read or the store cannot be written; nothing was imported.
        ConfigurationError: the secret or the time handed in is not usable.
    """
    read_in = None if replayed else (source, zone)
    with using(site_tables(store)):
        for may_start_anew in (True, False):
            with suppress(ReadAgainError), _job(store, now) as job:
                job.tally.recipe = recipe
                pseudonyms = job.pseudonyms(secret)
                reading = Reading(source=source, zone=read_zone(zone), now=now, tally=job.tally)
                desk = Desk(
                    reading=reading,
                    pseudonyms=pseudonyms,
                    known=job.identities.addresses(),
                    may_start_anew=may_start_anew,
                )
                records = opening(desk)
                job.gather(records)
                return job.finish(records, pseudonyms, secret, read_in, even_older=even_older)
    raise AssertionError("a source starts anew only where it may")


class _Job:
    """One import under way."""

    def __init__(self, folder: Path, staging: Path, previous: Manifest, now: datetime) -> None:
        self._folder = folder
        self._previous = previous
        self._now = now
        self._keyring = keyring_of(folder)
        self.identities = IdentityMap(folder / "identities.sqlite")
        with Consents(folder) as consents:
            self._erased = consents.erased()
        self._merges = Merges(folder)
        name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{previous.generation + 1:06d}.ndjson"
        self.tally = Tally(quarantine=folder / "quarantine" / name, keyring=self._keyring)
        staging_key = None if self._keyring is None else fresh_key()
        self._lookers = (Plausibility(), CodeCheck(folder))
        origins = Origins(previous.names_key)
        self.staging = Staging(staging, origins, staging_key, self._erased, self._look)

    def pseudonyms(self, secret: bytes) -> Pseudonyms:
        """Those of this import, with who is known to be one person."""
        return pseudonyms_of(self._folder, secret)

    def gather(self, records: Source) -> None:
        """Stage all records.

        Raises:
            ReadAgainError: the source wants them read once more; nothing is left of this time.
        """
        try:
            if isinstance(records, BlockSource):
                for block in records.blocks():
                    self.staging.add_block(block)
            else:
                for version in records.versions():
                    number = self.staging.version(version.origin, version.updated)
                    self.staging.add(number, version.events)
        except ReadAgainError:
            self.tally.discard()
            raise

    def finish(
        self,
        records: Source,
        pseudonyms: Pseudonyms,
        secret: bytes,
        zone: tuple[str, str] | None,
        *,
        even_older: bool,
    ) -> ImportReport:
        """Consents first, then the way back to patients, then what they are about."""
        title = records.title
        self.staging.flush()
        for looker in self._lookers:
            looker.tell(self.tally)
        self._take_consents(records.consents, even_older=even_older)
        known = {
            address: identity
            for address, identity in records.learned.items()
            if pseudonyms.of(identity) not in self._erased
        }
        self.tally.close()  # while nothing is imported yet, should there be no room for it
        self.identities.record(pseudonyms.identities(self.staging.subjects), known)
        merges = pseudonyms.take_merges()
        if merges:
            self._merges.record(merges, secret, self._now)
            self.tally.notes[_MERGED] += len(merges)
        taken = take_over(
            self._folder,
            self.staging,
            self._previous,
            self._keyring,
            origin=title,
            now=self._now,
            zone=zone,
            even_older=even_older,
            resent=isinstance(records, ResendingSource),
        )
        try:
            finish_merges(self._folder, read_manifest(self._folder) or self._previous)
        except RecordError as error:
            raise RecordError(f"{_NOT_FINISHED}. What is wrong: {error}") from error
        if self.staging.refused:
            self.tally.reasons[_ERASED] += self.staging.refused
        if taken.outdated:
            self.tally.reasons[_OUTDATED] += taken.outdated
        if taken.late:
            self.tally.reasons[OUTDATED] += taken.late
        return self.tally.report(
            origin=title,
            events=taken.events,
            patients=taken.subjects,
            withdrawn=taken.withdrawn,
        )

    def _look(self, events: pa.Table) -> None:
        for looker in self._lookers:
            looker.see(events)

    def _take_consents(self, found: Mapping[str, Consent], *, even_older: bool) -> None:
        said = {origin: (item.subject_id, item.statements) for origin, item in found.items()}
        if not said:
            return
        with Consents(self._folder) as consents:
            updated = {origin: item.updated for origin, item in found.items()}
            done = consents.replace(said, updated, even_older=even_older)
        if done.erased:
            self.tally.reasons[_ERASED_CONSENT] += done.erased
        if done.late:
            self.tally.reasons[OUTDATED] += len(done.late)
        silent = sum(not item.statements for item in found.values())
        if silent:
            self.tally.reasons[_NOT_RESEARCH] += silent


@contextmanager
def _job(folder: Path, now: datetime) -> Iterator[_Job]:
    """The store to itself, with nothing live that would lie above what is imported."""
    if now.tzinfo is None:
        raise ConfigurationError("expected a time with its zone, found one without")
    with job_in(folder) as found:
        compact_within(folder, found, now)
        before = finish_merges(folder, read_manifest(folder) or found)
        with staging_in(folder) as staging:
            job = _Job(folder, staging, before, now)
            try:
                yield job
            finally:
                job.tally.close()
