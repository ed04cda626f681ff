"""Entries of the ledger and the chain that binds them: no input or output here.

Each entry carries the hash of the one before it. Its own hash is SHA-256 over its canonical JSON,
so that a changed, removed or inserted entry shows at the first entry that no longer fits.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.errors import LedgerError, WireError

START: Final = "0" * 64
"""What the first entry names as the hash before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the ledger.

    Attributes:
        sequence: 1 for the first entry, then one more each.
        time: when it was written, UTC.
        kind: `reserve`, `charge`, `close` or `clock`.
        study: the study's name; empty for `clock`.
        plan_hash: SHA-256 of the study's plan.
        task: the coordinator's task that was paid for; only for `charge`.
        body: what else belongs to the kind, as plain JSON values.
        previous: hash of the entry before.
        hash: of all the above.
    """

    sequence: int
    time: datetime
    kind: str
    study: str
    plan_hash: str
    task: str
    body: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """What is to be written; the chain adds sequence, time and hashes."""

    kind: str
    study: str = ""
    plan_hash: str = ""
    task: str = ""
    body: Mapping[str, Any]


def link(fact: Fact, previous: Entry | None, time: datetime) -> Entry:
    """Make the entry that follows `previous`."""
    sequence = previous.sequence + 1 if previous else 1
    before = previous.hash if previous else START
    moment = time.astimezone(UTC)
    return Entry(
        sequence=sequence,
        time=moment,
        kind=fact.kind,
        study=fact.study,
        plan_hash=fact.plan_hash,
        task=fact.task,
        body=fact.body,
        previous=before,
        hash=_hash(fact, sequence, spell_time(moment), before),
    )


def check_link(entry: Entry, previous: Entry | None) -> None:
    """Check that an entry is whole and follows `previous`.

    Raises:
        LedgerError: it does not; the sentence names the entry.
    """
    expected = previous.sequence + 1 if previous else 1
    if entry.sequence != expected:
        raise LedgerError(
            f"the privacy ledger lacks entry {expected}: after entry {expected - 1} comes entry "
            f"{entry.sequence}. {REMEDY}"
        )
    fact = Fact(
        kind=entry.kind,
        study=entry.study,
        plan_hash=entry.plan_hash,
        task=entry.task,
        body=entry.body,
    )
    before = previous.hash if previous else START
    if entry.previous != before or entry.hash != _hash(
        fact, entry.sequence, spell_time(entry.time), before
    ):
        raise LedgerError(
            f"entry {entry.sequence} of the privacy ledger ({entry.kind}, {spell_time(entry.time)})"
            f" was changed after it was written, or the one before it was. {REMEDY}"
        )


REMEDY: Final = (
    "Nothing will be charged or sent from this ledger: show it to the data protection officer, and "
    "restore the newest whole copy only if nothing left the hospital after it was made"
)


def entry_of(row: tuple[Any, ...]) -> Entry:
    """An entry from its columns, in the order of `Entry`.

    Raises:
        LedgerError: a column is not spelled as it was written.
    """
    sequence, time, kind, study, plan_hash, task, text, previous, entry_hash = row
    try:
        body = json.loads(text)
        moment = datetime.fromisoformat(time)
        if canonical_bytes(body).decode() != text or spell_time(moment) != time:
            raise ValueError("it is not spelled canonically")
    except (ValueError, TypeError, RecursionError, WireError) as error:
        raise LedgerError(
            f"entry {sequence} of the privacy ledger was changed after it was written ({error}). "
            f"{REMEDY}"
        ) from error
    return Entry(
        sequence=sequence,
        time=moment.astimezone(UTC),
        kind=kind,
        study=study,
        plan_hash=plan_hash,
        task=task,
        body=body,
        previous=previous,
        hash=entry_hash,
    )


def spell_time(time: datetime) -> str:
    """UTC in ISO 8601 with microseconds: the spelling that is hashed."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _hash(fact: Fact, sequence: int, time: str, previous: str) -> str:
    return sha256_hex(
        canonical_bytes(
            {
                "sequence": sequence,
                "time": time,
                "kind": fact.kind,
                "study": fact.study,
                "plan_hash": fact.plan_hash,
                "task": fact.task,
                "body": fact.body,
                "previous": previous,
            }
        )
    )
