"""The privacy ledger of the site: written ahead, append-only, hash-chained, and never below.

Guarantee: when `charge` has returned, the charge is on disk; so whatever leaves the hospital
afterwards is paid for, and a crash at any moment can only have charged too much. What is charged is
never given back; `close` gives back what was reserved and not charged. A reservation is refused if
it would exceed the limits, and a charge if it was not reserved.

It does not hold if the file is replaced by an older copy: `must_cover` finds that by the tasks that
the outbox remembers. It takes prices from outside, and recomputes them where plain arithmetic can.
Two processes may share the file; each change is made under SQLite's lock on the newest state.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fedtwin_client.node.database import Database, Trace
from fedtwin_client.node.ledger_account import (
    Account,
    Books,
    Charge,
    Reservation,
)
from fedtwin_client.node.ledger_chain import REMEDY, Entry, Fact, check_link, link, spell_time
from fedtwin_client.node.ledger_limits import BudgetLimits, check_reservation
from fedtwin_client.node.ledger_statement import EpsilonOf, Statement, make_statement
from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.charge_kinds import ChargeKind
from fedtwin_protocol.errors import BudgetError, LedgerError, WireError

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
_COLUMNS: Final = "sequence, time, kind, study, plan_hash, task, body, previous, hash"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, study TEXT NOT NULL,
    plan_hash TEXT NOT NULL, task TEXT NOT NULL, body TEXT NOT NULL, previous TEXT NOT NULL,
    hash TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS one_charge_a_task ON entries (task) WHERE kind = 'charge';
CREATE TRIGGER IF NOT EXISTS never_changed BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS never_deleted BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS only_appended BEFORE INSERT ON entries
    WHEN NEW.sequence <> (SELECT COALESCE(MAX(sequence), 0) + 1 FROM entries)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


class Ledger:
    """One site's ledger; opening it verifies the whole chain.

    Args:
        path: the file; made if absent, readable by its owner only.
        patience_s: how long to wait for another process that holds it.
        trace: is handed each SQL statement before it runs.

    Raises:
        LedgerError: the file cannot be used, or an entry was changed.
    """

    def __init__(self, path: Path, *, patience_s: float = 10.0, trace: Trace | None = None) -> None:
        self._database = Database(
            path,
            schema=_SCHEMA,
            what="the privacy ledger",
            consequence="Nothing was charged, nothing was sent",
            patience_s=patience_s,
            trace=trace,
        )
        self._books = Books()
        try:
            self.verify()
        except LedgerError:
            self._database.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the file."""
        self._database.close()

    def reserve(self, asked: Reservation, limits: BudgetLimits, now: datetime) -> Account:
        """Set aside everything a study may cost; the same open plan again changes nothing.

        A plan that was closed is opened again with its old charges counted on.

        Raises:
            BudgetError: a limit would be overdrawn, or the request does not add up.
            LedgerError: it could not be written, or the clock runs backwards.
        """
        with self._change() as connection:
            check_reservation(self._books, asked, limits)
            known = self._books.accounts.get(asked.plan_hash)
            if known is not None and known.open:
                return known
            terms = known.reservation if known is not None else asked
            self._append(
                connection,
                Fact(
                    kind="reserve",
                    study=asked.study,
                    plan_hash=asked.plan_hash,
                    body=terms.to_body(),
                ),
                now,
            )
            return self._books.accounts[asked.plan_hash]

    def charge(self, study: str, task: str, kind: ChargeKind, now: datetime) -> Charge:
        """Pay for one task, on disk before this returns; only then may noise be drawn.

        The same task again returns the same charge and writes nothing. If its bytes were stored in
        the outbox they must be sent as they are; noise is drawn again only for a task of which
        nothing was stored.

        Raises:
            BudgetError: nothing (more) of that kind is reserved for the study, or it is closed.
            LedgerError: it could not be written, the clock runs backwards, or the task was charged
                for another study or kind.
        """
        with self._change() as connection:
            before = self._books.charges.get(task)
            if before is not None:
                return _same(before, study, kind)
            account = self._open_account(study)
            _check_left(account, kind)
            plan_hash = account.reservation.plan_hash
            fact = Fact(
                kind="charge", study=study, plan_hash=plan_hash, task=task, body={"kind": kind}
            )
            self._append(connection, fact, now)
            return self._books.charges[task]

    def close(self, study: str, now: datetime) -> None:
        """Give back what a study has reserved and not charged; closing it again does nothing.

        Raises:
            BudgetError: the study was never reserved here.
            LedgerError: it could not be written, or the clock runs backwards.
        """
        with self._change() as connection:
            account = self._known_account(study)
            if account.open:
                plan_hash = account.reservation.plan_hash
                made = {kind: account.made[kind] for kind in sorted(account.made)}
                fact = Fact(kind="close", study=study, plan_hash=plan_hash, body={"made": made})
                self._append(connection, fact, now)

    def accept_clock(self, by: str, now: datetime) -> None:
        """Let a person state that the clock is right although it is behind the last entry.

        No guarantee depends on the time; the statement is an entry like any other.

        Raises:
            LedgerError: it could not be written.
        """
        with self._change() as connection:
            last = self._books.time
            behind = (last - now).total_seconds() if last else 0.0
            self._write(connection, Fact(kind="clock", body={"by": by, "behind_s": behind}), now)

    def account(self, study: str) -> Account:
        """Where the newest plan of a study stands.

        Raises:
            BudgetError: the study was never reserved here.
        """
        self._refresh()
        return self._known_account(study)

    def head(self) -> tuple[int, str]:
        """Number and hash of the last entry; (0, '') of an empty ledger."""
        self._refresh()
        last = self._books.last
        return (last.sequence, last.hash) if last else (0, "")

    def verify(self) -> None:
        """Read every entry again, check the chain and the rules of the books.

        Raises:
            LedgerError: names the first entry that does not fit.
        """
        with self._database.explained():
            found = self._database.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise LedgerError(f"the privacy ledger's file is damaged ({found}). {REMEDY}")
        self._books = Books()
        self._refresh()

    def must_cover(self, tasks: Iterable[str]) -> None:
        """Check that every task whose answer was stored for sending is charged here.

        Raises:
            LedgerError: one is not, so the ledger is older than what left the hospital.
        """
        self._refresh()
        missing = sorted(set(tasks) - set(self._books.charges))
        if missing:
            raise LedgerError(
                f"the privacy ledger does not know {len(missing)} tasks whose answers were stored "
                f"for sending (first: {missing[0]}): it was replaced by an older copy, or entries "
                f"were cut off. {REMEDY}"
            )

    def statement(self, limits: BudgetLimits, epsilon_of: EpsilonOf | None = None) -> Statement:
        """What has been spent and reserved, study by study and in a lifetime.

        Args:
            limits: the hospital's.
            epsilon_of: composes steps into an epsilon at a delta by PLD accounting; none: only
                Rényi figures, which are a little larger.
        """
        self._refresh()
        return make_statement(self._books, limits, epsilon_of)

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._database.transaction() as connection:
                self._catch_up(connection)
                yield connection
        except BaseException:
            # What was not written must not be remembered: the next call reads the file afresh.
            self._books = Books()
            raise

    def _refresh(self) -> None:
        with self._database.explained():
            self._catch_up(self._database.connection)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        last = self._books.last
        start = last.sequence if last else 1
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE sequence >= ? ORDER BY sequence",  # noqa: S608 - constant names
            (start,),
        ).fetchall()
        if last is not None:
            if not rows or rows[0][8] != last.hash:
                raise LedgerError(
                    f"the privacy ledger was replaced while it was in use: entry {last.sequence} "
                    f"is another one now. {REMEDY}"
                )
            rows = rows[1:]
        for row in rows:
            entry = _entry(row)
            check_link(entry, self._books.last)
            self._books.apply(entry)

    def _open_account(self, study: str) -> Account:
        account = self._known_account(study)
        if not account.open:
            raise BudgetError(
                f"study {study} is closed in the privacy ledger, so nothing is charged to it: "
                "reserve it again by accepting the study again"
            )
        return account

    def _known_account(self, study: str) -> Account:
        account = self._books.account(study)
        if account is None:
            known = ", ".join(sorted(self._books.current)) or "none"
            raise BudgetError(
                f"nothing is reserved for study {study} in the privacy ledger (reserved: {known}): "
                "a study is reserved when it is accepted"
            )
        return account

    def _append(self, connection: sqlite3.Connection, fact: Fact, now: datetime) -> None:
        last = self._books.time
        if last is not None and now < last - CLOCK_TOLERANCE:
            raise LedgerError(
                f"the clock reads {spell_time(now)}, but the privacy ledger's last entry was "
                f"written at {spell_time(last)}: set the clock right (time service), or, if it was "
                "wrong then and is right now, state so in the ledger. Nothing was charged, nothing "
                "was sent"
            )
        self._write(connection, fact, max(now, last) if last else now)

    def _write(self, connection: sqlite3.Connection, fact: Fact, time: datetime) -> None:
        entry = link(fact, self._books.last, time)
        self._books.apply(entry)
        connection.execute(
            f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constant names
            (
                entry.sequence,
                spell_time(entry.time),
                entry.kind,
                entry.study,
                entry.plan_hash,
                entry.task,
                canonical_bytes(entry.body).decode(),
                entry.previous,
                entry.hash,
            ),
        )


def _entry(row: tuple[Any, ...]) -> Entry:
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


def _same(before: Charge, study: str, kind: str) -> Charge:
    if (before.study, before.mechanism.kind) != (study, kind):
        raise LedgerError(
            f"task {before.task} was charged as '{before.mechanism.kind}' of {before.study} and "
            f"now comes as '{kind}' of {study}: the coordinator must not use a task's name twice"
        )
    return before


def _check_left(account: Account, kind: str) -> None:
    allotment = account.allotment(kind)
    study = account.reservation.study
    if allotment is None:
        kinds = ", ".join(item.mechanism.kind for item in account.reservation.allotments)
        raise BudgetError(
            f"study {study} reserved nothing of kind '{kind}' in the privacy ledger (reserved: "
            f"{kinds}), so this task is not answered"
        )
    made = account.made.get(allotment.mechanism.kind, 0)
    if made >= allotment.charges:
        raise BudgetError(
            f"study {study} has used all {allotment.charges} charges of kind '{kind}' that its "
            "plan reserved, so this task is not answered: the coordinator asks for more than the "
            "signed plan"
        )
