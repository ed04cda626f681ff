"""Keeping live records: calls that wait together share one write to the disk.

One thread writes. Before any event is kept, the way back to its patient is; Consents are kept
before both, so that nobody is counted who has just said no.
"""

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from fedtwin_client.at_rest.keyring import Keyring, keyring_of
from fedtwin_client.records.codes.check import CodeWatch
from fedtwin_client.records.codes.plausible import implausible
from fedtwin_client.records.consent import Consent
from fedtwin_client.records.door import Keep
from fedtwin_client.records.events import Event
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.pseudonyms import Identity, IdentityMap
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Place, Recipe, Tally, raw_text
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.store.asides import Aside
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.merging import pseudonyms_of
from fedtwin_client.store.tail import OUTDATED, Batch, Tail
from fedtwin_protocol.errors import FedtwinError, RecordError

_MOST_AT_ONCE: Final = 2000


@dataclass(kw_only=True, slots=True)
class LiveTally(Tally):
    """The account of a door, handed over and emptied at every `keep`."""

    quarantine: Path | None = None
    waiting: list[Aside] = field(default_factory=list)

    def set_aside(
        self,
        reasons: Sequence[str],
        place: Place,
        raw: object,
        patient: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        """Hold something wrong until it is kept."""
        self.waiting.append(
            Aside(
                file=place.file,
                line=place.line,
                reason=reasons[0],
                raw=raw_text(raw),
                also=tuple(reasons[1:]),
                patient=patient,
                cut=cut,
                recipe="" if self.recipe is None else self.recipe.to_text(),
            )
        )

    def hand_over(self) -> tuple[list[Aside], Counter[tuple[str, str]]]:
        """What was put aside and counted since the last time."""
        asides, self.waiting = self.waiting, []
        account: Counter[tuple[str, str]] = Counter()
        for kind, counts in (
            ("read", self.read),
            ("reason", self.reasons),
            ("note", self.notes),
        ):
            account.update({(kind, what): number for what, number in counts.items()})
            counts.clear()
        self.examples.clear()
        return asides, account


@dataclass(frozen=True, slots=True)
class _Call:
    batch: Batch
    learned: Mapping[str, Identity]
    consents: Mapping[str, Consent]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class LiveStore:
    """Takes live records in; open it once in the process that has the doors.

    Args:
        store: the timeline store's folder; made where there is none.
        secret: the site's 32 bytes that pseudonyms are made with.
        clock: the time, aware.
        keyring: the node's; none: the one of its folder, if it has one.

    Raises:
        RecordError: the store cannot be used.
        ConfigurationError: the keys are not at hand.
    """

    def __init__(
        self,
        store: Path,
        secret: bytes,
        clock: Callable[[], datetime],
        keyring: Keyring | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._keyring = keyring or keyring_of(store)
        self._secret = secret
        self._pseudonyms = pseudonyms_of(store, secret)
        Tail(store, self._keyring).shut()
        self._identities = IdentityMap(store / "identities.sqlite")
        self._known = self._identities.known()
        self._addresses = self._identities.addresses()
        self._codes = CodeWatch(store)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="live records", daemon=True)
        self._thread.start()

    def __enter__(self) -> "LiveStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Write what waits, and end."""
        self._calls.put(None)
        self._thread.join()

    def desk(self, source: str, zone: ZoneInfo, recipe: Recipe | None = None) -> Desk:
        """A desk for one door.

        Args:
            source: its name, with which every event's `source` starts.
            zone: of times that name none.
            recipe: how to read again what it puts aside; none: it cannot be.
        """
        tally = LiveTally(recipe=recipe)
        reading = Reading(source=source, zone=zone, now=self._clock, tally=tally)
        return Desk(reading=reading, pseudonyms=self._pseudonyms, known=self._addresses)

    def keep(self, desk: Desk) -> Keep:
        """How the door of a desk makes things durable."""
        tally = desk.reading.tally
        if not isinstance(tally, LiveTally):
            raise TypeError("expected a desk of this store")

        async def keep(
            versions: Sequence[Version],
            learned: Mapping[str, Identity] | None = None,
            consents: Mapping[str, Consent] | None = None,
        ) -> None:
            settled = [_settled(version) for version in versions]
            self._look([event for version in settled for event in version.events], tally)
            asides, account = tally.hand_over()
            loop = asyncio.get_running_loop()
            done: asyncio.Future[None] = loop.create_future()
            batch = Batch(
                door=desk.reading.source,
                versions=settled,
                asides=asides,
                account=account,
            )
            self._calls.put(_Call(batch, learned or {}, consents or {}, done, loop))
            await done

        return keep

    def _look(self, events: Sequence[Event], tally: Tally) -> None:
        """Count what is worth a look; all of it is kept."""
        for event in events:
            odd = implausible(event.code, event.numeric_value, event.comparator)
            if odd is not None:
                tally.notes[odd] += 1
        for fault in self._codes.faults(event.code for event in events):
            tally.notes[fault] += 1

    def _write_all(self) -> None:
        with Tail(self._store, self._keyring) as tail, Consents(self._store, self._keyring) as said:
            while (first := self._calls.get()) is not None:
                calls, last = self._waiting(first)
                self._write(tail, said, calls)
                if last:
                    return

    def _waiting(self, first: _Call) -> tuple[list[_Call], bool]:
        """The calls that wait, and whether the end was asked for."""
        calls = [first]
        while len(calls) < _MOST_AT_ONCE:
            try:
                following = self._calls.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return calls, True
            calls.append(following)
        return calls, False

    def _write(self, tail: Tail, said: Consents, calls: list[_Call]) -> None:
        """Write calls together; if that fails one by one, so that one does not spoil the others."""
        try:
            self._write_together(tail, said, calls)
        except FedtwinError as error:
            if len(calls) == 1:
                _tell(calls, error)
                return
            for call in calls:
                self._write(tail, said, [call])
        except Exception as error:  # a sender must be told, whatever it is
            _tell(calls, RecordError(f"could not be kept: {type(error).__name__}"))
        else:
            _tell(calls, None)

    def _write_together(self, tail: Tail, said: Consents, calls: list[_Call]) -> None:
        batches = [_keep_consents(said, call) for call in calls]
        erased = said.erased()
        subjects = {
            event.subject_id
            for call in calls
            for version in call.batch.versions
            for event in version.events
        }
        self._keep_merges(said)
        self._keep_identities(subjects - erased, calls, erased)
        tail.add(batches, erased, self._clock())

    def _keep_merges(self, said: Consents) -> None:
        """Who is one person: what one of them has said of research holds at once.

        Merges are forgotten once they are on the disk: a write that failed is tried again.
        """
        found = dict(self._pseudonyms.merges)
        if not found:
            return
        merges = Merges(self._store)
        merges.record(found, self._secret, self._clock())
        for subject, into in merges.pending().items():
            said.hand_over(subject, into)
        self._pseudonyms.settled(found)

    def _keep_identities(
        self, subjects: set[int], calls: list[_Call], erased: frozenset[int]
    ) -> None:
        fresh = self._pseudonyms.identities(subjects - self._known)
        learned = {
            address: identity
            for call in calls
            for address, identity in call.learned.items()
            if self._addresses.get(address) != identity
            and self._pseudonyms.of(identity) not in erased
        }
        if fresh or learned:
            self._identities.record(fresh, learned)
            self._known |= fresh.keys()
            self._addresses |= learned


def _keep_consents(said: Consents, call: _Call) -> Batch:
    """Keep a call's Consents; its batch, with those in the account that are older than others."""
    if not call.consents:
        return call.batch
    done = said.replace(
        {origin: (item.subject_id, item.statements) for origin, item in call.consents.items()},
        {origin: item.updated for origin, item in call.consents.items()},
    )
    late = Counter({("reason", OUTDATED): len(done.late)} if done.late else {})
    return replace(call.batch, account=call.batch.account + late)


def _settled(version: Version) -> Version:
    """A version whose events can be gone through again."""
    events = list(version.events)
    return Version(origin=version.origin, updated=version.updated, events=events)


def _tell(calls: Sequence[_Call], error: FedtwinError | None) -> None:
    """Tell those who wait what became of their calls; each of their loops is woken once."""

    def tell(done: Sequence[asyncio.Future[None]]) -> None:
        for one in done:
            if one.done():
                continue
            if error is None:
                one.set_result(None)
            else:
                one.set_exception(error)

    waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for call in calls:
        waiting.setdefault(call.loop, []).append(call.done)
    for loop, done in waiting.items():
        loop.call_soon_threadsafe(tell, done)
