"""Moving the events of patients who turned out to be one person, and moving them back.

1. Which events are moved is noted beside the way back to the patients.
2. What Consents and the list of objections say of the one holds for the other.
3. The files that hold either are written anew, in one step.
4. Their images are moved.
5. That it is done is noted. A kill before leaves it to the next import, or to the next time that
   the live tail is written; each step may be repeated.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.at_rest.tables import open_tables
from fedtwin_client.records.images.moves import move_images
from fedtwin_client.records.images.store import FOLDER, ImageStore
from fedtwin_client.records.merges import FILE, Merges
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.store.commit import move
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.jobs import job_in
from fedtwin_client.store.manifest import Manifest
from fedtwin_client.store.staging import BUCKETS, SCHEMA

_OF_IMAGES = re.compile(r":(?:series|segmentation|label-map)/([0-9a-f]{32})#")
_MOVES = pa.schema(
    [("moving", pa.int64()), ("moving_to", pa.int64()), ("moving_source", pa.string())]
)


def finish_merges(store: Path, manifest: Manifest) -> Manifest:
    """Move what is still to be moved; the caller has the job.

    Args:
        store: the timeline store's folder.
        manifest: its state.

    Returns:
        Its state now.

    Raises:
        RecordError: the disk is full or another fault; it goes on at the next import.
    """
    if not (store / FILE).exists():
        return manifest
    merges = Merges(store)
    pending = merges.pending()
    if not pending:
        _move_images(store, merges)
        return manifest
    merges.note_moved(_events_of(store, manifest, pending))
    with Consents(store) as consents:
        for subject, into in pending.items():
            consents.hand_over(subject, into)
    rows = [(subject, into, None) for subject, into in pending.items()]
    manifest = move(store, manifest, keyring_of(store), _table(rows))
    _move_images(store, merges)
    merges.done(pending)
    return manifest


def _move_images(store: Path, merges: Merges) -> None:
    """Give the images of merged patients to those who stand for them.

    Of merges that were moved before too: a door that does not know of one yet may have kept more.
    """
    if not (store / FOLDER).is_dir():
        return
    images = ImageStore(folder=store / FOLDER, keyring=keyring_of(store))
    for subject, into in merges.wholes().items():
        move_images(images, subject, into)


def merges_wait(store: Path) -> bool:
    """Whether events of merged patients are still to be moved.

    Raises:
        RecordError: the identity map cannot be read.
    """
    return (store / FILE).exists() and bool(Merges(store).pending())


def pseudonyms_of(store: Path, secret: bytes) -> Pseudonyms:
    """Pseudonyms that know who is one person, who is kept apart, and who is erased.

    Raises:
        RecordError: the identity map or the consents cannot be read.
        ConfigurationError: the secret is not 32 bytes.
    """
    merges = Merges(store)
    with Consents(store) as consents:
        erased = consents.erased()
    return Pseudonyms(secret, merges.identities(), merges.apart(), erased)


def unmerge(store: Path, subject: int, now: datetime) -> int:
    """Make a patient who was merged into another one a patient again.

    What came in since the merge stays with the other one, until its source sends it anew.

    Args:
        store: the timeline store's folder.
        subject: the pseudonym that was merged into another one.
        now: for the list of objections, which both stand on if one may.

    Returns:
        How many events came back.

    Raises:
        RecordError: it was not merged, an import runs, or the disk is full.
    """
    with job_in(store) as found:
        merges = Merges(store)
        manifest = finish_merges(store, found)
        into = merges.wholes().get(subject)
        sources = merges.moved(subject)
        if into is not None:
            with Consents(store) as consents:
                consents.part(into, subject, now)
            rows = [(into, subject, source) for source in sources]
            move(store, manifest, keyring_of(store), _table(rows))
            images = ImageStore(folder=store / FOLDER, keyring=keyring_of(store))
            move_images(images, into, subject, _image_folders(sources))
        merges.undo(subject)
        return len(sources)


def _image_folders(sources: Sequence[str]) -> frozenset[str]:
    """The folders of the images that events are of."""
    found = (_OF_IMAGES.search(source) for source in sources)
    return frozenset(match[1] for match in found if match is not None)


def _events_of(
    store: Path, manifest: Manifest, subjects: Mapping[int, int]
) -> list[tuple[int, str]]:
    buckets = {subject % BUCKETS for subject in subjects}
    files = [file for file in manifest.files if file.bucket in buckets]
    if not files:
        return []
    keyring = keyring_of(store)
    table = open_tables([file.opened(store, keyring) for file in files], SCHEMA).to_table(
        columns=["subject_id", "source"],
        filter=pc.field("subject_id").isin(pa.array(list(subjects), type=pa.int64())),
    )
    return list(zip(table["subject_id"].to_pylist(), table["source"].to_pylist(), strict=True))


def _table(rows: Sequence[tuple[int, int, str | None]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    return pa.Table.from_arrays(
        [pa.array(column, type=field.type) for column, field in zip(columns, _MOVES, strict=True)],
        schema=_MOVES,
    )
