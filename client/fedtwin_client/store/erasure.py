"""Erasing one patient: what the site holds of them goes, and a bare pseudonym stays.

In this order, each step safe against a kill, and the whole safe to repeat:

1. The pseudonym is noted as erased: from the next task on the patient is absent from every study
   under way, and no import brings them back.
2. The files with their events are written anew without them, under new keys, and the old files are
   removed, as are their images and everything that was put aside in quarantine or downloaded, which
   may speak of them.
3. The way from the pseudonym back to the patient is deleted; that it is still there tells the next
   import, and `fedtwin client check`, that an erasure was cut off.

The ledger keeps its entries, which know pseudonyms only. What was released before stays covered by
the noise that it was released with.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedtwin_client.at_rest.keyring import Keyring, keyring_of
from fedtwin_client.records.images.store import remove_images
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.pseudonyms import IdentityMap
from fedtwin_client.store.commit import rewrite
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.locking import clear, lock_store
from fedtwin_client.store.manifest import read_manifest
from fedtwin_client.store.tail import Tail


@dataclass(frozen=True, kw_only=True, slots=True)
class Erased:
    """What an erasure removed.

    Attributes:
        events: of the patient, from the timelines.
        images: files of the patient's images.
        known: whether the identity map knew the patient.
    """

    events: int
    images: int
    known: bool


def erase_patient(store: Path, subject_id: int, now: datetime) -> Erased:
    """Erase a patient, whether the site knows them or not.

    Args:
        store: the timeline store's folder; made where there is none.
        subject_id: the pseudonym.
        now: for the note.

    Raises:
        RecordError: an import runs, or the disk refuses; run it again, it goes on where it was.
        ConfigurationError: the site key is not at hand.
    """
    everybody = {subject_id} | _same_person(store, subject_id)
    with Consents(store) as consents:
        for one in sorted(everybody):
            consents.erase(one, now)
    with lock_store(store):
        found = [_remove(store, one, keyring_of(store)) for one in sorted(everybody)]
    return Erased(
        events=sum(one.events for one in found),
        images=sum(one.images for one in found),
        known=any(one.known for one in found),
    )


def _same_person(store: Path, subject_id: int) -> frozenset[int]:
    """The other pseudonyms of the patient; an import would bring back under one what is erased.

    So all of them are.
    """
    if not (store / "identities.sqlite").exists():
        return frozenset()
    return Merges(store).group(subject_id)


def unfinished(store: Path) -> frozenset[int]:
    """Pseudonyms whose erasure was cut off."""
    if not (store / "identities.sqlite").exists():
        return frozenset()
    with Consents(store) as consents:
        erased = consents.erased()
    return erased & IdentityMap(store / "identities.sqlite").known() if erased else erased


def finish_erasures(store: Path) -> None:
    """Finish what was cut off; the caller holds the store's lock."""
    for subject_id in sorted(unfinished(store)):
        _remove(store, subject_id, keyring_of(store))


def _remove(store: Path, subject_id: int, keyring: Keyring | None) -> Erased:
    manifest = read_manifest(store)
    with Tail(store, keyring) as tail:
        events = tail.erase(subject_id, 0 if manifest is None else manifest.live_through)
    if manifest is not None:
        before = sum(file.rows for file in manifest.files)
        manifest = rewrite(store, manifest, keyring, without=subject_id)
        events += before - sum(file.rows for file in manifest.files)
        clear(store, manifest)
    images = remove_images(store, subject_id)
    shutil.rmtree(store / "quarantine", ignore_errors=True)
    shutil.rmtree(store / "downloads", ignore_errors=True)
    Merges(store).forget(subject_id)
    known = IdentityMap(store / "identities.sqlite").forget(subject_id)
    return Erased(events=events, images=images, known=known)
