"""Writing the live tail into the timelines, so that reading stays fast.

1. The newest version of each live record takes the place of what the files hold of it, in one step
   with the number that the files have taken over through (`commit.take_over`).
2. What was put aside goes into quarantine files.
3. What the files have held since the step before is removed from the tail.

A kill between two steps loses nothing and doubles no event: the number decides what counts. At most
something that was put aside stands in two quarantine files.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring, keyring_of
from fedtwin_client.records.blocks import VERSION, VERSIONS, Block
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.report import Place, Recipe, Tally
from fedtwin_client.store.asides import Aside
from fedtwin_client.store.commit import take_over
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.jobs import job_in, staging_in
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.merging import finish_merges
from fedtwin_client.store.moving import moved
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.replacing import origins_of
from fedtwin_client.store.staging import Staging
from fedtwin_client.store.tail import FILE, Tail

_TITLE = "live records"


def compact(store: Path, now: datetime) -> int:
    """Write the live tail into the timelines.

    Args:
        store: the timeline store's folder.
        now: for what is remembered of it.

    Returns:
        How many events were written.

    Raises:
        RecordError: an import runs, or the disk is full; the store is then what it was.
    """
    with job_in(store) as previous:
        events = compact_within(store, previous, now)
        finish_merges(store, read_manifest(store) or previous)
        return events


def compact_within(store: Path, previous: Manifest, now: datetime) -> int:
    """The same for a caller who has the job; `previous` is the store's state before."""
    if not (store / FILE).exists():
        return 0
    keyring = keyring_of(store)
    with Tail(store, keyring) as tail:
        through = tail.last()
        events = 0
        if through > previous.live_through:
            with staging_in(store) as folder:
                names = Origins(previous.names_key)
                staging = _staged(store, folder, tail, names, (previous.live_through, through))
                taken = take_over(
                    store,
                    staging,
                    previous,
                    keyring,
                    origin=_TITLE,
                    now=now,
                    live_through=through,
                    resent=True,
                )
            events = taken.events
            if taken.late:
                tail.count_late(_TITLE, taken.late)
        kept = _keep_asides(store, tail, keyring, now)
        tail.forget(previous.live_through, through, kept, now)
    return events


def waiting(store: Path) -> int:
    """How many live events the timelines do not hold yet."""
    if not (store / FILE).exists():
        return 0
    manifest = read_manifest(store) or Manifest()
    with Tail(store) as tail:
        return tail.rows(manifest.live_through)


def _staged(
    store: Path, folder: Path, tail: Tail, names: Origins, span: tuple[int, int]
) -> Staging:
    after, through = span
    keyring = keyring_of(store)
    with Consents(store) as consents:
        erased = consents.erased()
    staging = Staging(folder, names, None if keyring is None else fresh_key(), erased)
    # Whoever holds the tail may not know yet of a merge that an import has made.
    events = moved(tail.events(after, through), Merges(store).wholes())
    origins = tail.origins(after, through)
    staging.add_block(_block(origins, tail.updated(origins), events))
    staging.flush()
    return staging


def _block(origins: list[str], updated: Mapping[str, int | None], events: pa.Table) -> Block:
    """Each origin as a version that makes its events."""
    numbers = pa.array(np.arange(len(origins)))
    when = pa.array([updated.get(origin) or 0 for origin in origins], pa.int64())
    versions = pa.table([numbers, pa.array(origins, pa.string()), when], schema=VERSIONS)
    made_by = pc.index_in(
        origins_of(events["source"])["origin"], versions["origin"].combine_chunks()
    )
    return Block(
        versions=versions,
        events=events.append_column(VERSION, pc.cast(made_by, VERSION.type)),
    )


def _keep_asides(store: Path, tail: Tail, keyring: Keyring | None, now: datetime) -> list[int]:
    """Write what was put aside into quarantine files, one a recipe; the numbers of what they hold.

    Which of them was read how must be known for it to be read again.
    """
    kept: list[int] = []
    by_recipe: dict[str, list[tuple[int, str, Aside]]] = defaultdict(list)
    for number, door, aside in tail.asides():
        by_recipe[aside.recipe].append((number, door, aside))
    for recipe, asides in by_recipe.items():
        last = asides[-1][0]
        name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-live-{last:06d}.ndjson"
        tally = Tally(
            quarantine=store / "quarantine" / name,
            keyring=keyring,
            recipe=Recipe.of(json.loads(recipe)) if recipe else None,
        )
        for number, door, aside in asides:
            where = aside.file if aside.file.startswith(door) else f"{door}: {aside.file}"
            reasons = (aside.reason, *aside.also)
            tally.set_aside(
                reasons, Place(where, aside.line), aside.raw, aside.patient, cut=aside.cut
            )
            kept.append(number)
        tally.close()
    return kept
