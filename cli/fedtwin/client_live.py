"""`fedtwin client listen` and `fedtwin client records live`: live records."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fedtwin.client_patients import DEFAULT_HOME, Folder
from fedtwin.paper import LogLevel, now, say, start_log


def listen(
    home: Folder = DEFAULT_HOME,
    log_level: Annotated[LogLevel, typer.Option(help="How much to write.")] = LogLevel.INFO,
) -> None:
    """Take live records in by the doors of doors.yaml, until told to stop.

    Example: fedtwin client listen
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.doors import read_doors
    from fedtwin_client.listening import listen as take_in
    from fedtwin_client.node.home import NodeHome

    start_log(log_level)
    place = NodeHome(folder=home)
    doors = read_doors(home, now)
    asyncio.run(take_in(place.records, site_secret(place), doors, now))


def live(
    home: Folder = DEFAULT_HOME,
    follow: Annotated[
        bool, typer.Option("--follow", help="Say what comes in, as it does.")
    ] = False,
) -> None:
    """What came in live, by door: what was read, what was not used, and what waits.

    Example: fedtwin client records live --follow
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.store.compaction import waiting
    from fedtwin_client.store.tail import Tail

    store = NodeHome(folder=home).records
    with Tail(store) as tail:
        account = tail.account()
        asides = len(tail.asides())
    last = ""
    for (door, kind, what), number in account.items():
        if door != last:
            say(door)
        last = door
        say(f"  {_KINDS[kind]:<9} {number:>9,}  {what}")
    if not account:
        say("nothing came in live yet; 'fedtwin client listen' opens the doors of doors.yaml")
    say(
        f"{waiting(store):,} events are not in the timelines' files yet; they are read all the same"
    )
    if asides:
        say(f"{asides:,} things are put aside; the next compaction moves them into quarantine")
    if follow:
        asyncio.run(_follow(store))


_KINDS = {"read": "read", "reason": "not used", "note": "to know"}


async def _follow(store: Path) -> None:
    from fedtwin_client.store.watch import watch

    async for change in watch(store):
        whose = ", ".join(str(subject) for subject in sorted(change.subjects)) or "nobody"
        say(f"{change.seq}  {change.origin}  patient {whose}")
