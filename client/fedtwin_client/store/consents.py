"""Who takes no part in research: objections, FHIR Consents and erased patients, by pseudonym.

`consents.sqlite` beside the timelines. It is asked before every task of a study, so that who
withdraws is absent from the next. An erased patient stays as a bare pseudonym, so that a later
import finds them and leaves them out.

The rule is the hospital's policy: `opt_out`, everybody takes part but who objected; `opt_in`, only
who permitted. In both, a denial and an objection win over every permission.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from fedtwin_client.at_rest.database import ERRORS, connect, prepare
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.at_rest.room import how_to_mend
from fedtwin_client.records.consent import Statement
from fedtwin_protocol.errors import RecordError

Rule = Literal["opt_out", "opt_in"]
FILE: Final = "consents.sqlite"
_SCHEMA: Final = """
PRAGMA secure_delete=ON;
CREATE TABLE IF NOT EXISTS objections (subject_id INTEGER PRIMARY KEY, since TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS statements (
    origin TEXT NOT NULL, number INTEGER NOT NULL, subject_id INTEGER NOT NULL,
    verdict TEXT NOT NULL, starts INTEGER, ends INTEGER, PRIMARY KEY (origin, number));
CREATE INDEX IF NOT EXISTS statements_of ON statements (subject_id);
CREATE TABLE IF NOT EXISTS versions (
    origin TEXT PRIMARY KEY, updated INTEGER NOT NULL, subject_id INTEGER);
CREATE INDEX IF NOT EXISTS versions_of ON versions (subject_id);
CREATE TABLE IF NOT EXISTS erased (subject_id INTEGER PRIMARY KEY, since TEXT NOT NULL);
"""
_FOREVER: Final = 2**62
_BEFORE: Final = -(2**62)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One patient's consent, at one time.

    Attributes:
        objected: since when the patient is on the list of objections, if so.
        erased: since when the patient is erased, if so.
        verdicts: what Consents say now.
        takes_part: under the rule that was asked for.
    """

    objected: str | None
    erased: str | None
    verdicts: tuple[str, ...]
    takes_part: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """What became of Consents.

    Attributes:
        live: how many of them say something now.
        erased: how many are of erased patients, and were dropped.
        late: those that are older than what was there, and were dropped.
    """

    live: int
    erased: int
    late: frozenset[str]


_MEND: Final = "check its owner, its rights and the disk, or restore the folder from a backup"


class Consents:
    """One site's consents.

    Args:
        store: the folder of the timelines; made if absent.
        keyring: the node's; none: the one of its folder.

    Raises:
        RecordError: the file cannot be used.
    """

    def __init__(self, store: Path, keyring: Keyring | None = None) -> None:
        self._path = store / FILE
        try:
            store.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = connect(self._path, keyring=keyring)
            prepare(self._db, _SCHEMA)
        except (OSError, *ERRORS) as error:
            raise RecordError(
                f"the consents {self._path} cannot be used ({error}), so nobody can take part: "
                + how_to_mend(error, self._path, _MEND)
            ) from error
        self._mark: tuple[int, Rule] | None = None
        self._since = self._until = _BEFORE
        self._absent: frozenset[int] = frozenset()

    def __enter__(self) -> "Consents":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the file."""
        self._db.close()

    def add_objections(self, subject_ids: Iterable[int], now: datetime) -> int:
        """Put patients on the list of objections; on disk when this returns.

        Returns:
            How many were not on it before.
        """
        rows = [(subject, now.astimezone(UTC).isoformat()) for subject in set(subject_ids)]
        return self._write("INSERT OR IGNORE INTO objections VALUES (?, ?)", rows)

    def lift(self, subject_id: int) -> bool:
        """Take a patient off the list of objections; whether they were on it."""
        return bool(self._write("DELETE FROM objections WHERE subject_id = ?", [(subject_id,)]))

    def replace(
        self,
        consents: Mapping[str, tuple[int | None, Sequence[Statement]]],
        updated: Mapping[str, datetime | None] = MappingProxyType({}),
        *,
        even_older: bool = False,
    ) -> Replaced:
        """Take Consents over, all of them or none; each replaces what it said before.

        Args:
            consents: by origin, whose it is (none: nobody's any more), and what it says.
            updated: by origin, when its source says it was last changed. One that is older than
                what is there is not taken.
            even_older: it is taken nevertheless.
        """
        gone = self.erased()
        late = frozenset() if even_older else self._late(updated)
        consents = {origin: said for origin, said in consents.items() if origin not in late}
        kept = {o: said for o, said in consents.items() if said[0] is not None and said[1]}
        live = {o: said for o, said in kept.items() if said[0] not in gone}
        rows = [
            (origin, number, subject, item.verdict, _us(item.starts), _us(item.ends))
            for origin, (subject, said) in live.items()
            for number, item in enumerate(said)
        ]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "DELETE FROM statements WHERE origin = ?", [(origin,) for origin in consents]
            )
            self._db.executemany("INSERT INTO statements VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany(
                "INSERT INTO versions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                " updated = excluded.updated,"
                " subject_id = ifnull(excluded.subject_id, subject_id)",
                [
                    (origin, _us(updated[origin]), subject)
                    for origin, (subject, _) in consents.items()
                    if updated.get(origin) is not None and subject not in gone
                ],
            )
            self._db.execute("COMMIT")
        except ERRORS as error:
            raise self._fault(error) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        return Replaced(live=len(live), erased=len(kept) - len(live), late=late)

    def _late(self, updated: Mapping[str, datetime | None]) -> frozenset[str]:
        """The Consents of which there is a newer version."""
        times = {origin: _us(time) for origin, time in updated.items() if time is not None}
        found = self._rows(
            "SELECT origin, updated FROM versions WHERE origin IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(times)),),
        )
        return frozenset(str(origin) for origin, newest in found if newest > (times[origin] or 0))

    def erase(self, subject_id: int, now: datetime) -> None:
        """Keep nothing of a patient but the pseudonym and that it is erased."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR IGNORE INTO erased VALUES (?, ?)",
                (subject_id, now.astimezone(UTC).isoformat()),
            )
            for table in ("objections", "statements", "versions"):
                self._db.execute(f"DELETE FROM {table} WHERE subject_id = ?", (subject_id,))  # noqa: S608 - constants
            self._db.execute("COMMIT")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except ERRORS as error:
            raise self._fault(error) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def hand_over(self, subject_id: int, into: int) -> None:
        """What is said of one pseudonym holds for another, which is the same person."""
        self._copy_objection(subject_id, into)
        for table in ("statements", "versions"):
            change = f"UPDATE {table} SET subject_id = ? WHERE subject_id = ?"  # noqa: S608 - so
            self._write(change, [(into, subject_id)])

    def part(self, subject_id: int, other: int, now: datetime) -> None:
        """Two pseudonyms are two people again: who may have objected or denied stays out."""
        self._copy_objection(subject_id, other)
        self._write(
            "INSERT OR IGNORE INTO objections SELECT ?, ? FROM statements WHERE subject_id = ?"
            " AND verdict <> 'permit' LIMIT 1",
            [(other, now.astimezone(UTC).isoformat(), subject_id)],
        )

    def _copy_objection(self, subject_id: int, other: int) -> None:
        self._write(
            "INSERT OR IGNORE INTO objections SELECT ?, since FROM objections WHERE subject_id = ?",
            [(other, subject_id)],
        )

    def erased(self) -> frozenset[int]:
        """Pseudonyms of erased patients."""
        return self._subjects("SELECT subject_id FROM erased")

    def objections(self) -> int:
        """How many patients are on the list of objections."""
        return len(self._subjects("SELECT subject_id FROM objections"))

    def absent(self, rule: Rule, subject_ids: frozenset[int], now: datetime) -> frozenset[int]:
        """Who of some patients takes no part now; the same set as long as nothing changes.

        Changes made through another connection are seen; this one is for looking only.

        Args:
            rule: the policy's.
            subject_ids: the patients in question; always the same ones.
            now: statements hold for a time.
        """
        try:
            mark = (int(self._db.execute("PRAGMA data_version").fetchone()[0]), rule)
        except ERRORS as error:
            raise self._fault(error) from error
        at = _us(now) or 0
        if mark != self._mark or not self._since <= at < self._until:
            found = self._without_part(rule, subject_ids, at)
            self._absent = self._absent if found == self._absent else found
            self._since, self._until = at, self._next_change(at)
            self._mark = mark
        return self._absent

    def standing(self, subject_id: int, rule: Rule, now: datetime) -> Standing:
        """One patient's consent now."""
        objected = self._one("SELECT since FROM objections WHERE subject_id = ?", subject_id)
        erased = self._one("SELECT since FROM erased WHERE subject_id = ?", subject_id)
        at = _us(now) or 0
        rows = self._rows(
            "SELECT verdict FROM statements WHERE subject_id = ? AND coalesce(starts, ?) <= ?"
            " AND ? < coalesce(ends, ?) ORDER BY verdict",
            (subject_id, _BEFORE, at, at, _FOREVER),
        )
        out = subject_id in self._without_part(rule, frozenset({subject_id}), at)
        return Standing(
            objected=objected,
            erased=erased,
            verdicts=tuple(str(verdict) for (verdict,) in rows),
            takes_part=not out,
        )

    def _without_part(self, rule: Rule, subject_ids: frozenset[int], at: int) -> frozenset[int]:
        gone = self._subjects(
            "SELECT subject_id FROM objections UNION SELECT subject_id FROM erased"
        )
        said: dict[str, set[int]] = {"deny": set(), "permit": set(), "doubt": set()}
        for subject, verdict in self._rows(
            "SELECT subject_id, verdict FROM statements WHERE coalesce(starts, ?) <= ?"
            " AND ? < coalesce(ends, ?)",
            (_BEFORE, at, at, _FOREVER),
        ):
            said[str(verdict)].add(int(subject))
        denied = gone | said["deny"]
        if rule == "opt_out":
            return subject_ids & (denied | (said["doubt"] - said["permit"]))
        return subject_ids & denied | (subject_ids - said["permit"])

    def _next_change(self, at: int) -> int:
        ((soonest,),) = self._rows(
            "SELECT min(moment) FROM (SELECT starts AS moment FROM statements"
            " UNION ALL SELECT ends FROM statements) WHERE moment > ?",
            (at,),
        )
        return _FOREVER if soonest is None else int(soonest)

    def _subjects(self, sql: str) -> frozenset[int]:
        return frozenset(int(subject) for (subject,) in self._rows(sql, ()))

    def _one(self, sql: str, subject_id: int) -> str | None:
        rows = self._rows(sql, (subject_id,))
        return str(rows[0][0]) if rows else None

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except ERRORS as error:
            raise self._fault(error) from error

    def _write(self, sql: str, rows: Sequence[tuple[object, ...]]) -> int:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._db.total_changes
            self._db.executemany(sql, rows)
            changed = self._db.total_changes - before
            self._db.execute("COMMIT")
            return changed
        except ERRORS as error:
            raise self._fault(error) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _fault(self, error: Exception) -> RecordError:
        return RecordError(
            f"the consents {self._path} cannot be read or written ({error}); nothing was changed: "
            + how_to_mend(error, self._path, "check the disk, and other commands on this folder")
        )


def _us(time: datetime | None) -> int | None:
    """Microseconds since 1970."""
    if time is None:
        return None
    span = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
