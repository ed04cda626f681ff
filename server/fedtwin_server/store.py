"""What the coordinator must not forget: one SQLite file, written before anything is answered.

The running coordinator and the consortium's commands (`fedtwin server …`) share it; each change is
one transaction. Parameters and updates lie beside it as blobs, known by their hash.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.transparency import LogEntry
from fedtwin_server.log_book import LOG_SCHEMA, append, append_plan, append_round
from fedtwin_server.opening import open_database
from fedtwin_server.schema import SCHEMA

StudyStatus = Literal["open", "running", "finished", "failed", "stopped", "released"]
LIVE_STATUSES: Final = ("open", "running")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecord:
    """One study as it stands in the store."""

    study: str
    version: int
    plan_hash: str
    envelope: bytes
    status: StudyStatus
    reason: str
    initial: bytes | None
    added: str
    changed: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRecord:
    """A closed round: who took part, and the coordinator's state after it (a packed payload)."""

    round: int
    state: bytes
    sites: tuple[str, ...]
    closed: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A line of the coordinator's journal."""

    time: str
    study: str
    site: str
    text: str


class Store:
    """The coordinator's memory.

    Args:
        path: the database file; made if absent, readable by its owner only.

    Raises:
        ConfigurationError: there is no such folder, another process holds the file and
            goes on doing so, or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        if not path.parent.is_dir():
            raise ConfigurationError(
                f"there is no coordinator in {path.parent}: run 'fedtwin server init' first"
            )
        self.connection = open_database(path, SCHEMA + LOG_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is inside, or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def version(self) -> int:
        """Changes when another process has changed the file."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    # Members

    def enrol(self, role: str, name: str, software: str, now: datetime) -> None:
        """Note a member that has got its first certificate; a new enrolment lifts a revocation."""
        self.connection.execute(
            "INSERT INTO members (role, name, enrolled, software) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (role, name) DO UPDATE SET enrolled = excluded.enrolled,"
            " software = excluded.software, revoked = NULL",
            (role, name, now.isoformat(), software[:200]),
        )

    def mark_revoked(self, role: str, name: str, now: datetime) -> None:
        """Note a revocation."""
        self.connection.execute(
            "UPDATE members SET revoked = ? WHERE role = ? AND name = ?",
            (now.isoformat(), role, name),
        )

    def seen(self, name: str, software: str, now: datetime) -> None:
        """Note that a site's link is up."""
        self.connection.execute(
            "UPDATE members SET last_seen = ?, software = ? WHERE role = 'site' AND name = ?",
            (now.isoformat(), software[:200], name),
        )

    def set_signing_key(self, site: str, key: str, *, replace: bool) -> None:
        """Note a site's long-term signing key; without `replace` one that is known stays."""
        verb = "REPLACE" if replace else "IGNORE"
        self.connection.execute(
            f"INSERT OR {verb} INTO signing_keys (site, key) VALUES (?, ?)",  # noqa: S608 - a word of ours
            (site, key),
        )

    def signing_keys(self) -> dict[str, str]:
        """Sites' signing keys, base64, by name."""
        return dict(self.connection.execute("SELECT site, key FROM signing_keys ORDER BY site"))

    def members(self, role: str) -> list[dict[str, str | None]]:
        """Members of a role, by name."""
        rows = self.connection.execute(
            "SELECT name, enrolled, revoked, last_seen, software FROM members"
            " WHERE role = ? ORDER BY name",
            (role,),
        )
        keys = ("name", "enrolled", "revoked", "last_seen", "software")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    # Studies

    def add_study(self, record: StudyRecord) -> None:
        """Add a study.

        Raises:
            ConfigurationError: one of that name and version, or a newer one, is here.
        """
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT version, status FROM studies WHERE study = ?", (record.study,)
            ).fetchone()
            if row is not None and (row[0] >= record.version or row[1] in LIVE_STATUSES):
                raise ConfigurationError(
                    f"study {record.study} version {row[0]} is here already ({row[1]}): raise "
                    "'version' in the plan, and stop the old study first if it still runs"
                )
            connection.execute("DELETE FROM decisions WHERE study = ?", (record.study,))
            connection.execute("DELETE FROM answers WHERE study = ?", (record.study,))
            connection.execute("DELETE FROM rounds WHERE study = ?", (record.study,))
            connection.execute("DELETE FROM totals WHERE study = ?", (record.study,))
            connection.execute(
                "INSERT OR REPLACE INTO studies (study, version, plan_hash, envelope, status,"
                " reason, initial, added, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.study,
                    record.version,
                    record.plan_hash,
                    record.envelope,
                    record.status,
                    record.reason,
                    record.initial,
                    record.added,
                    record.changed,
                ),
            )
            append_plan(connection, (record.study, record.version, record.plan_hash), record.added)

    def studies(self) -> list[StudyRecord]:
        """All studies, by name."""
        rows = self.connection.execute(
            "SELECT study, version, plan_hash, envelope, status, reason, initial, added, changed"
            " FROM studies ORDER BY study"
        )
        return [_study(row) for row in rows]

    def study(self, name: str) -> StudyRecord:
        """One study.

        Raises:
            ConfigurationError: there is none of that name.
        """
        for record in self.studies():
            if record.study == name:
                return record
        known = ", ".join(record.study for record in self.studies()) or "none yet"
        raise ConfigurationError(f"there is no study '{name}' here; there are: {known}")

    def set_status(self, study: str, status: StudyStatus, reason: str, now: datetime) -> None:
        """Change where a study stands."""
        self.connection.execute(
            "UPDATE studies SET status = ?, reason = ?, changed = ? WHERE study = ?",
            (status, reason, now.isoformat(), study),
        )

    def decide(self, study: str, site: str, take_part: bool, now: datetime) -> None:
        """Note a site's decision; the newest counts."""
        self.connection.execute(
            "INSERT OR REPLACE INTO decisions (study, site, take_part, decided)"
            " VALUES (?, ?, ?, ?)",
            (study, site, int(take_part), now.isoformat()),
        )

    def decisions(self, study: str) -> dict[str, bool]:
        """Who takes part and who does not; sites that have not answered are absent."""
        rows = self.connection.execute(
            "SELECT site, take_part FROM decisions WHERE study = ?", (study,)
        )
        return {site: bool(take_part) for site, take_part in rows}

    # Rounds

    def keep_answer(
        self,
        *,
        task_id: str,
        study: str,
        site: str,
        round_number: int,
        kind: str,
        answer: bytes,
        now: datetime,
    ) -> None:
        """Keep an admitted answer until its round is closed."""
        self.connection.execute(
            "INSERT OR IGNORE INTO answers (task_id, study, site, round, kind, answer, received)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (task_id, study, site, round_number, kind, answer, now.isoformat()),
        )

    def answers(self, study: str, kind: str) -> list[tuple[str, str, int, bytes]]:
        """Task, site, round and bytes of the answers of a kind that are kept."""
        rows = self.connection.execute(
            "SELECT task_id, site, round, answer FROM answers WHERE study = ? AND kind = ?"
            " ORDER BY site",
            (study, kind),
        )
        return [(task, site, int(number), bytes(answer)) for task, site, number, answer in rows]

    def keep_step(self, label: str, step: str, sites: Sequence[str]) -> None:
        """Keep who took a step of a secure sum, once it is over."""
        self.connection.execute(
            "INSERT OR IGNORE INTO steps (label, step, sites) VALUES (?, ?, ?)",
            (label, step, json.dumps(list(sites))),
        )

    def step_sites(self, label: str, step: str) -> tuple[str, ...] | None:
        """Who took a step that is over; none while it is not."""
        row = self.connection.execute(
            "SELECT sites FROM steps WHERE label = ? AND step = ?", (label, step)
        ).fetchone()
        return None if row is None else tuple(json.loads(row[0]))

    def keep_total(
        self, study: str, purpose: str, numbers: Sequence[float], sites: Sequence[str]
    ) -> None:
        """Keep what a secure sum gave, other than a round's."""
        self.connection.execute(
            "INSERT OR REPLACE INTO totals (study, purpose, numbers, sites) VALUES (?, ?, ?, ?)",
            (study, purpose, json.dumps(list(numbers)), json.dumps(list(sites))),
        )

    def total(self, study: str, purpose: str) -> tuple[list[float], tuple[str, ...]] | None:
        """Numbers and sites of such a sum; none if it was not made."""
        row = self.connection.execute(
            "SELECT numbers, sites FROM totals WHERE study = ? AND purpose = ?", (study, purpose)
        ).fetchone()
        return None if row is None else (json.loads(row[0]), tuple(json.loads(row[1])))

    def close_round(self, study: str, record: RoundRecord) -> None:
        """Keep a round's result and drop its answers, in one step."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO rounds (study, round, state, sites, closed, seconds)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    study,
                    record.round,
                    record.state,
                    json.dumps(record.sites),
                    record.closed,
                    record.seconds,
                ),
            )
            connection.execute(
                "DELETE FROM answers WHERE study = ? AND (kind = 'train' OR kind LIKE 'train.%')"
                " AND round <= ?",
                (study, record.round),
            )
            of = self.study(study)
            append_round(
                connection,
                (study, of.version, of.plan_hash),
                record.round,
                record.state,
                record.sites,
                record.closed,
            )

    def log(self, entry: LogEntry) -> None:
        """Write an entry of the public log that tells of no other change here."""
        with self.transaction() as connection:
            append(connection, entry)

    def rounds(self, study: str, last: int | None = None) -> list[RoundRecord]:
        """The closed rounds, in order; `last`: only so many, the newest."""
        rows = self.connection.execute(
            "SELECT round, state, sites, closed, seconds FROM rounds WHERE study = ?"
            " ORDER BY round DESC LIMIT ?",
            (study, -1 if last is None else last),
        ).fetchall()
        return [
            RoundRecord(
                round=number,
                state=bytes(state),
                sites=tuple(json.loads(sites)),
                closed=closed,
                seconds=seconds,
            )
            for number, state, sites, closed, seconds in reversed(rows)
        ]

    def rounds_closed(self, study: str) -> int:
        """How many rounds are closed."""
        row = self.connection.execute("SELECT count(*) FROM rounds WHERE study = ?", (study,))
        return int(row.fetchone()[0])

    # Journal

    def note(self, study: str, site: str, text: str, now: datetime) -> None:
        """Write a line of the journal."""
        self.connection.execute(
            "INSERT INTO events (time, study, site, text) VALUES (?, ?, ?, ?)",
            (now.isoformat(), study, site, text[:1000]),
        )

    def journal(self, study: str) -> list[Event]:
        """The journal of a study, oldest first."""
        rows = self.connection.execute(
            "SELECT time, study, site, text FROM events WHERE study = ? ORDER BY sequence",
            (study,),
        )
        return [Event(time=row[0], study=row[1], site=row[2], text=row[3]) for row in rows]


def _study(
    row: tuple[str, int, str, bytes, StudyStatus, str, bytes | None, str, str],
) -> StudyRecord:
    return StudyRecord(
        study=row[0],
        version=row[1],
        plan_hash=row[2],
        envelope=row[3],
        status=row[4],
        reason=row[5],
        initial=row[6],
        added=row[7],
        changed=row[8],
    )
