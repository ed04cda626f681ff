"""`fedtwin client listen`: the doors for live records, and writing their tail into the timelines.

A process of its own beside the node's agent. Each door runs by itself: one that fails is opened
again after a while, and the others go on. It ends when it is told to, with everything kept that was
acknowledged.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from fedtwin_client.records.codes.tables import InUse, mark_of_site_tables, site_tables, using
from fedtwin_client.records.door import Door
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.report import Recipe
from fedtwin_client.store.compaction import compact, waiting
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.merging import merges_wait
from fedtwin_protocol.errors import ConfigurationError, FedtwinError, RecordError

_log = logging.getLogger(__name__)
LARGEST_TAIL: Final = 200_000
"""Events above which the tail is written into the timelines at once."""
_OLDEST_TAIL: Final = timedelta(hours=1)
_LOOK_EVERY_S: Final = 30.0
_LOOK_AT_TABLES_EVERY_S: Final = 2.0
_AGAIN_AFTER_S: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedDoor:
    """A door, and how it reads.

    Attributes:
        door: not yet open.
        zone: of times that name none.
        recipe: how what it puts aside is read again; none: it cannot be.
    """

    door: Door
    zone: str = "UTC"
    recipe: Recipe | None = None


async def listen(
    store: Path,
    secret: bytes,
    doors: Mapping[str, OpenedDoor],
    clock: Callable[[], datetime],
    opened: Callable[[str], None] = lambda _: None,
) -> None:
    """Take live records in until cancelled.

    Args:
        store: the timeline store's folder.
        secret: the site's 32 bytes that pseudonyms are made with.
        doors: by name.
        clock: the time, aware.
        opened: is told the name of each door that is about to open.

    Raises:
        RecordError: the store cannot be used, or a door cannot be opened at the start.
        ConfigurationError: another process listens already.
    """
    with (
        using(site_tables(store)) as used,
        _alone(store),
        LiveStore(store, secret, clock) as live,
    ):
        tasks = [
            asyncio.create_task(_keep_open(name, door, live, opened))
            for name, door in doors.items()
        ]
        tasks.append(asyncio.create_task(_write_tail(store, clock)))
        tasks.append(asyncio.create_task(_follow_tables(store, used)))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                if not task.cancelling():  # a second time would cut off what it does in the end
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_open(
    name: str, opened: OpenedDoor, live: LiveStore, told: Callable[[str], None]
) -> None:
    """Serve by one door: what fails in its first seconds ends everything, later it is retried."""
    desk = live.desk(opened.door.name, read_zone(opened.zone), opened.recipe)
    keep = live.keep(desk)
    loop = asyncio.get_running_loop()
    told(name)
    settled = loop.time() + _AGAIN_AFTER_S
    while True:
        try:
            await opened.door.serve(desk, keep)
            raise RecordError("it closed by itself")
        except FedtwinError as error:
            if loop.time() < settled:
                raise RecordError(f"the door '{name}' cannot be opened: {error}") from error
            _log.warning("door %s: %s; opened again in %g s", name, error, _AGAIN_AFTER_S)
        await asyncio.sleep(_AGAIN_AFTER_S)


async def _follow_tables(store: Path, used: InUse) -> None:
    """Read by the site's tables of codes and units as they are now; one that is wrong is told."""
    mark = mark_of_site_tables(store)
    while True:
        await asyncio.sleep(_LOOK_AT_TABLES_EVERY_S)
        if (now := mark_of_site_tables(store)) == mark:
            continue
        mark = now
        try:
            used.tables = await asyncio.to_thread(site_tables, store)
            _log.info("read by the code tables %s from now on", used.tables.version)
        except RecordError as error:
            _log.warning("still read by the code tables %s: %s", used.tables.version, error)


async def _write_tail(store: Path, clock: Callable[[], datetime]) -> None:
    """Write the tail into the timelines when it is large or old, or patients were merged."""
    since = clock()
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        try:
            number = await asyncio.to_thread(waiting, store)
            old = clock() - since > _OLDEST_TAIL
            merged = await asyncio.to_thread(merges_wait, store)
            if number > LARGEST_TAIL or (number and old) or merged:
                written = await asyncio.to_thread(compact, store, clock())
                _log.info("%d live events are in the timelines", written)
            if number > LARGEST_TAIL or old:
                since = clock()
        except RecordError as error:
            _log.warning("the live records wait: %s", error)


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Be the only process that listens for this node."""
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(store / "listen.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another process listens for {store} already: stop it first"
            ) from error
        yield
    finally:
        os.close(handle)
