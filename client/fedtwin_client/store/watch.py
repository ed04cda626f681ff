"""Being told of live records: whoever watches hears of every change once, in order."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.store.tail import Change, Tail

_LOOK_EVERY_S: Final = 0.2


async def watch(
    store: Path,
    after: int | None = None,
    keyring: Keyring | None = None,
    every_s: float = _LOOK_EVERY_S,
) -> AsyncIterator[Change]:
    """Changes as they come, also from another process, until nobody asks any more.

    What is longer ago than the last but one compaction is not told again; whoever was away longer
    reads the timelines anew.

    Args:
        store: the timeline store's folder.
        after: the number of the last change that is known; none: only what comes from now on.
        keyring: the node's; none: the one of its folder, if it has one.
        every_s: how often to look.

    Raises:
        RecordError: the live records cannot be read.
    """
    with Tail(store, keyring) as tail:
        known = tail.last() if after is None else after
        while True:
            changes = tail.changes(known)
            for change in changes:
                known = change.seq
                yield change
            if not changes:
                await asyncio.sleep(every_s)
