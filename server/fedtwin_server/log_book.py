"""The coordinator's public log: entries in its database, signed heads, and proofs.

An entry is written in the same transaction as the fact it tells of, so that neither exists without
the other. What sites say they hold is kept, the newest of each, and passed on to the others.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.errors import LogError, SignatureError
from fedtwin_protocol.merkle import MerkleTree, leaf_hash
from fedtwin_protocol.signing import public_key, sign
from fedtwin_protocol.site_key import check_site_signature
from fedtwin_protocol.transparency import (
    HEAD_TYPE,
    HELD_PURPOSE,
    LogEntry,
    LogHead,
    entry_from_bytes,
    head_from_bytes,
    held_from_bytes,
)
from fedtwin_protocol.v1 import exchange_pb2 as pb

LOG_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS log (
    sequence INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, study TEXT NOT NULL,
    entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS held_heads (
    site TEXT PRIMARY KEY, size INTEGER NOT NULL, statement BLOB NOT NULL,
    signature BLOB NOT NULL);
"""
# A site whose ledger grows all the time is written down no more often.
LEDGER_PAUSE: Final = timedelta(seconds=5)
HEAD_LIFE: Final = timedelta(minutes=1)
LARGEST_STATEMENT: Final = 8192
# So that an answer stays within the limit of one message.
MOST_PROVEN: Final = 2000
Named = tuple[str, int, str]
"""A study's name, its plan's version and hash."""


def append(connection: sqlite3.Connection, entry: LogEntry) -> None:
    """Write an entry, within the caller's transaction; the same fact is written once."""
    connection.execute(
        "INSERT OR IGNORE INTO log (sequence, key, study, entry)"
        " VALUES ((SELECT count(*) FROM log), ?, ?, ?)",
        (entry.key, entry.study, entry.to_bytes()),
    )


def append_plan(connection: sqlite3.Connection, plan: Named, added: str) -> None:
    """Write that a plan was signed and its study opened."""
    study, version, plan_hash = plan
    entry = LogEntry(
        kind="plan",
        study=study,
        version=version,
        subject=plan_hash,
        plan_hash=plan_hash,
        time=datetime.fromisoformat(added),
    )
    append(connection, entry)


def append_round(
    connection: sqlite3.Connection,
    plan: Named,
    number: int,
    state: bytes,
    sites: tuple[str, ...],
    closed: str,
) -> None:
    """Write that a round was closed: who took part, and the hash of what it made."""
    study, version, plan_hash = plan
    entry = LogEntry(
        kind="round",
        study=study,
        version=version,
        subject=sha256_hex(state),
        plan_hash=plan_hash,
        round=number,
        sites=sites,
        time=datetime.fromisoformat(closed),
    )
    append(connection, entry)


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """An entry with its number."""

    index: int
    entry: LogEntry


class LogBook:
    """The log as it is shown.

    Args:
        connection: the coordinator's database.
        consortium: whose log it is.
        key: the coordinator's online key.
    """

    def __init__(
        self, connection: sqlite3.Connection, consortium: str, key: Ed25519PrivateKey
    ) -> None:
        self._connection = connection
        self._consortium = consortium
        self._key = key
        self._tree = MerkleTree()
        self._signed: tuple[LogHead, bytes] | None = None
        self._ledgers: dict[str, datetime] = {}

    def head(self, now: datetime) -> tuple[LogHead, bytes]:
        """The newest head, and the same signed."""
        self._read()
        size = self._tree.size
        if self._signed is None or self._signed[0].size != size or _old(self._signed[0], now):
            head = LogHead(
                consortium=self._consortium, size=size, root=self._tree.root().hex(), time=now
            )
            self._signed = head, sign(HEAD_TYPE, head.to_bytes(), [self._key]).to_bytes()
        return self._signed

    def news(
        self, held_size: int, now: datetime, told: Mapping[str, bytes] | None = None, to: str = ""
    ) -> pb.LogNews:
        """The newest head with proofs: from the asker's, and from those that sites hold.

        Args:
            held_size: of the head that the asker holds.
            now: the time.
            told: statements by site that the asker has been told before; not sent again.
            to: the asking site.
        """
        head, signed = self.head(now)
        rows = self._connection.execute(
            "SELECT site, size, statement, signature FROM held_heads ORDER BY site"
        ).fetchall()
        others = [
            pb.GossipedHead(
                site=site, statement=statement, signature=signature, proof=self._grown(size, head)
            )
            for site, size, statement, signature in rows
            if site != to and (told is None or told.get(site) != statement)
        ]
        return pb.LogNews(head=signed, consistency=self._grown(held_size, head), others=others)

    def hold(
        self, site: str, held: pb.HeldLogHead, key: str | None, now: datetime
    ) -> tuple[int, LogEntry | None]:
        """Keep what a site says it holds.

        Args:
            site: the name in its certificate.
            held: its statement.
            key: its long-term key, where one is known.
            now: the time.

        Returns:
            The size of the log that it holds, and its ledger's commitment to be appended, if new.

        Raises:
            LogError: the statement is another's, or its signature does not fit.
        """
        if len(held.statement) > LARGEST_STATEMENT or len(held.signature) > 200:
            raise LogError("what the site says of the log is too long")
        found = held_from_bytes(held.statement, site)
        size = 0
        if found.head:
            mine = public_key(self._key, "coordinator")
            size = head_from_bytes(found.head.encode(), self._consortium, mine).size
        if key is None:
            return size, None
        try:
            check_site_signature(key, HELD_PURPOSE, held.statement, held.signature, site)
        except SignatureError as error:
            raise LogError(str(error)) from error
        self._connection.execute(
            "INSERT OR REPLACE INTO held_heads (site, size, statement, signature)"
            " VALUES (?, ?, ?, ?)",
            (site, size, held.statement, held.signature),
        )
        return size, self._ledger_entry(site, found.ledger, now)

    def prove(self, entries: Sequence[Logged], now: datetime) -> list[pb.ProvenEntry]:
        """Entries with their proofs in the newest head."""
        head, _ = self.head(now)
        return [
            pb.ProvenEntry(
                index=item.index,
                entry=item.entry.to_bytes(),
                proof=self._tree.inclusion_proof(item.index, head.size),
            )
            for item in entries
        ]

    def entries(self, study: str, version: int) -> list[Logged]:
        """A study's plan, rounds and release; the newest `MOST_PROVEN` of them."""
        rows = self._connection.execute(
            "SELECT sequence, entry FROM log WHERE study = ? ORDER BY sequence DESC", (study,)
        )
        found = [Logged(index=index, entry=entry_from_bytes(bytes(data))) for index, data in rows]
        mine = [item for item in found if item.entry.version == version]
        plans = [item for item in mine[MOST_PROVEN:] if item.entry.kind == "plan"]
        return [*plans, *reversed(mine[:MOST_PROVEN])]

    def ledgers(self, sites: Sequence[str], before: int | None = None) -> list[Logged]:
        """The newest commitment of each site's ledger, before entry `before`."""
        rows = self._connection.execute(
            "SELECT sequence, entry FROM log WHERE study = '' AND sequence < ? ORDER BY sequence",
            (2**62 if before is None else before,),
        )
        newest: dict[str, Logged] = {}
        for index, data in rows:
            entry = entry_from_bytes(bytes(data))
            if entry.kind == "ledger" and set(entry.sites) <= set(sites):
                newest[entry.sites[0]] = Logged(index=index, entry=entry)
        return [newest[site] for site in sorted(newest)]

    def _ledger_entry(self, site: str, commitment: str, now: datetime) -> LogEntry | None:
        last = self._ledgers.get(site)
        if not commitment or (last is not None and now - last < LEDGER_PAUSE):
            return None
        entry = LogEntry(kind="ledger", subject=commitment, sites=(site,), time=now)
        known = self._connection.execute("SELECT 1 FROM log WHERE key = ?", (entry.key,)).fetchone()
        if known is not None:
            return None
        self._ledgers[site] = now
        return entry

    def _grown(self, old: int, head: LogHead) -> list[bytes]:
        """A proof from an older size; nothing can be proven from a larger one."""
        return self._tree.consistency_proof(old, head.size) if old <= head.size else []

    def _read(self) -> None:
        rows = self._connection.execute(
            "SELECT entry FROM log WHERE sequence >= ? ORDER BY sequence", (self._tree.size,)
        )
        for (entry,) in rows:
            self._tree.append(leaf_hash(bytes(entry)))


def _old(head: LogHead, now: datetime) -> bool:
    return now - head.time > HEAD_LIFE
