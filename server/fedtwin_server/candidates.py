"""A round's model between its making and its judgement, and what became of it, on disk.

The candidate is written down before any site is asked for its vote. So a coordinator that is killed
meanwhile takes up the same candidate, and a vote that was given speaks of it and of no other. A
verdict, once written, is final.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from fedtwin_protocol.v1 import exchange_pb2 as pb

Verdict = Literal["", "kept", "thrown away"]

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS candidates (plan_hash TEXT NOT NULL, round INTEGER NOT NULL,"
    " state BLOB, sites TEXT NOT NULL, verdict TEXT NOT NULL DEFAULT '',"
    " reason TEXT NOT NULL DEFAULT '', votes TEXT NOT NULL DEFAULT '{}',"
    " PRIMARY KEY (plan_hash, round))"
)
_ONE: Final = (
    "SELECT round, state, sites, verdict, reason, votes FROM candidates"
    " WHERE plan_hash = ? AND round = ?"
)
_ALL: Final = (
    "SELECT round, state, sites, verdict, reason, votes FROM candidates"
    " WHERE plan_hash = ? ORDER BY round"
)
_NEWEST: Final = (
    "SELECT round, state, sites, verdict, reason, votes FROM candidates"
    " WHERE plan_hash = ? AND state IS NOT NULL"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One round's model.

    Attributes:
        round: which.
        state: the model and the rule's memory after it; none where no model was made.
        sites: whose updates are in it.
        verdict: empty while it waits.
        reason: why it was thrown away, in words.
        votes: noised, by site; empty where none were bought.
    """

    round: int
    state: bytes | None
    sites: tuple[str, ...]
    verdict: Verdict = ""
    reason: str = ""
    votes: Mapping[str, float] = field(default_factory=dict)

    @property
    def contents(self) -> list[pb.Content]:
        """What it needs while it waits, or is kept."""
        if self.state is None or self.verdict == "thrown away":
            return []
        state = pb.RoundState.FromString(self.state)
        return [state.parameters, state.memory]


class CandidateBook:
    """The candidates of all studies.

    Args:
        connection: the coordinator's database, in autocommit mode (`isolation_level=None`).
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(_SCHEMA)

    def write(self, plan_hash: str, candidate: Candidate) -> None:
        """Write a candidate, or its verdict."""
        self._connection.execute(
            "INSERT INTO candidates (plan_hash, round, state, sites, verdict, reason, votes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plan_hash, round) DO UPDATE SET"
            " state = excluded.state, verdict = excluded.verdict, reason = excluded.reason,"
            " votes = excluded.votes WHERE verdict = ''",
            (
                plan_hash,
                candidate.round,
                candidate.state,
                json.dumps(candidate.sites),
                candidate.verdict,
                candidate.reason,
                json.dumps(dict(candidate.votes)),
            ),
        )

    def get(self, plan_hash: str, number: int) -> Candidate | None:
        """The candidate of one round, if it is written down."""
        rows = self._connection.execute(_ONE, (plan_hash, number))
        return next(map(_candidate, rows), None)

    def forget_states(self, plan_hash: str, before: int) -> None:
        """Drop the models of earlier rounds, whose outcome stands among the closed rounds."""
        self._connection.execute(
            "UPDATE candidates SET state = NULL WHERE plan_hash = ? AND round < ?"
            " AND state IS NOT NULL",
            (plan_hash, before),
        )

    def all(self, plan_hash: str) -> list[Candidate]:
        """A study's candidates, by round."""
        rows = self._connection.execute(_ALL, (plan_hash,))
        return list(map(_candidate, rows))

    def contents(self, plan_hash: str) -> list[pb.Content]:
        """What a study's newest candidate needs."""
        rows = self._connection.execute(_NEWEST, (plan_hash,))
        return [content for one in map(_candidate, rows) for content in one.contents]

    def thrown_away(self, plan_hash: str) -> dict[int, str]:
        """Rounds that went wrong, with the reason."""
        rows = self._connection.execute(
            "SELECT round, reason FROM candidates WHERE plan_hash = ? AND verdict = 'thrown away'"
            " ORDER BY round",
            (plan_hash,),
        )
        return {int(number): str(reason) for number, reason in rows}


def _candidate(row: tuple[int, bytes | None, str, Verdict, str, str]) -> Candidate:
    number, state, sites, verdict, reason, votes = row
    return Candidate(
        round=number,
        state=state,
        sites=tuple(json.loads(sites)),
        verdict=verdict,
        reason=reason,
        votes=json.loads(votes),
    )
