"""The ledger's file: whose it is, what was tampered with, and disks that are full or damaged."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fedtwin_client.node.ledger import Ledger
from fedtwin_protocol.errors import BudgetError, LedgerError

from .ledgers import LIMITS, NOON, reservation


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_the_file_belongs_to_its_owner_alone_and_is_flushed_at_every_commit(ledger, tmp_path):
    ledger.reserve(reservation(), LIMITS, NOON)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    pragma = ledger._database.connection.execute
    assert pragma("PRAGMA synchronous").fetchone() == (2,)
    assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    path.touch(mode=0o600)
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="chmod 600"):
        Ledger(path)


def test_entries_cannot_be_changed_or_removed_through_the_database(ledger, tmp_path):
    ledger.reserve(reservation(), LIMITS, NOON)
    connection = sqlite3.connect(tmp_path / "ledger.db")
    for statement in (
        "UPDATE entries SET study = 'other'",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


TAMPERS = {
    "a changed study": "UPDATE entries SET study = 'other' WHERE sequence = 3",
    "a changed body": """UPDATE entries SET body = '{"kind":"count"}' WHERE sequence = 3""",
    "a body that is no JSON": "UPDATE entries SET body = '{' WHERE sequence = 3",
    "a body spelled otherwise": """UPDATE entries SET body = '{"kind": "train"}'
        WHERE sequence = 3""",
    "a changed time": "UPDATE entries SET time = '2026-03-01T12:00:00.000001+00:00'"
    " WHERE sequence = 3",
    "a removed entry": "DELETE FROM entries WHERE sequence = 3",
    "a changed hash": "UPDATE entries SET hash = previous WHERE sequence = 3",
}


@pytest.mark.parametrize("statement", TAMPERS.values(), ids=TAMPERS)
def test_a_tampered_ledger_does_not_open_and_names_the_entry(tmp_path, statement):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.reserve(reservation(), LIMITS, NOON)
        for task in "abc":
            ledger.charge("heart", task, "train", NOON)
    connection = sqlite3.connect(path)
    for trigger in ("never_changed", "never_deleted"):
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="entry 3"):
        Ledger(path)


def test_a_rehashed_entry_that_breaks_the_rules_is_found(tmp_path):
    """Somebody who can compute hashes still cannot charge what was not reserved."""
    from fedtwin_client.node.ledger_chain import Fact, link

    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.reserve(reservation(), LIMITS, NOON)
        fact = Fact(kind="charge", study="x", plan_hash="f" * 64, task="t", body={"kind": "train"})
        entry = link(fact, ledger._books.last, NOON)
    connection = sqlite3.connect(path)
    values = (entry.sequence, entry.time.isoformat(timespec="microseconds"), "charge", "x")
    connection.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, 't', ?, ?, ?)",
        (
            *values,
            "f" * 64,
            json.dumps(entry.body, separators=(",", ":")),
            entry.previous,
            entry.hash,
        ),
    )
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="where none is reserved"):
        Ledger(path)


def test_an_older_copy_of_the_ledger_is_found_by_what_was_released(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.reserve(reservation(), LIMITS, NOON)
        ledger.charge("heart", "a", "train", NOON)
    shutil.copy(path, tmp_path / "backup.db")
    with Ledger(path) as ledger:
        ledger.charge("heart", "b", "train", NOON)
        ledger.must_cover(["a", "b"])
    with (
        Ledger(tmp_path / "backup.db") as old,
        pytest.raises(LedgerError, match=r"1 tasks .*first: b.* older copy"),
    ):
        old.must_cover(["a", "b"])


def test_two_processes_on_one_file_see_each_others_charges(ledger, tmp_path):
    with Ledger(tmp_path / "ledger.db") as other:
        ledger.reserve(reservation(rounds=2), LIMITS, NOON)
        assert other.charge("heart", "a", "train", NOON).number == 1
        assert ledger.charge("heart", "b", "train", NOON).number == 2
        with pytest.raises(BudgetError, match="all 2 charges"):
            other.charge("heart", "c", "train", NOON)


def test_a_locked_ledger_says_so(tmp_path):
    with Ledger(tmp_path / "ledger.db", patience_s=0.05) as ledger:
        ledger.reserve(reservation(), LIMITS, NOON)
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match=r"another process .* Nothing was charged"):
            ledger.charge("heart", "a", "train", NOON)
        other.execute("ROLLBACK")
        other.close()
        assert ledger.charge("heart", "a", "train", NOON).number == 1


def test_a_read_only_ledger_says_so(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    ledger._database.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError, match=r"may not be written.*nothing was sent"):
        ledger.charge("heart", "a", "train", NOON)


def test_a_full_disk_charges_nothing_and_leaves_a_whole_ledger(ledger, tmp_path):
    ledger.reserve(reservation(rounds=5000), replace(LIMITS, epsilon_lifetime=500), NOON)
    pragma = ledger._database.connection.execute
    pages = pragma("PRAGMA page_count").fetchone()[0]
    pragma(f"PRAGMA max_page_count = {pages + 1}")
    told = []

    def charge_until_refused():
        for number in range(1000):
            told.append(ledger.charge("heart", f"t{number}", "train", NOON))

    with pytest.raises(LedgerError, match=r"the disk is full.*Nothing was charged"):
        charge_until_refused()
    charged = ledger.account("heart").made["train"]
    assert charged == len(told)
    pragma(f"PRAGMA max_page_count = {pages + 1000}")
    assert ledger.charge("heart", "afterwards", "train", NOON).number == charged + 1
    ledger.verify()


def charge_until_the_file_may_not_grow(path: Path, largest: int) -> int:
    """In a forked child, so that the limit ends with it; returns how many charges it was told."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        told = 0
        try:
            with Ledger(path) as ledger:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
                for number in range(2000):
                    ledger.charge("heart", f"t{number}", "train", NOON)
                    told += 1
        except LedgerError as error:
            os.write(writer, json.dumps([told, str(error)]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    told, sentence = json.loads(os.read(reader, 10_000))
    os.close(reader)
    assert "Nothing was charged, nothing was sent" in sentence, sentence
    return told


@pytest.mark.parametrize("largest", [150_000, 163_840, 200_001])
def test_a_disk_that_refuses_to_write_never_loses_a_charge_it_confirmed(tmp_path, largest):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.reserve(reservation(rounds=5000), replace(LIMITS, epsilon_lifetime=500), NOON)
    told = charge_until_the_file_may_not_grow(path, largest)
    assert told > 0
    with Ledger(path) as ledger:
        assert ledger.account("heart").made["train"] >= told


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "ledger.db"
    path.touch(mode=0o600)
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(LedgerError, match=r"ledger\.db .*no database or is damaged"):
        Ledger(path)


def test_a_damaged_file_is_found_at_opening(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.reserve(reservation(), LIMITS, NOON)
    data = bytearray(path.read_bytes())
    middle = data.index(b"reserve")
    data[middle : middle + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(LedgerError):
        Ledger(path)
