"""The list of what left the hospital, message by message: its values and its two tables.

Kinds in `SUMMED` come every few seconds and say nothing; they are summed by the hour.
"""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fedtwin_client.node.ledger_chain import spell_time

SUMMED: Final = frozenset({"heartbeat", "catalogue request", "log head"})
"""Kinds of message of which a row is kept for an hour, not for each."""

DEPARTURES: Final = """
CREATE TABLE IF NOT EXISTS messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, kind TEXT NOT NULL,
    study TEXT NOT NULL, round INTEGER, bytes INTEGER NOT NULL, held TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS hours (
    hour TEXT NOT NULL, kind TEXT NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    held TEXT NOT NULL, PRIMARY KEY (hour, kind));
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """One message that left, or one hour of a summed kind.

    Attributes:
        time: when it was sent; the hour's start for a summed kind.
        kind: `answer`, `decision`, `hello`, `blob`, `heartbeat` and the like.
        study: the study's name; empty outside studies.
        round: of the study; none outside rounds.
        bytes: on the wire, of our messages, before encryption.
        held: what it held, in words: `gradient_sum, 14 numbers, noised`.
        messages: how many; 1 unless summed.
    """

    time: datetime
    kind: str
    study: str = ""
    round: int | None = None
    bytes: int
    held: str
    messages: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """Everything that left since some time, oldest first, and its totals."""

    departures: tuple[Departure, ...]

    @property
    def messages(self) -> int:
        """How many messages."""
        return sum(departure.messages for departure in self.departures)

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(departure.bytes for departure in self.departures)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Messages and bytes of each kind."""
        totals: dict[str, tuple[int, int]] = {}
        for departure in self.departures:
            messages, size = totals.get(departure.kind, (0, 0))
            totals[departure.kind] = (messages + departure.messages, size + departure.bytes)
        return totals


def write_departure(connection: sqlite3.Connection, departure: Departure) -> None:
    """Add a message to the list.

    The row is not flushed by itself, so that a heartbeat costs no disk access; the next flushed
    transaction on the same file takes it along.
    """
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        _insert(connection, departure)
    finally:
        connection.execute("PRAGMA synchronous=FULL")


def read_departures(connection: sqlite3.Connection, since: datetime | None) -> Left:
    """The list since some time; none: from the beginning."""
    rows = connection.execute(
        "SELECT time, kind, study, round, bytes, held, 1 FROM messages WHERE time >= ?"
        " UNION ALL SELECT hour, kind, '', NULL, bytes, held, messages FROM hours"
        " WHERE hour >= ? ORDER BY 1, 2",
        (spell_time(since) if since else "", _hour(since) if since else ""),
    )
    return Left(departures=tuple(_departure(row) for row in rows))


def _insert(connection: sqlite3.Connection, departure: Departure) -> None:
    if departure.kind in SUMMED:
        connection.execute(
            "INSERT INTO hours (hour, kind, messages, bytes, held) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (hour, kind) DO UPDATE SET messages = messages + excluded.messages,"
            " bytes = bytes + excluded.bytes, held = excluded.held",
            (
                _hour(departure.time),
                departure.kind,
                departure.messages,
                departure.bytes,
                departure.held,
            ),
        )
        return
    connection.execute(
        "INSERT INTO messages (time, kind, study, round, bytes, held) VALUES (?, ?, ?, ?, ?, ?)",
        (
            spell_time(departure.time),
            departure.kind,
            departure.study,
            departure.round,
            departure.bytes,
            departure.held,
        ),
    )


def _departure(row: tuple[str, str, str, int | None, int, str, int]) -> Departure:
    time, kind, study, round_number, size, held, messages = row
    return Departure(
        time=datetime.fromisoformat(time),
        kind=kind,
        study=study,
        round=round_number,
        bytes=size,
        held=held,
        messages=messages,
    )


def _hour(time: datetime) -> str:
    return spell_time(time.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
